"""The loop over the bus in memory: what becomes of a record, in which order, and when it stops."""

import asyncio
import os
import signal
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import pytest

from deltawheel.contracts.errors import ExitCode, InvalidRecordError, RetryLaterError
from deltawheel.contracts.events import InboundMessage, decode
from deltawheel.contracts.record import Record
from deltawheel.contracts.topics import Topic
from deltawheel.infra.clock import SystemClock, SystemRandom
from deltawheel.infra.memory_bus import MemoryConsumer
from deltawheel.services.runtime.handler import Tick
from deltawheel.services.runtime.run import run_service
from tests.records import WHEEL, a_judgement, a_prompt, a_slot_failure, a_trace, an_assignment
from tests.services.runtime.stage import (
    PROMPTS,
    SETTINGS,
    TRACES,
    FakeHandler,
    Stage,
    as_trace,
    with_runtime,
)


async def test_effect_comes_before_its_event_and_the_event_before_the_offset() -> None:
    async def work(record: Record) -> Sequence[Record]:
        stage.deeds.done.append("effect")
        return await as_trace(record)

    stage = Stage(FakeHandler(work))
    stage.send(a_prompt())
    await stage.run_until(lambda: stage.committed == 1)
    assert stage.deeds.done == ["effect", f"publish {TRACES}", "commit 1"]
    assert stage.published == [a_trace(an_assignment(a_prompt()))]
    assert stage.consumer.was_closed


async def test_every_record_is_published_and_committed() -> None:
    stage = Stage(FakeHandler())
    stage.send(*(a_prompt(f"{number}+1=") for number in range(200)))
    await stage.run_until(lambda: stage.committed == 200)
    assert (
        len({record.trace_id for record in stage.published if hasattr(record, "trace_id")}) == 200
    )
    assert stage.metric("deltawheel_records_total", topic="prompts", result="done") == 200
    assert stage.metric("deltawheel_events_published_total", topic="traces") == 200
    assert stage.metric("deltawheel_handling_seconds_count", topic="prompts") == 200


async def test_lag_of_each_partition_is_shown() -> None:
    stage = Stage(FakeHandler())
    stage.send(a_prompt())
    labels = {"topic": "prompts", "partition": "0"}
    await stage.run_until(lambda: stage.metric("deltawheel_lag_records", **labels) is not None)
    assert stage.metric("deltawheel_lag_records", **labels) == 0


async def test_no_more_records_are_worked_on_than_the_handler_asks_for() -> None:
    at_once, most = 0, 0

    async def work(record: Record) -> Sequence[Record]:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.001)
        at_once -= 1
        return []

    stage = Stage(FakeHandler(work, concurrency=3))
    stage.send(*(a_prompt(f"{number}+1=") for number in range(60)))
    await stage.run_until(lambda: stage.committed == 60)
    assert most == 3


async def test_partitions_pause_while_too_much_is_in_flight_and_resume() -> None:
    gate = asyncio.Event()

    async def work(record: Record) -> Sequence[Record]:
        await gate.wait()
        return []

    stage = Stage(FakeHandler(work))
    stage.send(*(a_prompt(f"{number}+1=") for number in range(20)))
    running = asyncio.create_task(stage.loop.run())
    await stage.until(lambda: "pause" in stage.deeds.done)
    stage.send(a_prompt("late"))
    assert stage.metric("deltawheel_paused_partitions") == 1
    gate.set()
    await stage.until(lambda: stage.committed == 21)
    stage.loop.stop()
    await running
    assert "resume" in stage.deeds.done
    assert stage.metric("deltawheel_paused_partitions") == 0


@pytest.mark.parametrize(
    ("value", "headers", "reason"),
    [
        (b"\xff\x00 garbage", (), "unknown event type"),
        (b"{}", (("ce_type", b"io.deltawheel.prompt.accepted.v1"),), "not a valid Prompt"),
        (b"{}", (("ce_type", b"io.deltawheel.trace.generated.v1"),), "belongs on"),
        (b"{}", (("ce_type", b"\xff"),), ""),
    ],
)
async def test_garbage_becomes_a_dead_letter_and_stalls_nothing(
    value: bytes, headers: tuple[tuple[str, bytes], ...], reason: str
) -> None:
    stage = Stage(FakeHandler())
    stage.send_raw(value, headers=headers)
    stage.send(a_prompt())
    await stage.run_until(lambda: stage.committed == 2)
    [(letter, end)] = stage.letters.stored
    assert (letter.key, letter.value, end) == (b"some key", value, None)
    assert reason in letter.reason
    [message] = stage.bus.messages(Topic.DEAD_LETTERS.of(WHEEL))
    assert (message.key, message.value) == (b"some key", value)
    told = dict(message.headers)
    assert told["__connect.errors.topic"] == PROMPTS.encode()
    assert told["__connect.errors.partition"] == b"0"
    assert told["__connect.errors.offset"] == b"0"
    assert told["__connect.errors.exception.class.name"] == b"InvalidRecordError"
    assert told["__connect.errors.exception.message"] == letter.reason.encode()
    assert len(stage.published) == 1
    assert stage.metric("deltawheel_records_total", topic="prompts", result="dead_letter") == 1


async def test_refused_record_is_stored_with_its_slot_end_then_published_then_committed() -> None:
    async def refuse(record: Record) -> Sequence[Record]:
        raise InvalidRecordError("nobody can answer this")

    end = a_slot_failure()
    stage = Stage(FakeHandler(refuse, end=end))
    stage.send(a_prompt())
    await stage.run_until(lambda: stage.committed == 1)
    [(letter, stored_end)] = stage.letters.stored
    assert stored_end == end
    assert letter.prompt_key == a_prompt().key
    dead_letters, judgements = Topic.DEAD_LETTERS.of(WHEEL), Topic.JUDGEMENTS.of(WHEEL)
    order = ["letter", f"publish {dead_letters}", f"publish {judgements}", "commit 1"]
    assert stage.deeds.done == order
    assert threading.main_thread() not in stage.handler.slot_end_threads


async def test_of_a_slot_that_had_ended_already_the_stored_end_is_published() -> None:
    async def refuse(record: Record) -> Sequence[Record]:
        raise InvalidRecordError("nobody can answer this")

    stage = Stage(FakeHandler(refuse, end=a_slot_failure()))
    stage.letters.earlier_end = a_judgement()
    stage.send(a_prompt())
    await stage.run_until(lambda: stage.committed == 1)
    [message] = stage.bus.messages(Topic.JUDGEMENTS.of(WHEEL))
    assert decode(message, wheel=WHEEL) == a_judgement()


async def test_what_the_bus_could_not_read_becomes_a_dead_letter_and_is_passed_by() -> None:
    def unreadable(message: InboundMessage) -> InboundMessage:
        if message.value != b"foreign":
            return message
        return replace(message, key=None, value=None, headers=(), fault="unknown codec")

    stage = Stage(FakeHandler())
    stage.consumer.as_polled = unreadable
    stage.send_raw(b"foreign")
    stage.send_raw(b"foreign")
    stage.send(a_prompt())
    await stage.run_until(lambda: stage.committed == 3)
    letters = [letter for letter, _ in stage.letters.stored]
    assert {(letter.offset, letter.reason) for letter in letters} == {
        (0, "unknown codec"),
        (1, "unknown codec"),
    }
    buried = stage.bus.messages(Topic.DEAD_LETTERS.of(WHEEL))
    assert {message.key for message in buried} == {each.letter_id.encode() for each in letters}
    assert {message.value for message in buried} == {None}
    assert len(letters) == len({letter.letter_id for letter in letters}) == 2
    assert len(stage.published) == 1


async def test_record_with_neither_key_nor_value_is_buried_like_any_other() -> None:
    def emptied(message: InboundMessage) -> InboundMessage:
        return replace(message, key=None, value=None)

    stage = Stage(FakeHandler())
    stage.consumer.as_polled = emptied
    stage.send_raw(b"")
    await stage.run_until(lambda: stage.committed == 1)
    [(letter, _)] = stage.letters.stored
    assert (letter.key, letter.value) == (None, None)
    [message] = stage.bus.messages(Topic.DEAD_LETTERS.of(WHEEL))
    assert message.key == letter.letter_id.encode()


async def test_record_is_tried_again_until_the_world_is_ready() -> None:
    tries = 0

    async def work(record: Record) -> Sequence[Record]:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise RetryLaterError("busy")
        return []

    stage = Stage(FakeHandler(work))
    stage.send(a_prompt())
    await stage.run_until(lambda: stage.committed == 1)
    assert tries == 4
    assert stage.letters.stored == []
    assert stage.metric("deltawheel_retries_total", topic="prompts") == 3


async def test_event_that_was_not_acknowledged_is_published_again_before_the_commit() -> None:
    stage = Stage(FakeHandler())
    stage.producer.num_failures = 2
    stage.send(a_prompt())
    await stage.run_until(lambda: stage.committed == 1)
    assert stage.deeds.done == [f"publish {TRACES}", "commit 1"]


async def test_record_that_waits_for_its_next_try_holds_its_offset_but_not_the_others() -> None:
    async def work(record: Record) -> Sequence[Record]:
        if record == a_prompt("first"):
            raise RetryLaterError("busy", retry_after_s=60)
        return await as_trace(record)

    stage = Stage(FakeHandler(work), with_runtime(backoff_cap_s=3_600))
    stage.send(a_prompt("first"), *(a_prompt(f"{number}+1=") for number in range(3)))
    await stage.run_until(lambda: len(stage.published) == 3)
    assert stage.committed is None


async def test_polling_goes_on_when_the_broker_comes_back() -> None:
    stage = Stage(FakeHandler())
    stage.consumer.num_failing_polls = 3
    stage.send(a_prompt())
    await stage.run_until(lambda: stage.committed == 1)
    assert len(stage.published) == 1


async def test_unknown_error_stops_the_loop_without_committing() -> None:
    async def work(record: Record) -> Sequence[Record]:
        raise ZeroDivisionError("a bug")

    stage = Stage(FakeHandler(work))
    stage.send(a_prompt(), a_prompt("other"))
    with pytest.raises(ZeroDivisionError, match="a bug"):
        await stage.run_until(lambda: False)
    assert stage.committed is None
    assert stage.letters.stored == []
    assert stage.consumer.was_closed


async def test_failure_waits_for_nobody() -> None:
    async def work(record: Record) -> Sequence[Record]:
        if record == a_prompt("bad"):
            await stage.until(lambda: waiting.is_set())
            raise ZeroDivisionError("a bug")
        waiting.set()
        await asyncio.Event().wait()
        return []

    waiting = asyncio.Event()
    stage = Stage(FakeHandler(work))
    stage.send(a_prompt("endless"), a_prompt("bad"))
    async with asyncio.timeout(SETTINGS.runtime.drain_timeout_s):
        with pytest.raises(ZeroDivisionError):
            await stage.run_until(lambda: False)


async def test_what_stopped_uncommitted_comes_again_to_the_next_member() -> None:
    async def work(record: Record) -> Sequence[Record]:
        raise ZeroDivisionError("a bug")

    stage = Stage(FakeHandler(work))
    stage.send(a_prompt())
    with suppress(ZeroDivisionError):
        await stage.run_until(lambda: False)
    [message] = stage.join().poll(1)
    assert decode(message, wheel=WHEEL) == a_prompt()


async def test_graceful_stop_finishes_what_is_in_work_and_commits_it() -> None:
    begun, gate = asyncio.Event(), asyncio.Event()

    async def work(record: Record) -> Sequence[Record]:
        begun.set()
        await gate.wait()
        return await as_trace(record)

    stage = Stage(FakeHandler(work, concurrency=1))
    stage.send(a_prompt("in work"), a_prompt("waiting"))
    running = asyncio.create_task(stage.loop.run())
    await begun.wait()
    stage.loop.stop()
    assert not stage.loop.is_ready
    await asyncio.sleep(0.05)
    gate.set()
    await running
    assert len(stage.published) == 1
    assert stage.committed == 1
    assert stage.consumer.was_closed


async def test_stop_gives_up_on_work_that_takes_too_long() -> None:
    begun = asyncio.Event()

    async def work(record: Record) -> Sequence[Record]:
        begun.set()
        await asyncio.Event().wait()
        return []

    runtime = SETTINGS.runtime.model_copy(update={"drain_timeout_s": 0.1})
    stage = Stage(FakeHandler(work), SETTINGS.model_copy(update={"runtime": runtime}))
    stage.send(a_prompt())
    running = asyncio.create_task(stage.loop.run())
    await begun.wait()
    stage.loop.stop()
    async with asyncio.timeout(5):
        await running
    assert stage.committed is None


async def test_stop_does_not_wait_for_a_record_that_only_waits_for_its_next_try() -> None:
    async def work(record: Record) -> Sequence[Record]:
        raise RetryLaterError("busy", retry_after_s=3_600)

    stage = Stage(FakeHandler(work), with_runtime(backoff_cap_s=3_600))
    stage.send(a_prompt())
    async with asyncio.timeout(SETTINGS.runtime.drain_timeout_s):
        await stage.run_until(
            lambda: stage.metric("deltawheel_retries_total", topic="prompts") == 1
        )
    assert stage.committed is None


async def test_loop_is_ready_once_it_has_its_share() -> None:
    stage = Stage(FakeHandler())
    assert not stage.loop.is_ready
    await stage.run_until(lambda: stage.loop.is_ready)
    assert not stage.loop.is_ready


async def test_member_whose_share_is_nothing_is_ready_too() -> None:
    stage = Stage(FakeHandler())
    stage.consumer.inner.close()
    other = stage.join()
    stage.consumer.inner = stage.join()
    other.poll(0)
    await stage.run_until(lambda: stage.loop.is_ready)
    assert other.assigned()
    assert stage.consumer.assigned() == frozenset()


async def test_member_that_has_fallen_out_of_its_group_is_not_ready() -> None:
    stage = Stage(FakeHandler())
    running = asyncio.create_task(stage.loop.run())
    await stage.until(lambda: stage.loop.is_ready)
    stage.consumer.has_fallen_out = True
    await stage.until(lambda: not stage.loop.is_ready)
    stage.loop.stop()
    await running


async def test_member_whose_polls_fail_is_ready_for_some_seconds_only() -> None:
    stage = Stage(FakeHandler())
    running = asyncio.create_task(stage.loop.run())
    await stage.until(lambda: stage.loop.is_ready)
    stage.consumer.num_failing_polls = 1_000_000
    await stage.until(lambda: stage.consumer.num_failing_polls < 999_999)
    assert stage.loop.is_ready
    stage.clock.ahead_s = 9
    assert stage.loop.is_ready
    stage.clock.ahead_s = 11
    assert not stage.loop.is_ready
    stage.consumer.num_failing_polls = 0
    await stage.until(lambda: stage.loop.is_ready)
    stage.loop.stop()
    await running


async def test_what_a_tick_returns_is_published_and_a_busy_tick_comes_again() -> None:
    ticks = 0

    async def run() -> Sequence[Record]:
        nonlocal ticks
        ticks += 1
        if ticks == 1:
            raise RetryLaterError("busy")
        return [a_trace()]

    stage = Stage(FakeHandler(ticks=[Tick(name="owed", interval_s=0.01, run=run)]))
    await stage.run_until(lambda: len(stage.published) >= 1)
    assert stage.published[0] == a_trace()


async def test_tick_is_told_only_of_what_was_really_published() -> None:
    async def run() -> Sequence[Record]:
        return [a_trace()]

    told: list[tuple[int, list[Record]]] = []
    tick = Tick(
        name="owed",
        interval_s=0.01,
        run=run,
        on_published=lambda events: told.append((stage.producer.num_failures, list(events))),
    )
    stage = Stage(FakeHandler(ticks=[tick]))
    stage.producer.num_failures = 2
    await stage.run_until(lambda: bool(told))
    assert told[0] == (0, [a_trace()])


async def test_tick_with_an_unknown_error_stops_the_loop() -> None:
    async def run() -> Sequence[Record]:
        raise ZeroDivisionError("a bug")

    stage = Stage(FakeHandler(ticks=[Tick(name="owed", interval_s=0.01, run=run)]))
    with pytest.raises(ZeroDivisionError):
        await stage.run_until(lambda: False)


async def test_result_of_a_partition_that_went_to_another_member_is_not_committed() -> None:
    gate, begun = asyncio.Event(), asyncio.Event()

    async def work(record: Record) -> Sequence[Record]:
        begun.set()
        await gate.wait()
        return []

    stage = Stage(FakeHandler(work))
    stage.consumer.inner.close()
    winner = stage.join()
    stage.consumer.inner = stage.join()
    winner.close()
    stage.send(a_prompt())
    running = asyncio.create_task(stage.loop.run())
    await begun.wait()
    others: list[MemoryConsumer] = []

    def make_way() -> None:
        """Leave, let another member take the only partition, and come back to none."""
        stage.consumer.before_poll = lambda: None
        stage.consumer.inner.close()
        others.append(stage.join())
        stage.consumer.inner = stage.join()

    stage.consumer.before_poll = make_way
    await stage.until(lambda: bool(others) and not stage.consumer.assigned())
    assert len(others[0].poll(1)) == 1
    gate.set()
    stage.loop.stop()
    await running
    assert stage.committed is None


def run_as_process(stage: Stage) -> ExitCode | int:
    return run_service(
        stage.handler,
        consumer=stage.consumer,
        producer=stage.producer,
        ledger=stage.letters,
        clock=SystemClock(),
        random=SystemRandom(0),
        telemetry=stage.telemetry,
        settings=stage.settings,
        announce=lambda is_ready: None,
    )


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_signal_stops_a_service_in_order_with_status_0(signum: signal.Signals) -> None:
    async def work(record: Record) -> Sequence[Record]:
        os.kill(os.getpid(), signum)
        return await as_trace(record)

    stage = Stage(FakeHandler(work))
    stage.send(a_prompt())
    assert run_as_process(stage) == ExitCode.DONE
    assert stage.deeds.done == [f"publish {TRACES}", "commit 1", "producer closed"]


def test_unknown_error_ends_a_service_with_status_1(caplog: pytest.LogCaptureFixture) -> None:
    async def work(record: Record) -> Sequence[Record]:
        raise ZeroDivisionError("a bug")

    stage = Stage(FakeHandler(work))
    stage.send(a_prompt())
    assert run_as_process(stage) == ExitCode.FAILURE
    assert "stops without committing: a bug" in caplog.text
    assert stage.committed is None


LARGE = a_trace(an_assignment(a_prompt("large")), answer="x" * 5_000)


async def test_record_whose_event_is_too_large_for_the_broker_is_buried_and_spoils_no_other() -> (
    None
):
    async def work(record: Record) -> Sequence[Record]:
        return [LARGE] if record == a_prompt("large") else await as_trace(record)

    stage = Stage(FakeHandler(work, end=a_slot_failure()))
    stage.producer.max_bytes = 4_000
    stage.send(a_prompt("large"), *(a_prompt(f"{number}+1=") for number in range(3)))
    await stage.run_until(lambda: stage.committed == 4)
    [(letter, end)] = stage.letters.stored
    assert "broker.max_message_bytes" in letter.reason
    assert end == a_slot_failure()
    assert len(stage.published) == 3


async def test_letter_that_is_too_large_for_the_broker_goes_without_its_value() -> None:
    stage = Stage(FakeHandler())
    stage.producer.max_bytes = 4_000
    stage.send_raw(b"x" * 5_000)
    await stage.run_until(lambda: stage.committed == 1)
    [message] = stage.bus.messages(Topic.DEAD_LETTERS.of(WHEEL))
    assert message.value is None


async def test_event_of_a_tick_that_is_too_large_holds_up_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    published: list[Record] = []

    async def run() -> Sequence[Record]:
        return [LARGE, a_trace()]

    tick = Tick(name="owed", interval_s=0.01, run=run, on_published=published.extend)
    stage = Stage(FakeHandler(ticks=[tick]))
    stage.producer.max_bytes = 4_000
    await stage.run_until(lambda: bool(published))
    assert stage.published[0] == a_trace()
    assert "(Trace) is not published: too large" in caplog.text
