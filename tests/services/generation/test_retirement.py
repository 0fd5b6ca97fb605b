"""Retirement: adapters are unloaded when nothing open needs them, and not before."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from deltawheel.contracts.errors import InvalidRecordError, RetryLaterError
from deltawheel.contracts.generator import Generator, PoolEventKind
from deltawheel.contracts.outcome import Outcome
from deltawheel.contracts.store import GroupEnd
from deltawheel.infra.store.store import SqlStore
from deltawheel.services.generation.retirement import Retirement, retired_adapters
from tests.records import (
    WHEEL,
    a_closing,
    a_generator,
    a_pool_event,
    a_prompt,
    an_assignment,
)
from tests.services.fakes import FakeClock, FakeModels

STRONG = a_generator("strong", adapter_path="/adapters/strong")
WEAK = a_generator("weak", adapter_path="/adapters/weak")
BASE = a_generator("base")


class Stage:
    """A pool whose weak member was retired a minute ago."""

    def __init__(self, store: SqlStore) -> None:
        self.store = store
        self.clock = FakeClock()
        self.models = FakeModels()
        self.retirement = Retirement(store=store, models=self.models, clock=self.clock)
        for member in (STRONG, WEAK, BASE):
            self.note(PoolEventKind.DECLARED, member)
        self.note(PoolEventKind.RETIRED, WEAK)
        self.clock.move(60)

    def note(self, kind: PoolEventKind, member: Generator) -> None:
        event = a_pool_event(member, kind=kind, cause=f"cause {len(self.log)}", at=self.clock.now())
        self.store.add_pool_events([event])

    @property
    def log(self) -> list[object]:
        return list(self.store.pool_log())

    async def look(self) -> list[str]:
        """Return who has been unloaded so far."""
        await self.retirement.look(self.store.pool_log())
        return [generator.reference for generator in self.models.unloaded]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with closing(SqlStore(f"sqlite:///{tmp_path / 'store.db'}", wheel=WHEEL)) as store:
        yield Stage(store)


async def test_adapter_that_nothing_needs_is_unloaded_once(stage: Stage) -> None:
    assert await stage.look() == ["weak@r1"]
    assert await stage.look() == ["weak@r1"]


async def test_adapter_that_an_open_prompt_was_dealt_to_stays_until_that_is_closed(
    stage: Stage,
) -> None:
    [prompt] = stage.store.add_prompts([a_prompt()])
    stage.store.add_assignments([an_assignment(prompt, generators=(STRONG, WEAK))])
    assert await stage.look() == []
    end = GroupEnd(closing=a_closing(prompt, outcome=Outcome.UNPAIRED))
    stage.store.close_groups([end])
    assert await stage.look() == ["weak@r1"]


async def test_open_prompt_of_another_revision_keeps_nobody(stage: Stage) -> None:
    [prompt] = stage.store.add_prompts([a_prompt()])
    newer = a_generator("weak", revision="r10", adapter_path="/adapters/weak")
    stage.store.add_assignments([an_assignment(prompt, generators=(STRONG, newer))])
    assert await stage.look() == ["weak@r1"]


async def test_retirement_that_others_may_not_have_seen_yet_waits(stage: Stage) -> None:
    stage.note(PoolEventKind.RETIRED, STRONG)
    assert await stage.look() == ["weak@r1"]
    stage.clock.move(31)
    assert sorted(await stage.look()) == ["strong@r1", "weak@r1"]


async def test_server_that_is_away_is_told_later(stage: Stage) -> None:
    def refuse(_: Generator) -> None:
        raise RetryLaterError("503")

    stage.models.loading = refuse
    assert await stage.look() == []
    stage.models.loading = lambda _: None
    assert await stage.look() == ["weak@r1"]


async def test_server_that_refuses_is_told_once_and_keeps_nobody_else(stage: Stage) -> None:
    asked: list[str] = []

    def refuse(generator: Generator) -> None:
        asked.append(generator.name)
        if generator.name == "weak":
            raise InvalidRecordError("it was on server 'gone'")

    stage.models.loading = refuse
    stage.note(PoolEventKind.RETIRED, STRONG)
    stage.clock.move(60)
    assert await stage.look() == ["strong@r1"]
    await stage.look()
    assert sorted(asked) == ["strong", "weak"]


async def test_member_that_came_back_keeps_its_adapter(stage: Stage) -> None:
    stage.note(PoolEventKind.ADDED, WEAK)
    assert await stage.look() == []


async def test_adapter_that_another_member_is_served_as_stays(stage: Stage) -> None:
    stage.note(PoolEventKind.ADDED, WEAK.model_copy(update={"name": "alias"}))
    assert await stage.look() == []


@pytest.mark.parametrize("kind", [PoolEventKind.DECLARED, PoolEventKind.ADDED])
async def test_adapter_that_another_revision_has_replaced_is_unloaded_when_nothing_needs_it(
    stage: Stage, kind: PoolEventKind
) -> None:
    assert await stage.look() == ["weak@r1"]
    newer = a_generator("strong", revision="r2", adapter_path="/adapters/strong-2")
    [prompt] = stage.store.add_prompts([a_prompt()])
    stage.store.add_assignments([an_assignment(prompt, generators=(STRONG, BASE))])
    stage.note(kind, newer)
    stage.clock.move(60)
    assert await stage.look() == ["weak@r1"]
    stage.store.close_groups([GroupEnd(closing=a_closing(prompt, outcome=Outcome.UNPAIRED))])
    assert await stage.look() == ["weak@r1", "strong@r1"]


async def test_replaced_revision_that_came_back_keeps_its_adapter(stage: Stage) -> None:
    newer = a_generator("strong", revision="r2", adapter_path="/adapters/strong-2")
    stage.note(PoolEventKind.ADDED, newer)
    stage.note(PoolEventKind.ADDED, STRONG)
    stage.clock.move(60)
    assert await stage.look() == ["weak@r1", "strong@r2"]


async def test_adapter_replaced_by_what_the_same_model_name_serves_stays(stage: Stage) -> None:
    newer = STRONG.model_copy(update={"revision": "r2"})
    stage.note(PoolEventKind.ADDED, newer)
    stage.clock.move(60)
    assert await stage.look() == ["weak@r1"]


@pytest.mark.parametrize(
    "last",
    [
        {"kind": PoolEventKind.DRAINED, "generator": WEAK},
        {"kind": PoolEventKind.RETIRED, "generator": BASE},
    ],
    ids=["drained", "no adapter"],
)
def test_only_adapters_that_are_retired_are_unloaded(last: Mapping[str, object]) -> None:
    log = [a_pool_event(member) for member in (STRONG, WEAK, BASE)]
    log.append(a_pool_event(cause="operator 1", **last))  # type: ignore[arg-type]
    assert retired_adapters(log) == []
