"""The loop when something is in the way: outages, records that keep failing, bad deployments."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from datetime import timedelta

import pytest

from deltawheel.contracts.errors import BROKER, STORE, InvalidRecordError, RetryLaterError
from deltawheel.contracts.ports import TopicPartition
from deltawheel.contracts.prompt import Prompt
from deltawheel.contracts.record import Record
from deltawheel.contracts.topics import Topic
from tests.records import WHEEL, a_prompt, a_slot_failure
from tests.services.runtime.stage import (
    PROMPTS,
    SETTINGS,
    FakeHandler,
    Stage,
    as_trace,
    with_runtime,
)

SERVER_A, SERVER_B = "server:a", "server:b"


def prompts(count: int, *, start: int = 0) -> list[Prompt]:
    return [a_prompt(f"{number}+1=") for number in range(start, start + count)]


class Servers:
    """Two model servers behind breakers; records with an even number need the first of them."""

    def __init__(self) -> None:
        self.down: set[str] = set()
        self.asked: list[str] = []
        self.stage: Stage

    async def work(self, record: Record) -> Sequence[Record]:
        assert isinstance(record, Prompt)
        number = int(record.messages[0].content.split("+")[0])
        server = SERVER_A if number % 2 == 0 else SERVER_B
        dependencies = self.stage.dependencies
        dependencies.breakers.pool |= {SERVER_A, SERVER_B}
        if not dependencies.admits(server):
            raise RetryLaterError("down", dependency=server)
        self.asked.append(server)
        if server in self.down:
            error = RetryLaterError("no answer", dependency=server)
            dependencies.failed(server, error)
            raise error
        dependencies.succeeded(server)
        return await as_trace(record)


STARTED: list[tuple[Stage, "asyncio.Task[None]"]] = []


@pytest.fixture(autouse=True)
async def _nothing_is_left_running() -> AsyncIterator[None]:
    """Stop, after a test that failed, what it has started: a thread that polls holds up the end."""
    yield
    while STARTED:
        stage, task = STARTED.pop()
        stage.loop.stop()
        await asyncio.gather(task, return_exceptions=True)


async def running(stage: Stage) -> "asyncio.Task[None]":
    STARTED.append((stage, asyncio.create_task(stage.loop.run())))
    return STARTED[-1][1]


async def stopped(stage: Stage, task: "asyncio.Task[None]") -> None:
    stage.loop.stop()
    await task


@pytest.mark.parametrize("dependency", [STORE, BROKER])
async def test_in_an_outage_partitions_pause_and_nothing_is_deferred_or_dead(
    dependency: str,
) -> None:
    is_down = True

    async def work(record: Record) -> Sequence[Record]:
        if is_down:
            raise RetryLaterError("away", dependency=dependency)
        return await as_trace(record)

    stage = Stage(FakeHandler(work))
    stage.send(*prompts(6))
    task = await running(stage)
    await stage.until(lambda: bool(stage.metric("deltawheel_retries_total", topic="prompts")))
    stage.letters.is_down = dependency == STORE
    await stage.until(lambda: stage.dependencies.is_down(dependency))
    await stage.until(lambda: stage.metric("deltawheel_paused_partitions") == 1)
    retries = stage.metric("deltawheel_retries_total", topic="prompts") or 0
    assert stage.metric("deltawheel_breaker_open", dependency=dependency) == 1
    await stage.until(
        lambda: (stage.metric("deltawheel_retries_total", topic="prompts") or 0) > retries
    )
    assert (stage.letters.deferrals, stage.letters.stored, stage.committed) == ({}, [], None)
    is_down = stage.letters.is_down = False
    await stage.until(lambda: stage.committed == 6)
    await stage.until(lambda: stage.metric("deltawheel_paused_partitions") == 0)
    assert stage.metric("deltawheel_breaker_open", dependency=dependency) == 0
    await stopped(stage, task)
    assert {name for name, _ in stage.letters.spans} == {dependency}


async def test_while_everything_waits_one_record_at_a_time_finds_out_whether_that_is_over() -> None:
    num_probes = num_at_once = most_at_once = 0

    async def work(record: Record) -> Sequence[Record]:
        nonlocal num_probes, num_at_once, most_at_once
        if is_probe := stage.dependencies.is_down(BROKER):
            num_probes += 1
            num_at_once += 1
            most_at_once = max(most_at_once, num_at_once)
        await asyncio.sleep(0.002)
        num_at_once -= is_probe
        raise RetryLaterError("away", dependency=BROKER)

    stage = Stage(FakeHandler(work))
    stage.send(*prompts(8))
    task = await running(stage)
    await stage.until(lambda: num_probes >= 5)
    assert most_at_once == 1
    await stopped(stage, task)


async def test_outage_of_the_store_itself_is_written_once_it_is_back() -> None:
    stage = Stage(FakeHandler())
    stage.letters.is_down = True
    task = await running(stage)
    await stage.until(lambda: stage.dependencies.is_down(STORE))
    assert stage.letters.spans == {}
    stage.letters.is_down = False
    await stage.until(lambda: bool(stage.letters.spans) and not stage.dependencies.is_down(STORE))
    await stopped(stage, task)
    [outage] = stage.letters.spans.values()
    assert outage.dependency == STORE
    assert outage.ended_at > outage.began_at


async def test_outage_that_lasts_is_prolonged_again_and_again() -> None:
    async def work(record: Record) -> Sequence[Record]:
        raise RetryLaterError("away", dependency=BROKER)

    stage = Stage(FakeHandler(work))
    stage.send(*prompts(3))
    task = await running(stage)
    await stage.until(lambda: len(stage.letters.spans) == 1)
    [first] = stage.letters.spans.values()
    await stage.until(lambda: next(iter(stage.letters.spans.values())).ended_at > first.ended_at)
    await stopped(stage, task)
    assert len(stage.letters.spans) == 1


async def test_partition_that_comes_in_an_outage_is_paused_too() -> None:
    async def work(record: Record) -> Sequence[Record]:
        raise RetryLaterError("away", dependency=STORE)

    stage = Stage(FakeHandler(work), partitions=2)
    other = stage.join()
    stage.send(*prompts(20))
    task = await running(stage)
    await stage.until(lambda: len(stage.consumer.assigned()) == 1)
    other.poll(0)
    await stage.until(lambda: stage.dependencies.is_down(STORE))
    other.close()
    await stage.until(lambda: len(stage.consumer.assigned()) == 2)
    await stage.until(lambda: stage.consumer.inner._paused == stage.consumer.assigned())
    assert stage.metric("deltawheel_paused_partitions") == 2
    await stopped(stage, task)


async def test_pause_survives_a_rebalance_that_gives_out_the_same_anew() -> None:
    gate = asyncio.Event()

    async def work(record: Record) -> Sequence[Record]:
        await gate.wait()
        return []

    stage = Stage(FakeHandler(work))
    stage.send(*prompts(8))
    task = await running(stage)
    await stage.until(lambda: bool(stage.consumer.inner._paused))

    def forget_pauses() -> None:
        stage.consumer.before_poll = lambda: None
        stage.consumer.inner.resume(stage.consumer.assigned())

    stage.consumer.before_poll = forget_pauses
    await stage.until(lambda: stage.consumer.before_poll is not forget_pauses)
    await stage.until(lambda: bool(stage.consumer.inner._paused))
    gate.set()
    await stage.until(lambda: stage.committed == 8)
    await stopped(stage, task)


async def test_broker_that_is_back_is_noticed_though_nothing_is_to_be_published() -> None:
    stage = Stage(FakeHandler())
    task = await running(stage)
    await stage.until(lambda: stage.loop.is_ready)
    stage.bus.is_down = True
    await stage.until(lambda: stage.dependencies.is_down(BROKER))
    stage.bus.is_down = False
    await stage.until(lambda: not stage.dependencies.is_down(BROKER))
    await stopped(stage, task)


async def heard_of_broker(stage: Stage, *, times: int) -> None:
    breaker = stage.dependencies.breakers.of(BROKER)
    await stage.until(lambda: stage.committed == times and breaker.num_successes >= times)


async def test_commits_tell_that_the_broker_answers_where_nothing_is_published() -> None:
    async def work(record: Record) -> Sequence[Record]:
        return []

    stage = Stage(FakeHandler(work))
    task = await running(stage)
    for number in range(2 * SETTINGS.runtime.breaker_failures):
        stage.dependencies.failed(BROKER, RetryLaterError("the group rebalances"))
        stage.send(a_prompt(f"{number}+1="))
        await heard_of_broker(stage, times=number + 1)
    assert not stage.dependencies.is_down(BROKER)
    assert stage.letters.spans == {}
    await stopped(stage, task)


async def test_one_server_down_defers_its_records_and_the_others_flow() -> None:
    servers = Servers()
    servers.stage = stage = Stage(FakeHandler(servers.work))
    servers.down = {SERVER_A}
    stage.send(*prompts(40))
    task = await running(stage)
    await stage.until(lambda: stage.committed == 40)
    await stage.until(lambda: len(stage.published) == 20)
    assert len(stage.letters.deferrals) == 20
    assert {each.dependency for each in stage.letters.deferrals.values()} == {SERVER_A}
    assert stage.letters.stored == []
    asked = servers.asked.count(SERVER_A)
    servers.down = set()
    await stage.until(lambda: not stage.letters.deferrals)
    assert len(stage.published) == 40
    assert servers.asked.count(SERVER_A) > asked
    assert stage.metric("deltawheel_deferred_retries_total", result="done") == 20
    await stopped(stage, task)


async def test_all_servers_down_pause_everything_and_defer_nothing_more() -> None:
    servers = Servers()
    servers.stage = stage = Stage(FakeHandler(servers.work))
    servers.down = {SERVER_A, SERVER_B}
    stage.send(*prompts(4))
    task = await running(stage)
    await stage.until(lambda: stage.dependencies.breakers.open() == {SERVER_A, SERVER_B})
    await stage.until(lambda: stage.metric("deltawheel_paused_partitions") == 1)
    stage.send(*prompts(40, start=4))
    num_deferred = len(stage.letters.deferrals)
    await asyncio.sleep(0.1)
    assert len(stage.letters.deferrals) == num_deferred
    servers.down = set()
    await stage.until(lambda: stage.committed == 44 and not stage.letters.deferrals)
    assert len(stage.published) == 44
    await stopped(stage, task)


async def test_while_one_server_is_down_records_of_one_that_was_idle_are_fetched() -> None:
    servers = Servers()
    servers.stage = stage = Stage(FakeHandler(servers.work))
    servers.down = {SERVER_B}
    stage.send(*(prompt for prompt in prompts(40)[1::2]))
    task = await running(stage)
    await stage.until(lambda: stage.dependencies.is_down(SERVER_B))
    stage.send(*prompts(10)[::2])
    await stage.until(lambda: len(stage.published) == 5)
    await stopped(stage, task)


async def test_only_server_that_asks_everybody_for_an_hour_is_asked_again_before_that() -> None:
    is_busy = True

    async def work(record: Record) -> Sequence[Record]:
        stage.dependencies.breakers.pool.add(SERVER_A)
        if not stage.dependencies.admits(SERVER_A):
            raise RetryLaterError("down", dependency=SERVER_A)
        if is_busy:
            busy = RetryLaterError("429", retry_after_s=3_600, dependency=SERVER_A)
            stage.dependencies.failed(SERVER_A, busy)
            raise busy
        stage.dependencies.succeeded(SERVER_A)
        return await as_trace(record)

    stage = Stage(FakeHandler(work))
    stage.send(*prompts(8))
    task = await running(stage)
    await stage.until(lambda: stage.dependencies.is_down(SERVER_A))
    is_busy = False
    await stage.until(lambda: stage.committed == 8)
    await stopped(stage, task)


async def test_record_that_rests_hears_of_an_outage_that_has_come_and_gone_meanwhile() -> None:
    dependencies = Stage(FakeHandler()).dependencies
    resting = asyncio.create_task(dependencies.rest(3_600))
    await asyncio.sleep(0)
    for _ in range(SETTINGS.runtime.breaker_failures):
        dependencies.failed(STORE, RetryLaterError("away"))
    dependencies.succeeded(STORE)
    async with asyncio.timeout(2):
        await resting


def failing_for(poisonous: Prompt, *, until: Callable[[], bool] = lambda: False) -> FakeHandler:
    async def work(record: Record) -> Sequence[Record]:
        if record == poisonous and not until():
            raise RetryLaterError("left out a dimension")
        return await as_trace(record)

    return FakeHandler(work)


async def feed_until(stage: Stage, is_reached: Callable[[], bool]) -> None:
    """Send good records, one after the other, as long as that takes."""
    number = 100
    async with asyncio.timeout(20):
        while not is_reached():
            stage.send(a_prompt(f"{number}+1="))
            number += 1
            await asyncio.sleep(0.01)


async def test_record_that_fails_while_others_succeed_is_deferred_and_its_offset_moves_on() -> None:
    is_well = False
    stage = Stage(failing_for(a_prompt("bad"), until=lambda: is_well))
    stage.send(a_prompt("bad"))
    task = await running(stage)
    await feed_until(stage, lambda: bool(stage.letters.deferrals))
    [deferral] = stage.letters.deferrals.values()
    assert deferral.prompt_key == a_prompt("bad").key
    assert deferral.reason == "left out a dimension"
    assert deferral.tries >= SETTINGS.runtime.defer_after_tries
    await stage.until(lambda: (stage.committed or 0) >= 1)
    assert stage.metric("deltawheel_records_total", topic="prompts", result="deferred") == 1
    is_well = True
    await stage.until(lambda: not stage.letters.deferrals)
    assert any(record.key == a_prompt("bad").key for record in stage.published)  # type: ignore[attr-defined]
    await stopped(stage, task)


async def test_record_that_fails_alone_is_never_deferred() -> None:
    stage = Stage(failing_for(a_prompt("bad")))
    stage.send(a_prompt("bad"))
    task = await running(stage)
    await stage.until(lambda: (stage.metric("deltawheel_retries_total", topic="prompts") or 0) > 12)
    assert stage.letters.deferrals == {}
    await stopped(stage, task)


async def test_record_that_fails_for_ever_opens_no_breaker_while_others_succeed() -> None:
    async def work(record: Record) -> Sequence[Record]:
        if record == a_prompt("bad"):
            raise RetryLaterError("too large", dependency=BROKER)
        return await as_trace(record)

    settings = with_runtime(defer_after_tries=10, breaker_failures=30)
    stage = Stage(FakeHandler(work), settings)
    stage.send(a_prompt("bad"))
    task = await running(stage)
    await feed_until(stage, lambda: bool(stage.letters.deferrals))
    assert stage.letters.spans == {}
    await stopped(stage, task)


async def test_deferred_record_past_its_deadline_is_a_dead_letter_with_its_slot_end() -> None:
    handler = failing_for(a_prompt("bad"))
    handler.end = a_slot_failure()
    stage = Stage(handler, with_runtime(defer_deadline_s=3_600))
    stage.send(a_prompt("bad"))
    task = await running(stage)
    await feed_until(stage, lambda: bool(stage.letters.deferrals))
    stage.letters.interrupted = timedelta(hours=5)
    stage.clock.calendar_ahead = timedelta(hours=2)
    put_off = stage.metric("deltawheel_deferred_retries_total", result="put_off") or 0
    await stage.until(
        lambda: (
            (stage.metric("deltawheel_deferred_retries_total", result="put_off") or 0) > put_off + 2
        )
    )
    assert stage.letters.stored == [], "an outage ran against the deadline"
    stage.letters.interrupted = timedelta(0)
    await stage.until(lambda: not stage.letters.deferrals)
    [(letter, end)] = stage.letters.stored
    assert end == a_slot_failure()
    assert letter.error == "RetryLaterError"
    assert "1 h (runtime.defer_deadline_s): left out a dimension" in letter.reason
    assert letter.prompt_key == a_prompt("bad").key
    await stage.until(lambda: len(stage.bus.messages(Topic.DEAD_LETTERS.of(WHEEL))) == 1)
    await stopped(stage, task)


async def test_deferred_record_that_proves_invalid_is_a_dead_letter() -> None:
    is_invalid = False

    async def work(record: Record) -> Sequence[Record]:
        if record == a_prompt("bad"):
            raise InvalidRecordError("wrong") if is_invalid else RetryLaterError("busy")
        return await as_trace(record)

    stage = Stage(FakeHandler(work))
    stage.send(a_prompt("bad"))
    task = await running(stage)
    await feed_until(stage, lambda: bool(stage.letters.deferrals))
    is_invalid = True
    await stage.until(lambda: not stage.letters.deferrals)
    assert [letter.reason for letter, _ in stage.letters.stored] == ["wrong"]
    await stopped(stage, task)


async def test_crash_before_the_offset_leaves_the_row_and_nothing_twice() -> None:
    stage = Stage(failing_for(a_prompt("bad")))
    stage.send(a_prompt("bad"))
    task = await running(stage)
    await feed_until(stage, lambda: bool(stage.letters.deferrals))
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    stage.loop.stop()
    stage.consumer.inner.close()
    stage.bus._groups["generation"].committed.clear()
    again = Stage(failing_for(a_prompt("bad")), after=stage)
    task = await running(again)
    await feed_until(again, lambda: (again.committed or 0) >= 1)
    assert len(again.letters.deferrals) == 1
    await stopped(again, task)


async def test_deferred_records_are_tried_in_pages_that_leave_room_for_others() -> None:
    at_once = most = 0

    async def work(record: Record) -> Sequence[Record]:
        nonlocal at_once, most
        if not is_back:
            raise RetryLaterError("down", dependency=SERVER_A)
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.002)
        at_once -= 1
        return await as_trace(record)

    is_back = False
    stage = Stage(FakeHandler(work, concurrency=4))
    stage.dependencies.breakers.pool |= {SERVER_A, SERVER_B}
    stage.dependencies.succeeded(SERVER_B)
    for _ in range(3):
        stage.dependencies.failed(SERVER_A, RetryLaterError("no"))
    stage.send(*prompts(30))
    task = await running(stage)
    await stage.until(lambda: len(stage.letters.deferrals) == 30)
    is_back = True
    stage.dependencies.succeeded(SERVER_A)
    await stage.until(lambda: not stage.letters.deferrals)
    assert most <= 2
    await stopped(stage, task)


def refusing(bad: Callable[[Record], bool]) -> FakeHandler:
    async def work(record: Record) -> Sequence[Record]:
        if bad(record):
            raise InvalidRecordError("a field is missing")
        return await as_trace(record)

    return FakeHandler(work)


async def test_too_many_invalid_records_that_the_store_knows_halt_their_partition(
    caplog: pytest.LogCaptureFixture,
) -> None:
    is_bad = True
    stage = Stage(refusing(lambda record: is_bad))
    stage.letters.knows = lambda record: True
    stage.send(*prompts(10))
    task = await running(stage)
    await stage.until(lambda: bool(stage.letters.open_halts))
    [halt] = stage.letters.open_halts
    assert (halt.service, halt.topic, halt.partition) == ("generation", PROMPTS, 0)
    assert "3 records in a row" in halt.reason
    assert "a field is missing" in halt.reason
    await stage.until(lambda: stage.metric("deltawheel_halted_partitions") == 1)
    await stage.until(lambda: stage.committed == 2)
    assert len(stage.letters.stored) == 2, "the third was refused as well"
    assert [r.levelno for r in caplog.records if "deltawheel resume" in r.message] == [
        logging.CRITICAL
    ]
    await asyncio.sleep(0.1)
    assert stage.committed == 2
    assert stage.metric("deltawheel_in_flight_records") == 0
    is_bad = False
    stage.letters.resume_halts([], by="me", at=halt.halted_at)
    await stage.until(lambda: stage.committed == 10)
    assert len(stage.published) == 8
    assert len(stage.letters.stored) == 2
    await stopped(stage, task)


async def test_records_of_a_halted_partition_that_goes_to_another_member_wait_no_longer() -> None:
    stage = Stage(refusing(lambda record: True))
    stage.letters.knows = lambda record: True
    stage.send(*prompts(10))
    task = await running(stage)
    await stage.until(lambda: stage.metric("deltawheel_halted_partitions") == 1)
    assert stage.loop._tasks
    stage.consumer.before_poll = lambda: leave_to_another(stage)
    await stage.until(lambda: not stage.loop._tasks)
    assert stage.consumer.assigned() == frozenset()
    await stopped(stage, task)


def leave_to_another(stage: Stage) -> None:
    """Have another member come before this one, which is left with nothing."""
    stage.consumer.before_poll = lambda: None
    stage.consumer.inner.close()
    stage.join()
    stage.consumer.inner = stage.join()


async def test_records_of_a_partition_that_has_gone_before_halts_were_known_wait_no_longer() -> (
    None
):
    stage = Stage(FakeHandler())
    stage.letters.is_down = True
    stage.send(*prompts(3))
    task = await running(stage)
    await stage.until(lambda: len(stage.loop._tasks) == 3)
    stage.consumer.before_poll = lambda: leave_to_another(stage)
    await stage.until(lambda: stage.loop._work.flow.unchecked() == {})
    assert stage.loop._tasks
    stage.letters.is_down = False
    await stage.until(lambda: not stage.loop._tasks)
    assert stage.published == []
    await stopped(stage, task)


async def test_halt_outlives_the_process_that_met_it() -> None:
    stage = Stage(refusing(lambda record: True))
    stage.letters.knows = lambda record: True
    stage.send(*prompts(10))
    await stage.run_until(lambda: bool(stage.letters.open_halts))
    again = Stage(FakeHandler(), after=stage)
    task = await running(again)
    await again.until(lambda: again.metric("deltawheel_halted_partitions") == 1)
    await asyncio.sleep(0.05)
    assert again.published == []
    again.letters.resume_halts([], by="me", at=again.clock.now())
    await again.until(lambda: again.committed == 10)
    await stopped(again, task)


async def test_nothing_of_a_new_partition_is_worked_on_before_halts_are_known() -> None:
    stage = Stage(FakeHandler())
    stage.letters.is_down = True
    stage.send(*prompts(3))
    task = await running(stage)
    await stage.until(lambda: stage.metric("deltawheel_in_flight_records") == 3)
    await asyncio.sleep(0.05)
    assert stage.published == []
    stage.letters.is_down = False
    await stage.until(lambda: stage.committed == 3)
    await stopped(stage, task)


async def test_other_partitions_flow_while_one_is_halted() -> None:
    bad = {prompt.prompt_id for prompt in prompts(200)}
    stage = Stage(
        refusing(lambda record: isinstance(record, Prompt) and record.prompt_id in bad),
        partitions=2,
    )
    halted = TopicPartition(PROMPTS, 0)
    stage.send(*prompts(200))
    of_first = {m.key for m in stage.bus.messages(PROMPTS) if m.partition == 0}
    bad = {key.decode() for key in of_first if key}
    stage.letters.knows = lambda record: True
    task = await running(stage)
    others = 200 - len(of_first)
    await stage.until(lambda: len(stage.published) == others)
    committed = stage.bus.committed("generation")
    assert committed.get(halted, 0) <= 2
    assert [halt.partition for halt in stage.letters.open_halts] == [0]
    await stopped(stage, task)


async def test_invalid_records_of_which_the_store_knows_nothing_never_halt() -> None:
    stage = Stage(refusing(lambda record: True))
    stage.send(*prompts(30))
    stage.send_raw(b"\xff garbage")
    await stage.run_until(lambda: stage.committed == 31)
    assert stage.letters.open_halts == []
    assert len(stage.letters.stored) == 31


async def test_good_records_in_between_mean_that_the_deployment_works() -> None:
    async def work(record: Record) -> Sequence[Record]:
        assert isinstance(record, Prompt)
        number = int(record.messages[0].content.split("+")[0])
        if number % 3:
            raise InvalidRecordError("a field is missing")
        return []

    stage = Stage(FakeHandler(work, concurrency=1))
    stage.letters.knows = lambda record: True
    stage.send(*prompts(40))
    await stage.run_until(lambda: stage.committed == 40)
    assert stage.letters.open_halts == []


async def test_letter_whose_message_a_crash_has_cost_is_sent_again() -> None:
    stage = Stage(FakeHandler())
    stage.producer.num_failures = 1_000_000
    stage.send_raw(b"garbage")
    task = await running(stage)
    await stage.until(lambda: bool(stage.letters.unsent))
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    stage.loop.stop()
    stage.consumer.inner.close()
    stage.bus._groups["generation"].committed[TopicPartition(PROMPTS, 0)] = 1
    again = Stage(FakeHandler(), after=stage)
    again.clock.calendar_ahead = timedelta(minutes=1)
    task = await running(again)
    await again.until(lambda: not again.letters.unsent)
    [message] = again.bus.messages(Topic.DEAD_LETTERS.of(WHEEL))
    assert message.value == b"garbage"
    await stopped(again, task)


async def test_letter_that_was_sent_is_noted_and_not_sent_again() -> None:
    stage = Stage(FakeHandler())
    stage.send_raw(b"garbage")
    task = await running(stage)
    await stage.until(lambda: stage.committed == 1 and not stage.letters.unsent)
    stage.clock.calendar_ahead = timedelta(minutes=1)
    calls = stage.letters.num_calls
    await stage.until(lambda: stage.letters.num_calls > calls + 10)
    assert len(stage.bus.messages(Topic.DEAD_LETTERS.of(WHEEL))) == 1
    await stopped(stage, task)


async def test_stop_in_an_outage_waits_for_nobody() -> None:
    async def work(record: Record) -> Sequence[Record]:
        raise RetryLaterError("away", dependency=STORE)

    stage = Stage(FakeHandler(work), with_runtime(breaker_base_s=1_000, breaker_cap_s=1_000))
    stage.send(*prompts(4))
    task = await running(stage)
    await stage.until(lambda: stage.dependencies.is_down(STORE))
    async with asyncio.timeout(2):
        await stopped(stage, task)
    assert stage.committed is None


async def test_record_that_fails_while_the_loop_stops_is_not_waited_for() -> None:
    begun, gate = asyncio.Event(), asyncio.Event()

    async def work(record: Record) -> Sequence[Record]:
        begun.set()
        await gate.wait()
        raise RetryLaterError("busy", retry_after_s=60)

    stage = Stage(FakeHandler(work), with_runtime(backoff_cap_s=60))
    stage.send(a_prompt())
    task = await running(stage)
    await begun.wait()
    stage.loop.stop()
    gate.set()
    async with asyncio.timeout(2):
        await task


async def test_no_store_read_is_added_to_a_record_that_is_done() -> None:
    stage = Stage(FakeHandler(), with_runtime(upkeep_interval_s=3_600))
    task = await running(stage)
    await stage.until(lambda: stage.loop.is_ready)
    stage.send(a_prompt("first"))
    await stage.until(lambda: stage.committed == 1)
    calls = stage.letters.num_calls
    stage.send(*prompts(100))
    await stage.until(lambda: stage.committed == 101)
    assert stage.letters.num_calls == calls
    await stopped(stage, task)
