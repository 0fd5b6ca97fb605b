"""Monitoring: the gauges equal the rows, however often their events come."""

from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest

from deltawheel.contracts.dead_letter import Burial
from deltawheel.contracts.errors import RetryLaterError
from deltawheel.contracts.failpoints import Failpoint
from deltawheel.contracts.generator import PoolEventKind
from deltawheel.contracts.outcome import Outcome, UnpairedCause
from deltawheel.contracts.prompt import Prompt
from deltawheel.contracts.record import Record
from deltawheel.contracts.rubric import PAPER_DIMENSIONS
from deltawheel.contracts.settings import MonitoringSettings
from deltawheel.contracts.store import DeltaStats, GroupEnd, Store
from deltawheel.contracts.topics import EVENT_TYPES
from deltawheel.infra.store.store import SqlStore
from deltawheel.infra.telemetry import PrometheusTelemetry
from deltawheel.services.monitoring.handler import Monitoring
from tests.gauges import gauges_of_rows, gauges_on_page
from tests.records import (
    WHEEL,
    a_closing,
    a_dead_letter,
    a_generator,
    a_judgement,
    a_pair,
    a_paired_end,
    a_pool_event,
    a_promotion,
    a_prompt,
    a_prompt_failure,
    a_quarantined_end,
    a_quarantined_pair,
    a_slot_failure,
    a_trace,
    seconds,
)
from tests.services.fakes import FakeClock, FakeFailpoints, add_asked, add_judged, held, metric

ONE_OF_EACH: list[Record] = [
    a_prompt(),
    a_trace(),
    a_judgement(),
    a_slot_failure(),
    a_prompt_failure(),
    a_pair(),
    a_quarantined_pair(),
    a_promotion(),
]


class Stage:
    """Monitoring over a store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.clock = FakeClock()
        self.failpoints = FakeFailpoints()
        self.restart()

    def restart(self) -> None:
        """Begin anew, as a process that knows nothing of the one before."""
        self.telemetry = PrometheusTelemetry()
        self.handler = Monitoring(
            settings=MonitoringSettings(refresh_s=3),
            store=self.store,
            clock=self.clock,
            telemetry=self.telemetry,
            failpoints=self.failpoints,
        )

    async def refresh(self) -> None:
        tick, *_ = self.handler.ticks
        assert await tick.run() == []

    def shown(self, name: str, **labels: str) -> float | None:
        return metric(self.telemetry, f"deltawheel_{name}", **labels)

    @property
    def prompts(self) -> dict[str, float | None]:
        names = (*(outcome.value for outcome in Outcome), "open")
        return {name: self.shown("prompts", outcome=name) for name in names}

    @property
    def gauges(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """Return every gauge that shows something."""
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in self.telemetry.registry.collect()
            if family.type == "gauge"
            for sample in family.samples
        }


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'store.db'}"


@pytest.fixture
def stage(url: str) -> Iterator[Stage]:
    with closing(SqlStore(url, wheel=WHEEL)) as store:
        yield Stage(store)


def add_paired(store: Store, text: str, *, mirrored: bool = False) -> Prompt:
    """Store a prompt with its pair: `strong` is chosen by 3 points, or `weak` by 1."""
    prompt = add_judged(store, a_prompt(text))
    pair = a_pair(prompt, chosen_slot=1, chosen_level=3.0) if mirrored else a_pair(prompt)
    store.close_groups([a_paired_end(pair)])
    return prompt


def add_one_of_each(store: Store) -> None:
    """Store a prompt of each outcome, two paired ones, two that are open, and a dead letter."""
    add_paired(store, "paired")
    add_paired(store, "paired too")
    held = a_quarantined_pair(
        a_pair(add_judged(store, a_prompt("odd"))), expectations=("texts-differ", "x")
    )
    tied, dead = add_judged(store, a_prompt("tied")), a_prompt("dead")
    store.add_prompts([dead])
    store.close_groups(
        [
            a_quarantined_end(held),
            GroupEnd(closing=a_closing(tied, outcome=Outcome.UNPAIRED)),
            GroupEnd(closing=a_closing(dead, outcome=Outcome.DEAD_LETTERED)),
        ]
    )
    add_asked(store, a_prompt("asked", accepted_at=seconds(60)))
    store.add_prompts([a_prompt("waiting", accepted_at=seconds(70))])
    store.bury([Burial(a_dead_letter())])


async def test_gauges_equal_the_rows(stage: Stage) -> None:
    add_one_of_each(stage.store)
    await stage.refresh()
    assert stage.prompts == {
        "paired": 2,
        "quarantined": 1,
        "unpaired": 1,
        "dead-lettered": 1,
        "open": 2,
    }
    assert (stage.shown("traces"), stage.shown("judgements")) == (8, 8)
    assert stage.shown("dead_letters") == 1
    assert stage.shown("quarantined_pairs", expectation="texts-differ") == 1
    assert stage.shown("quarantined_pairs", expectation="x") == 1
    assert stage.shown("oldest_open_prompt_seconds") == 40


async def test_page_mirrors_all_that_the_rows_say(stage: Stage) -> None:
    add_one_of_each(stage.store)
    await stage.refresh()
    expected = gauges_of_rows(stage.store)
    assert gauges_on_page(stage.telemetry.page().decode(), expected) == expected
    elsewhere = ("in_flight", "paused", "halted", "_member_", "_per_", "_pending_", "_judging")
    shown = {name for name, _ in stage.gauges if not any(part in name for part in elsewhere)}
    assert shown == {*expected, "deltawheel_oldest_open_prompt_seconds"}


async def test_unpaired_prompts_are_told_apart_by_their_cause(stage: Stage) -> None:
    causes = ["tie", "tie", "single-survivor", "judged-otherwise"]
    for number, cause in enumerate(map(UnpairedCause, causes)):
        prompt = add_judged(stage.store, a_prompt(f"{number}+1="))
        end = a_closing(prompt, outcome=Outcome.UNPAIRED, cause=cause)
        stage.store.close_groups([GroupEnd(closing=end)])
    await stage.refresh()
    assert {
        cause.value: stage.shown("unpaired_prompts", cause=cause.value) for cause in UnpairedCause
    } == {"tie": 2, "single-survivor": 1, "judged-otherwise": 1}
    assert stage.prompts["unpaired"] == 4


async def test_shares_are_of_closed_prompts_however_many_are_open(stage: Stage) -> None:
    add_one_of_each(stage.store)
    for text in ("odd too", "odd as well"):
        pair = a_pair(add_judged(stage.store, a_prompt(text)))
        stage.store.close_groups([a_quarantined_end(a_quarantined_pair(pair))])
    await stage.refresh()
    assert (stage.prompts["paired"], stage.prompts["open"]) == (2, 2)
    assert stage.shown("tie_share") == 1 / 7
    assert stage.shown("quarantine_share") == 3 / 7
    assert stage.shown("dead_letter_share") == 1 / 7


async def test_both_deltas_are_shown_by_generator_pair(stage: Stage) -> None:
    add_paired(stage.store, "one")
    add_paired(stage.store, "two")
    add_paired(stage.store, "three", mirrored=True)
    await stage.refresh()
    for sides, num_pairs, sample, generator in (
        ({"chosen": "strong", "rejected": "weak"}, 2, 3.0, 1.0),
        ({"chosen": "weak", "rejected": "strong"}, 1, 1.0, -1.0),
    ):
        assert stage.shown("pairs", **sides) == num_pairs
        assert stage.shown("generator_delta_mean", **sides) == generator
        for dimension in ("order_by", *PAPER_DIMENSIONS):
            shown = stage.shown("sample_delta_mean", dimension=dimension, **sides)
            assert shown == pytest.approx(sample)


async def test_new_wheel_shows_zeros(stage: Stage) -> None:
    await stage.refresh()
    assert set(stage.prompts.values()) == {0}
    for share in ("tie_share", "quarantine_share", "dead_letter_share"):
        assert stage.shown(share) == 0
    assert stage.shown("unpaired_prompts", cause="tie") == 0
    assert stage.shown("oldest_open_prompt_seconds") == 0


async def test_redelivered_event_counts_nothing_twice(stage: Stage) -> None:
    add_one_of_each(stage.store)
    await stage.refresh()
    before = stage.gauges
    for record in ONE_OF_EACH * 3:
        assert await stage.handler.handle(record) == []
        await stage.refresh()
    assert stage.gauges == before
    assert stage.shown("events_seen_total", topic="prompts") == 3
    assert stage.shown("events_seen_total", topic="judgements") == 9
    assert stage.shown("events_seen_total", topic="pairs") == 6


async def test_restart_forgets_nothing(stage: Stage) -> None:
    add_one_of_each(stage.store)
    await stage.refresh()
    before = stage.gauges
    stage.restart()
    assert stage.gauges != before
    await stage.refresh()
    assert stage.gauges == before


async def test_gauges_follow_the_rows(stage: Stage) -> None:
    prompt = add_judged(stage.store)
    stage.clock.at = prompt.accepted_at
    stage.clock.move(90)
    await stage.refresh()
    assert (stage.prompts["open"], stage.prompts["paired"]) == (1, 0)
    assert stage.shown("oldest_open_prompt_seconds") == 90
    pair = a_pair(prompt)
    stage.store.close_groups([a_paired_end(pair)])
    await stage.handler.handle(pair)
    await stage.refresh()
    assert (stage.prompts["open"], stage.prompts["paired"]) == (0, 1)
    assert stage.shown("oldest_open_prompt_seconds") == 0
    assert stage.shown("pairs", chosen="strong", rejected="weak") == 1


class CountingStore(SqlStore):
    """Counts the reads of the deltas, the dearest ones, and is busy at the first if told so."""

    num_reads = 0
    is_busy = False

    def delta_stats(self) -> list[DeltaStats]:
        self.num_reads += 1
        if self.is_busy:
            raise RetryLaterError("the store is busy")
        return super().delta_stats()


@pytest.fixture
def counting(url: str) -> Iterator[CountingStore]:
    with closing(CountingStore(url, wheel=WHEEL)) as store:
        yield store


async def test_deltas_are_read_once_and_then_only_after_an_event(counting: CountingStore) -> None:
    stage = Stage(counting)
    for _ in range(3):
        await stage.refresh()
    assert counting.num_reads == 1
    await stage.handler.handle(a_pair())
    await stage.handler.handle(a_trace())
    for _ in range(3):
        await stage.refresh()
    assert counting.num_reads == 2


async def test_deltas_that_a_busy_store_did_not_tell_are_read_at_the_next_refresh(
    counting: CountingStore,
) -> None:
    stage = Stage(counting)
    add_paired(counting, "one")
    counting.is_busy = True
    with pytest.raises(RetryLaterError):
        await stage.refresh()
    counting.is_busy = False
    await stage.refresh()
    assert stage.shown("pairs", chosen="strong", rejected="weak") == 1


async def test_every_kind_of_event_on_its_topics_is_counted(stage: Stage) -> None:
    watched = {kind.record for kind in EVENT_TYPES if kind.topic in stage.handler.topics}
    assert watched == {type(record) for record in ONE_OF_EACH}
    for record in ONE_OF_EACH:
        await stage.handler.handle(record)
    seen = {topic: stage.shown("events_seen_total", topic=topic) for topic in stage.handler.topics}
    assert seen == {"prompts": 1, "traces": 1, "judgements": 3, "pairs": 2, "promotions": 1}


async def test_event_is_seen_before_its_offset_can_be_committed(stage: Stage) -> None:
    await stage.handler.handle(a_trace())
    assert stage.failpoints.reached == [(Failpoint.MONITORING_SEEN, "traces")]


@pytest.mark.parametrize("record", ONE_OF_EACH, ids=lambda record: type(record).__name__)
def test_monitoring_ends_no_slot(stage: Stage, record: Record) -> None:
    assert stage.handler.slot_ends(record, "refused", seconds(1)) == ()


def test_refresh_comes_as_often_as_the_settings_say(stage: Stage) -> None:
    assert [tick.interval_s for tick in stage.handler.ticks] == [3, 3, 30]


async def test_what_was_spent_is_shown_for_each_member_and_for_what_came_of_it(
    stage: Stage,
) -> None:
    priced = a_generator("strong", prompt_price=Decimal(1), completion_price=Decimal(2))
    stage.store.add_pool_events([a_pool_event(priced), a_pool_event(a_generator("weak"))])
    prompt = add_paired(stage.store, "one")
    strong, weak = held(stage.store, prompt).traces.values()
    await stage.refresh()
    for trace in (strong, weak):
        sides = {"read": trace.prompt_tokens, "written": trace.completion_tokens}
        for direction, tokens in sides.items():
            labels = {"generator": trace.generator, "direction": direction}
            assert stage.shown("member_tokens", **labels) == tokens
    tokens = sum(each.prompt_tokens + each.completion_tokens for each in (strong, weak))
    cost = (strong.prompt_tokens + 2 * strong.completion_tokens) / 1_000_000
    assert stage.shown("member_cost", generator="strong") == pytest.approx(cost)
    assert stage.shown("member_cost", generator="weak") == 0
    assert stage.shown("tokens_per_pair") == tokens
    assert stage.shown("cost_per_pair") == pytest.approx(cost)
    assert stage.shown("tokens_per_delta_point", delta="sample") == pytest.approx(tokens / 3)
    assert stage.shown("cost_per_delta_point", delta="generator") == pytest.approx(cost)


async def test_spending_is_counted_again_after_an_event_and_not_at_every_refresh(
    stage: Stage,
) -> None:
    await stage.refresh()
    assert stage.shown("tokens_per_pair") == 0
    await stage.handler.handle(a_pair(add_paired(stage.store, "one")))
    await stage.refresh()
    assert stage.shown("tokens_per_pair") == 0
    stage.clock.move(10)
    await stage.refresh()
    assert (stage.shown("tokens_per_pair") or 0) > 0


async def test_member_that_has_left_or_gone_stands_no_more(stage: Stage) -> None:
    strong, weak, mid = (a_generator(name) for name in ("strong", "weak", "mid"))
    stage.store.add_pool_events([a_pool_event(each) for each in (strong, weak, mid)])
    await stage.refresh()
    left = a_pool_event(weak, kind=PoolEventKind.LEFT, cause="health 1")
    gone = a_pool_event(mid, kind=PoolEventKind.DRAINED, cause="operator 1")
    stage.store.add_pool_events([left, gone])
    assert stage.shown("member_standing", generator="weak") == 1
    await stage.refresh()
    names = ("strong", "weak", "mid")
    assert [stage.shown("member_standing", generator=name) for name in names] == [1, 0, 0]
