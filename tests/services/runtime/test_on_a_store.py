"""The loop on a real store: what it keeps there is what it finds there again."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from deltawheel.contracts.errors import InvalidRecordError, RetryLaterError
from deltawheel.contracts.prompt import Prompt
from deltawheel.contracts.record import Record
from deltawheel.contracts.topics import Topic
from deltawheel.infra.clock import SystemRandom
from deltawheel.infra.store.store import SqlStore
from deltawheel.infra.telemetry import PrometheusTelemetry
from deltawheel.services.runtime.loop import Loop
from tests.records import T0, WHEEL, a_prompt, a_slot_failure, an_assignment
from tests.services.runtime.stage import SETTINGS, FakeHandler, ShiftedClock, Stage, as_trace

BAD = a_prompt("bad")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    store = SqlStore(f"sqlite:///{tmp_path / 'store.db'}", wheel=WHEEL)
    yield store
    store.close()


@asynccontextmanager
async def running(stage: Stage, store: SqlStore, clock: ShiftedClock) -> AsyncIterator[None]:
    """Run a loop of the stage's handler over the store."""
    loop = Loop(
        stage.handler,
        consumer=stage.consumer,
        producer=stage.producer,
        ledger=store,
        clock=clock,
        random=SystemRandom(0),
        telemetry=PrometheusTelemetry(),
        settings=SETTINGS,
    )
    task = asyncio.create_task(loop.run())
    try:
        yield
    finally:
        loop.stop()
        await task


async def feed_until(stage: Stage, is_reached: Callable[[], bool]) -> None:
    number = 100
    async with asyncio.timeout(20):
        while not is_reached():
            stage.send(a_prompt(f"{number}+1="))
            number += 1
            await asyncio.sleep(0.01)


async def test_deferred_record_is_done_after_a_restart(store: SqlStore) -> None:
    is_well = False

    async def work(record: Record) -> Sequence[Record]:
        if record == BAD and not is_well:
            raise RetryLaterError("left out a dimension")
        return await as_trace(record)

    store.add_prompts([BAD])
    stage, clock = Stage(FakeHandler(work)), ShiftedClock()
    stage.send(BAD)
    async with running(stage, store, clock):
        await feed_until(stage, lambda: bool(store.backlogs()))
    is_well = True
    again = Stage(FakeHandler(work), after=stage)
    clock.calendar_ahead = timedelta(minutes=5)
    async with running(again, store, clock):
        await again.until(lambda: not store.backlogs())
    done = [
        record for record in again.published if getattr(record, "prompt_id", "") == BAD.prompt_id
    ]
    assert len(done) == 1


async def test_deferred_record_past_its_deadline_leaves_letter_and_slot_end(
    store: SqlStore,
) -> None:
    async def work(record: Record) -> Sequence[Record]:
        if record == BAD:
            raise RetryLaterError("left out a dimension")
        return await as_trace(record)

    store.add_prompts([BAD])
    end = a_slot_failure(an_assignment(BAD))
    stage, clock = Stage(FakeHandler(work, end=end)), ShiftedClock()
    stage.send(BAD)
    async with running(stage, store, clock):
        await feed_until(stage, lambda: bool(store.backlogs()))
        clock.calendar_ahead = timedelta(days=2)
        await stage.until(lambda: not store.backlogs())
        await stage.until(lambda: bool(stage.bus.messages(Topic.JUDGEMENTS.of(WHEEL))))
    [letter] = store.dead_letters(10)
    assert letter.prompt_key == BAD.key
    group = store.group(BAD.key)
    assert group is not None
    assert list(group.slot_failures) == [end]


async def test_halted_partition_waits_for_resume_through_a_restart(store: SqlStore) -> None:
    is_bad = True

    async def work(record: Record) -> Sequence[Record]:
        if is_bad:
            raise InvalidRecordError("a field is missing")
        return await as_trace(record)

    prompts: list[Prompt] = [a_prompt(f"{number}+1=") for number in range(10)]
    store.add_prompts(prompts)
    stage, clock = Stage(FakeHandler(work)), ShiftedClock()
    stage.send(*prompts)
    async with running(stage, store, clock):
        await stage.until(lambda: bool(store.halts()))
    again = Stage(FakeHandler(work), after=stage)
    is_bad = False
    async with running(again, store, clock):
        await asyncio.sleep(0.1)
        assert again.published == []
        assert len(store.resume_halts(store.halts("generation"), by="me", at=T0)) == 1
        await again.until(lambda: again.committed == 10)
    # Those at work beside each other may be refused in any order until some stand in a row.
    assert SETTINGS.runtime.halt_after_refusals - 1 <= len(store.dead_letters(100)) < 10


async def test_letters_that_were_sent_are_noted(store: SqlStore) -> None:
    stage, clock = Stage(FakeHandler()), ShiftedClock()
    for number in range(5):
        stage.send_raw(b"garbage %d" % number)
    async with running(stage, store, clock):
        await stage.until(lambda: stage.committed == 5)
    later = clock.now() + timedelta(hours=1)
    assert store.unsent_letters("generation", before=later, limit=10) == []
    assert len(stage.bus.messages(Topic.DEAD_LETTERS.of(WHEEL))) == 5
