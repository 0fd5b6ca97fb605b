"""Membership: who cannot write leaves the pool, and returns by itself."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest

from deltawheel.contracts.errors import ForeignModelError, InvalidRecordError, RetryLaterError
from deltawheel.contracts.generator import Generator, PoolEvent, PoolEventKind
from deltawheel.contracts.pool import Pool
from deltawheel.contracts.settings import GenerationSettings
from deltawheel.contracts.store import PAUSE_LEASE, Store
from deltawheel.infra.clock import SystemRandom
from deltawheel.infra.store.store import SqlStore
from deltawheel.services.generation.membership import LEASE, Membership
from tests.records import WHEEL, a_generator, a_pool_event, a_prompt, a_trace, an_assignment
from tests.services.fakes import FakeClock

STRONG, MID, WEAK = (a_generator(name) for name in ("strong", "mid", "weak"))


@dataclass
class FakeProbe:
    """Fails for those of whom a test says so, and remembers who was asked."""

    faults: dict[str, Exception] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    exchanged: dict[str, Exception] = field(default_factory=dict)
    compared: list[str] = field(default_factory=list)
    unloaded: list[str] = field(default_factory=list)

    async def probe(self, generator: Generator) -> None:
        self.asked.append(generator.name)
        if fault := self.faults.get(generator.name):
            raise fault

    async def compare(self, generator: Generator) -> None:
        self.compared.append(generator.name)
        if fault := self.exchanged.get(generator.name):
            raise fault

    async def unload(self, generator: Generator) -> None:
        self.unloaded.append(generator.reference)


class Stage:
    """A pool of three, looked after."""

    def __init__(self, store: Store, **settings: float) -> None:
        self.store = store
        self.settings = GenerationSettings(**settings)
        self.clock = FakeClock()
        self.models = FakeProbe()
        self.num_changes = 0
        store.add_pool_events([a_pool_event(each) for each in (STRONG, MID, WEAK)])
        self.membership = self.another()

    def another(self) -> Membership:
        """Return what another process of the service runs."""
        return Membership(
            settings=self.settings,
            store=self.store,
            models=self.models,
            clock=self.clock,
            random=SystemRandom(),
            on_change=self._changed,
        )

    def _changed(self) -> None:
        self.num_changes += 1

    async def look(self, times: int = 1, *, by: Membership | None = None) -> None:
        """Let so many looks pass, each as long after the one before as it is in a process."""
        looking = by or self.membership
        for _ in range(times):
            assert await looking.look() == []
            self.clock.move(looking.ticks[0].interval_s)

    @property
    def absent(self) -> dict[str, str]:
        return dict(Pool.from_log(self.store.pool_log()).absent)

    @property
    def moves(self) -> list[tuple[str, str]]:
        """What happened after the declarations."""
        return [(event.kind.value, event.generator.name) for event in self.log[3:]]

    @property
    def log(self) -> list[PoolEvent]:
        return self.store.pool_log()

    def spend(self, tokens: int, *, text: str = "1+1=") -> None:
        """Store a trace of strong's that has taken so many tokens now."""
        [prompt] = self.store.add_prompts([a_prompt(text)])
        trace = a_trace(
            an_assignment(prompt), 0, completion_tokens=tokens - 4, generated_at=self.clock.now()
        )
        self.store.add_traces([trace])


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Stage]]:
    with closing(SqlStore(f"sqlite:///{tmp_path / 'store.db'}", wheel=WHEEL)) as store:
        yield lambda **settings: Stage(store, **settings)


@pytest.fixture
def stage(make: Callable[..., Stage]) -> Stage:
    return make()


async def test_silent_members_are_asked_once_an_interval(stage: Stage) -> None:
    await stage.look(3)
    assert stage.models.asked == []
    await stage.look()
    assert sorted(stage.models.asked) == ["mid", "strong", "weak"]
    await stage.look(3)
    assert len(stage.models.asked) == 6
    assert (stage.moves, stage.num_changes) == ([], 0)


async def test_inactive_member_is_left_in_peace_so_that_nothing_loads_its_adapter(
    stage: Stage,
) -> None:
    stage.membership.inactive = lambda pool, at: {"mid"}
    await stage.look(8)
    assert set(stage.models.asked) == {"strong", "weak"}
    assert stage.moves == []


async def test_member_whose_traces_come_is_not_asked(stage: Stage) -> None:
    for _ in range(10):
        for member in (STRONG, MID, WEAK):
            stage.membership.heard(member)
        await stage.look()
    assert stage.models.asked == []


async def test_weights_of_a_busy_member_are_compared_once_an_interval(stage: Stage) -> None:
    for _ in range(6):
        stage.membership.heard(WEAK)
        await stage.look()
    assert stage.models.compared == ["weak", "weak"]
    stage.models.exchanged["weak"] = RetryLaterError("503")
    for _ in range(3):
        stage.membership.heard(WEAK)
        await stage.look()
    assert stage.moves == []
    stage.models.exchanged["weak"] = ForeignModelError("it now serves 'other'")
    for _ in range(3):
        stage.membership.heard(WEAK)
        await stage.look()
    assert stage.absent == {"weak": "it now serves 'other'"}


@pytest.mark.parametrize(
    "error", [RetryLaterError("503"), InvalidRecordError("no such model")], ids=type
)
async def test_member_that_fails_three_times_in_a_row_leaves_and_says_why(
    stage: Stage, error: Exception
) -> None:
    await stage.look(3)
    stage.models.faults["weak"] = error
    await stage.look(2)
    assert stage.moves == []
    await stage.look()
    assert stage.moves == [("left", "weak")]
    assert stage.absent == {"weak": f"3 health checks in a row failed: {error}"}
    assert [it.name for it in Pool.from_log(stage.log).standing()] == ["strong", "mid"]
    assert stage.num_changes == 1


async def test_success_in_between_forgets_the_failures(stage: Stage) -> None:
    await stage.look(3)
    for _ in range(4):
        stage.models.faults["weak"] = RetryLaterError("503")
        await stage.look(2)
        stage.models.faults.clear()
        await stage.look(4)
    assert stage.moves == []


async def test_member_that_has_left_is_asked_at_every_look_and_returns_with_its_first_answer(
    stage: Stage,
) -> None:
    stage.models.faults["weak"] = RetryLaterError("503")
    await stage.look(6)
    stage.models.asked.clear()
    await stage.look(2)
    assert stage.models.asked.count("weak") == 2
    stage.models.faults.clear()
    await stage.look()
    assert stage.moves == [("left", "weak"), ("returned", "weak")]
    assert stage.absent == {}


async def test_each_leaving_is_an_event_of_its_own(stage: Stage) -> None:
    for _ in range(2):
        stage.models.faults["weak"] = RetryLaterError("503")
        await stage.look(6)
        stage.models.faults.clear()
        await stage.look(6)
    assert stage.moves == [("left", "weak"), ("returned", "weak")] * 2
    assert len({event.cause for event in stage.log[3:]}) == 4


async def test_member_that_comes_and_goes_stays_away_longer_each_time(stage: Stage) -> None:
    for _ in range(240):
        is_away = "weak" in stage.absent
        stage.models.faults = {} if is_away else {"weak": ForeignModelError("another answered")}
        if not is_away:
            stage.membership.heard(WEAK, ForeignModelError("another answered"))
        await stage.look()
    assert 8 <= len(stage.moves) <= 16


async def test_member_in_whose_name_another_model_answers_leaves_at_once(stage: Stage) -> None:
    stage.membership.heard(WEAK)
    stage.membership.heard(WEAK, ForeignModelError("another answered"))
    await stage.look()
    assert stage.absent == {"weak": "another answered"}
    stage.models.faults["weak"] = ForeignModelError("still another")
    await stage.look(2)
    stage.models.faults.clear()
    await stage.look()
    assert stage.moves == [("left", "weak"), ("returned", "weak")]


async def test_foreign_model_that_a_health_check_meets_takes_the_member_out_too(
    stage: Stage,
) -> None:
    await stage.look(3)
    stage.models.faults["weak"] = ForeignModelError("another answered")
    await stage.look()
    assert stage.absent == {"weak": "another answered"}


async def test_member_whose_tokens_are_spent_pauses_until_the_next_day(stage: Stage) -> None:
    limited = STRONG.model_copy(update={"max_tokens_per_day": 1_000})
    stage.store.add_pool_events([a_pool_event(limited, cause="settings 1")])
    stage.spend(999)
    await stage.look()
    assert stage.absent == {}
    stage.spend(5, text="2+2=")
    await stage.look()
    day = stage.clock.at.date()
    assert stage.absent == {
        "strong": f"its 1,000 tokens of {day} are spent; it returns at 00:00 UTC"
    }
    asked = stage.models.asked.count("strong")
    await stage.look(5)
    assert stage.models.asked.count("strong") == asked
    stage.clock.at = stage.clock.at.replace(hour=0, minute=0, second=1) + timedelta(days=1)
    await stage.look()
    assert [name for kind, name in stage.moves if kind == "returned"] == ["strong"]


async def test_budgets_are_kept_where_nobody_is_asked(make: Callable[..., Stage]) -> None:
    stage = make(health_interval_s=0)
    limited = STRONG.model_copy(update={"max_tokens_per_day": 10})
    stage.store.add_pool_events([a_pool_event(limited, cause="settings 1")])
    stage.spend(10)
    stage.models.faults["weak"] = RetryLaterError("503")
    await stage.look(5)
    assert list(stage.absent) == ["strong"]
    assert stage.models.asked == []


async def test_one_process_looks_after_the_pool_and_another_takes_over(stage: Stage) -> None:
    stage.models.faults["weak"] = RetryLaterError("503")
    other = stage.another()
    await stage.look()
    await stage.look(9, by=other)
    assert stage.moves == []
    stage.clock.move(60 + 2 * other.ticks[0].interval_s)
    await stage.look(6, by=other)
    assert stage.moves == [("left", "weak")]
    assert stage.store.is_leased(LEASE, at=stage.clock.now())


async def test_foreign_model_that_another_process_hears_takes_the_member_out_once(
    stage: Stage,
) -> None:
    other = stage.another()
    await stage.look()
    for each in (other, stage.membership):
        each.heard(WEAK, ForeignModelError("another answered"))
    await stage.look(by=other)
    assert stage.absent == {"weak": "another answered"}
    await stage.look(by=other)
    assert stage.moves == [("left", "weak")]


async def test_foreign_model_that_was_heard_before_a_pause_takes_the_member_out_after_it(
    stage: Stage,
) -> None:
    now = stage.clock.now()
    stage.store.acquire_lease(PAUSE_LEASE, token="t", at=now, until=now + timedelta(minutes=1))
    stage.membership.heard(WEAK, ForeignModelError("another answered"))
    await stage.look()
    assert stage.moves == []
    stage.clock.move(60)
    await stage.look()
    assert stage.moves == [("left", "weak")]


async def test_two_processes_that_note_the_same_leaving_at_once_write_one_event(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = stage.log
    with monkeypatch.context() as patch:
        patch.setattr(stage.store, "pool_log", lambda: log)
        for each in (stage.membership, stage.another()):
            each.heard(WEAK, ForeignModelError("another answered"))
            await stage.look(by=each)
    assert stage.moves == [("left", "weak")]


async def test_server_that_answers_nothing_is_a_failed_check_and_holds_no_budget_up(
    make: Callable[..., Stage],
) -> None:
    stage = make(request_timeout_s=0.01, health_failures=1)
    absent_meanwhile: list[dict[str, str]] = []

    async def hang(generator: Generator) -> None:
        absent_meanwhile.append(stage.absent)
        await asyncio.Event().wait()

    limited = STRONG.model_copy(update={"max_tokens_per_day": 10})
    stage.store.add_pool_events([a_pool_event(limited, cause="settings 1")])
    await stage.look(3)
    stage.models.probe = hang  # type: ignore[method-assign]
    stage.spend(10)
    await stage.look()
    assert [list(each) for each in absent_meanwhile] == [["strong"], ["strong"]]
    assert "no answer within generation.request_timeout_s (0.01 s)" in stage.absent["weak"]


async def test_nobody_is_asked_while_generation_is_paused(stage: Stage) -> None:
    now = stage.clock.now()
    stage.store.acquire_lease(PAUSE_LEASE, token="t", at=now, until=now + timedelta(hours=1))
    stage.models.faults["weak"] = RetryLaterError("503")
    await stage.look(9)
    assert (stage.models.asked, stage.moves) == ([], [])


async def test_drained_member_is_asked_no_more(stage: Stage) -> None:
    drained = a_pool_event(WEAK, kind=PoolEventKind.DRAINED, cause="operator 1")
    stage.store.add_pool_events([drained])
    await stage.look(4)
    assert sorted(stage.models.asked) == ["mid", "strong"]


async def test_retired_adapter_is_unloaded_by_who_looks_after_the_pool(stage: Stage) -> None:
    adapter = a_generator("guest", adapter_path="/adapters/guest")
    stage.store.add_pool_events([a_pool_event(adapter, kind=PoolEventKind.RETIRED)])
    await stage.look()
    assert stage.models.unloaded == ["guest@r1"]
