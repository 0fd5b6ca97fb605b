"""Curation: a group closes once, when its last slot has ended, and nothing owed is forgotten."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from deltawheel.contracts.errors import InvalidRecordError
from deltawheel.contracts.failpoints import Failpoint
from deltawheel.contracts.judgement import SlotFailed
from deltawheel.contracts.outcome import Closing, Outcome
from deltawheel.contracts.pair import PreferencePair, QuarantinedPair
from deltawheel.contracts.ports import PairChecks
from deltawheel.contracts.prompt import Prompt
from deltawheel.contracts.record import Record
from deltawheel.contracts.settings import CurationSettings
from deltawheel.contracts.transition import TransitionKind
from deltawheel.infra.clock import SystemRandom
from deltawheel.infra.store.store import SqlStore
from deltawheel.infra.telemetry import PrometheusTelemetry
from deltawheel.services.curation.handler import Curation
from tests.infra.store.stored import open_next
from tests.records import (
    WHEEL,
    a_judgement,
    a_promotion,
    a_prompt,
    a_prompt_failure,
    a_rubric,
    a_slot_failure,
    an_assignment,
)
from tests.services.fakes import (
    FakeChecks,
    FakeClock,
    FakeFailpoints,
    KilledError,
    add_asked,
    add_judged,
    add_judged_slot,
    die,
    held,
    metric,
    pass_by,
)


class Stage:
    """Curation over a store; unless told otherwise, each group is a batch of its own."""

    def __init__(self, store: SqlStore) -> None:
        self.store = store
        self.checks = FakeChecks()
        self.clock = FakeClock()
        self.telemetry = PrometheusTelemetry()
        self.failpoints = FakeFailpoints()
        self.handler = self.another()

    def another(self, *, batch: int = 1, checks: PairChecks | None = None) -> Curation:
        """Return a member of the same service."""
        return Curation(
            settings=CurationSettings(batch_max_pairs=batch, republish_after_s=40),
            store=self.store,
            checks=checks or self.checks,
            rubric=a_rubric(),
            clock=self.clock,
            random=SystemRandom(),
            telemetry=self.telemetry,
            failpoints=self.failpoints,
        )

    def closing(self, prompt: Prompt) -> Closing | None:
        return held(self.store, prompt).closing

    def outcome(self, prompt: Prompt) -> Outcome | None:
        end = self.closing(prompt)
        return end.outcome if end else None

    @property
    def num_found(self) -> float | None:
        return metric(self.telemetry, "deltawheel_effects_found_total", effect="closing")

    def num_republished(self, topic: str) -> float | None:
        return metric(self.telemetry, "deltawheel_owed_events_republished_total", topic=topic)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with closing(SqlStore(f"sqlite:///{tmp_path / 'store.db'}", wheel=WHEEL)) as store:
        yield Stage(store)


async def tick(handler: Curation, name: str) -> Sequence[Record]:
    """Do what is due, and have it published as the loop does."""
    [due] = [tick for tick in handler.ticks if tick.name == name]
    events = await due.run()
    due.on_published(events)
    return events


def last_event(stage: Stage, prompt: Prompt) -> Record:
    return held(stage.store, prompt).judgements[-1]


def failing_checks() -> FakeChecks:
    return FakeChecks(lambda pair: ("texts-differ",))


@pytest.mark.parametrize("last", [0, 1])
async def test_group_closes_with_its_last_slot_and_not_before(stage: Stage, last: int) -> None:
    prompt = add_asked(stage.store)
    early = add_judged_slot(stage.store, prompt, 1 - last, level=2.0)
    assert await stage.handler.handle(early) == []
    assert stage.closing(prompt) is None
    late = add_judged_slot(stage.store, prompt, last, level=4.0)
    [pair] = await stage.handler.handle(late)
    assert isinstance(pair, PreferencePair)
    assert (pair.chosen.judgement, pair.rejected.judgement) == (late, early)
    assert pair.paired_at == stage.clock.at
    assert stage.store.pair(pair.pair_id) == pair
    end = stage.closing(prompt)
    assert end is not None
    assert (end.outcome, end.closed_at) == (Outcome.PAIRED, stage.clock.at)


async def test_event_of_an_earlier_slot_closes_too_when_all_have_ended(stage: Stage) -> None:
    prompt = add_judged(stage.store)
    first, _ = held(stage.store, prompt).judgements
    assert len(await stage.handler.handle(first)) == 1
    assert stage.outcome(prompt) is Outcome.PAIRED


async def test_failed_slot_ends_its_group_too(stage: Stage) -> None:
    prompt = add_asked(stage.store)
    add_judged_slot(stage.store, prompt, 0, level=4.0)
    failure = stage.store.add_slot_failures([a_slot_failure(slot=1)])[0]
    assert await stage.handler.handle(failure) == []
    end = stage.closing(prompt)
    assert end is not None
    assert (end.outcome, end.reason) == (Outcome.UNPAIRED, "single survivor")


async def test_prompt_that_nobody_was_asked_is_closed_by_its_failure(stage: Stage) -> None:
    prompt = a_prompt()
    stage.store.add_prompts([prompt])
    failure = stage.store.add_prompt_failures([a_prompt_failure(prompt)])[0]
    assert await stage.handler.handle(failure) == []
    assert stage.outcome(prompt) is Outcome.DEAD_LETTERED


async def test_tie_closes_without_a_pair_and_asks_no_checks(stage: Stage) -> None:
    prompt = add_judged(stage.store, None, 3.0, 3.0)
    assert await stage.handler.handle(last_event(stage, prompt)) == []
    assert stage.outcome(prompt) is Outcome.UNPAIRED
    assert stage.checks.batches == []


async def test_pair_that_fails_a_check_is_quarantined_under_its_name(stage: Stage) -> None:
    prompt = add_judged(stage.store)
    handler = stage.another(checks=failing_checks())
    [event] = await handler.handle(last_event(stage, prompt))
    assert isinstance(event, QuarantinedPair)
    assert event.expectations == ("texts-differ",)
    assert event.quarantined_at == stage.clock.at
    assert stage.outcome(prompt) is Outcome.QUARANTINED
    assert stage.store.count_pairs() == 0
    assert stage.store.progress().quarantined == {"texts-differ": 1}


async def test_redelivered_event_returns_what_the_store_holds(stage: Stage) -> None:
    prompt = add_judged(stage.store)
    event = last_event(stage, prompt)
    [pair] = await stage.handler.handle(event)
    assert stage.num_found is None
    stage.clock.move(5)
    assert await stage.another(checks=failing_checks()).handle(event) == [pair]
    assert stage.num_found == 1
    assert stage.outcome(prompt) is Outcome.PAIRED


async def test_redelivered_event_returns_a_quarantined_pair_likewise(stage: Stage) -> None:
    event = last_event(stage, add_judged(stage.store))
    events = await stage.another(checks=failing_checks()).handle(event)
    assert await stage.handler.handle(event) == events
    assert stage.store.count_pairs() == 0
    assert stage.checks.batches == []


async def test_of_two_members_that_close_a_group_the_first_decides(stage: Stage) -> None:
    event = last_event(stage, add_judged(stage.store))
    winner = stage.another(checks=failing_checks())
    won: list[Record] = []

    async def be_overtaken() -> None:
        stage.failpoints.act = pass_by
        won.extend(await winner.handle(event))

    stage.failpoints.act = be_overtaken
    assert await stage.handler.handle(event) == won
    assert [type(record) for record in won] == [QuarantinedPair]
    assert stage.store.count_pairs() == 0


async def test_killed_before_closing_it_closes_when_the_event_comes_again(stage: Stage) -> None:
    prompt = add_judged(stage.store)
    stage.failpoints.act = die
    with pytest.raises(KilledError):
        await stage.handler.handle(last_event(stage, prompt))
    assert stage.failpoints.reached == [(Failpoint.CURATION_ENDED, prompt.prompt_id)]
    assert stage.closing(prompt) is None
    stage.failpoints.act = pass_by
    await stage.handler.handle(last_event(stage, prompt))
    assert stage.outcome(prompt) is Outcome.PAIRED


async def test_groups_share_a_batch_of_checks_and_each_gets_its_own_events(stage: Stage) -> None:
    good = [add_judged(stage.store, a_prompt(f"{number}+1=")) for number in range(3)]
    bad = add_judged(stage.store, a_prompt("bad"))
    tied = add_judged(stage.store, a_prompt("tied"), 3.0, 3.0)
    stage.checks.fails = lambda pair: ("texts-differ",) if pair.prompt == bad else ()
    stored, [quarantined], nothing = await handle_together(stage, good, [bad], [tied])
    assert [pair.prompt for pair in stored if isinstance(pair, PreferencePair)] == good
    assert isinstance(quarantined, QuarantinedPair)
    assert quarantined.pair.prompt == bad
    assert nothing == []
    [batch] = stage.checks.batches
    ids = [pair.pair_id for pair in [*stored, quarantined.pair] if isinstance(pair, PreferencePair)]
    assert sorted(batch) == sorted(ids)
    assert stage.store.progress().outcomes == {
        Outcome.PAIRED: 3,
        Outcome.QUARANTINED: 1,
        Outcome.UNPAIRED: 1,
    }


async def handle_together(stage: Stage, *parts: Sequence[Prompt]) -> list[list[Record]]:
    """Handle the last event of each prompt in one batch; return the events of each part."""
    prompts = [prompt for part in parts for prompt in part]
    handler = stage.another(batch=len(prompts))
    async with asyncio.timeout(20):
        answers = await asyncio.gather(
            *(handler.handle(last_event(stage, prompt)) for prompt in prompts)
        )
    rest = iter(answers)
    return [[event for _ in part for event in next(rest)] for part in parts]


async def test_two_events_of_a_group_in_one_batch_close_it_once(stage: Stage) -> None:
    prompt = add_judged(stage.store)
    [first], second = await handle_together(stage, [prompt], [prompt])
    assert isinstance(first, PreferencePair)
    assert second == []  # one event of a pair is enough
    assert stage.store.count_pairs() == 1


async def test_crash_of_the_checks_closes_nothing_and_reaches_every_caller(stage: Stage) -> None:
    def crash(pair: PreferencePair) -> tuple[str, ...]:
        raise RuntimeError("an expectation crashed")

    prompts = [add_judged(stage.store, a_prompt(text)) for text in ("one", "two")]
    stage.checks.fails = crash
    handler = stage.another(batch=2)
    results = await asyncio.gather(
        *(handler.handle(last_event(stage, prompt)) for prompt in prompts), return_exceptions=True
    )
    assert [str(result) for result in results] == ["an expectation crashed"] * 2
    assert [stage.closing(prompt) for prompt in prompts] == [None, None]


@pytest.mark.parametrize(
    "record", [a_judgement(), a_slot_failure(), a_prompt_failure(), a_promotion()]
)
async def test_event_of_a_prompt_that_the_store_does_not_hold_is_invalid(
    stage: Stage, record: Record
) -> None:
    with pytest.raises(InvalidRecordError, match=f"no prompt for this {type(record).__name__}"):
        await stage.handler.handle(record)
    assert stage.handler.slot_ends(record, "refused", stage.clock.at) == ()


async def test_owed_events_are_published_again_by_the_holder_of_the_lease_alone(
    stage: Stage,
) -> None:
    prompt, other = add_judged(stage.store), stage.another()
    owed = held(stage.store, prompt).judgements[0]
    assert await tick(stage.handler, "owed") == [owed]
    assert await tick(other, "owed") == []
    assert stage.num_republished("judgements") == 1


async def test_lease_of_a_member_that_died_goes_to_another(stage: Stage) -> None:
    prompt, other = add_judged(stage.store), stage.another()
    await tick(stage.handler, "owed")
    stage.clock.move(80)
    assert await tick(other, "owed") == []
    stage.clock.move(1)
    assert await tick(other, "owed") == [held(stage.store, prompt).judgements[0]]
    assert await tick(stage.handler, "owed") == []


async def test_holder_prolongs_its_lease_at_every_tick(stage: Stage) -> None:
    add_judged(stage.store)
    for _ in range(5):
        await tick(stage.handler, "owed")
        stage.clock.move(60)
        assert await tick(stage.another(), "owed") == []


async def test_event_is_owed_again_only_when_it_is_old_enough(stage: Stage) -> None:
    prompt = a_prompt(accepted_at=stage.clock.at)
    stage.store.add_prompts([prompt])
    stage.clock.move(40)
    assert await tick(stage.handler, "owed") == []
    stage.clock.move(1)
    assert await tick(stage.handler, "owed") == [prompt]
    assert stage.num_republished("prompts") == 1


async def test_owed_event_whose_publication_failed_is_due_at_the_next_tick(stage: Stage) -> None:
    prompt = a_prompt(accepted_at=stage.clock.at)
    stage.store.add_prompts([prompt])
    stage.clock.move(41)
    [owed] = [tick for tick in stage.handler.ticks if tick.name == "owed"]
    for _ in range(3):
        assert await owed.run() == [prompt]
        stage.clock.move(10)
    assert stage.num_republished("prompts") is None


@pytest.mark.parametrize("apart_s", [0, 1])
async def test_events_that_stay_owed_keep_no_younger_one_from_its_turn(
    stage: Stage, apart_s: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deltawheel.services.curation.handler._OWED_PAGE", 4)
    prompts = [
        a_prompt(f"{n}+1=", accepted_at=stage.clock.at + timedelta(seconds=n * apart_s))
        for n in range(4 if apart_s == 0 else 10)
    ]
    young = a_prompt("young", accepted_at=stage.clock.at + timedelta(seconds=20))
    stage.store.add_prompts([*prompts, young])
    stage.clock.move(100)
    published: list[Record] = []
    for _ in range(4):
        published += await tick(stage.handler, "owed")
    assert sorted(published, key=repr) == sorted([*prompts, young], key=repr), "each of them once"
    stage.clock.move(1_000)
    for _ in range(4):
        published += await tick(stage.handler, "owed")
    assert len(published) == 2 * len(prompts) + 2, "they have waited, and none was forgotten"


async def test_interval_of_an_owed_event_doubles_until_it_is_owed_no_longer(stage: Stage) -> None:
    prompt, start = add_judged(stage.store), stage.clock.at
    published: list[float] = []
    for _ in range(40):
        if await tick(stage.handler, "owed"):
            published.append((stage.clock.at - start).total_seconds())
        stage.clock.move(10)
    assert published == [0, 40, 120, 280]
    assert stage.num_republished("judgements") == 4
    await stage.handler.handle(last_event(stage, prompt))
    stage.clock.move(1_000)
    assert await tick(stage.handler, "owed") == []


async def test_slots_that_have_expired_end_and_their_group_closes(stage: Stage) -> None:
    prompt = add_asked(stage.store)
    add_judged_slot(stage.store, prompt, 0, level=4.0)
    stage.clock.at = an_assignment(prompt).expires_at - timedelta(seconds=1)
    assert await tick(stage.handler, "expired") == []
    stage.clock.move(1)
    [failure] = await tick(stage.handler, "expired")
    assert isinstance(failure, SlotFailed)
    assert (failure.slot, failure.failed_at) == (1, stage.clock.at)
    assert failure.reason.startswith("expired: no judged trace by 2026-01-01T01:00")
    assert held(stage.store, prompt).slot_failures == [failure]
    assert await tick(stage.handler, "expired") == []
    assert await stage.handler.handle(failure) == []
    assert stage.outcome(prompt) is Outcome.UNPAIRED


async def test_group_that_expires_whole_is_dead_lettered(stage: Stage) -> None:
    prompt = add_asked(stage.store)
    stage.clock.at = an_assignment(prompt).expires_at
    first, second = await tick(stage.handler, "expired")
    assert await stage.handler.handle(first) == []
    assert await stage.handler.handle(second) == []
    assert stage.num_found == 1
    end = stage.closing(prompt)
    assert end is not None
    assert end.outcome is Outcome.DEAD_LETTERED
    assert "expired" in end.reason


def test_ticks_come_four_times_in_the_age_of_an_owed_event(stage: Stage) -> None:
    assert {tick.name: tick.interval_s for tick in stage.handler.ticks} == {
        "owed": 10,
        "expired": 10,
    }


async def test_released_pair_is_checked_again_from_the_judgements_that_are_there(
    stage: Stage,
) -> None:
    prompt = add_judged(stage.store)
    [ended] = held(stage.store, prompt).owed
    stage.checks.fails = lambda pair: ("expect_more",)
    [quarantined] = await stage.handler.handle(ended)
    assert isinstance(quarantined, QuarantinedPair)
    stage.checks.fails = lambda pair: ()
    open_next(stage.store, prompt, kind=TransitionKind.RELEASE)
    [owed] = held(stage.store, prompt).owed
    assert await stage.handler.handle(owed) == [
        quarantined.pair.model_copy(update={"paired_at": stage.clock.now()})
    ]
    end = stage.closing(prompt)
    assert end is not None
    assert (end.outcome, end.attempt) == (Outcome.PAIRED, 2)
    assert stage.store.quarantined(after=None, limit=9) == []
