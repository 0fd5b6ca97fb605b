"""What monitoring shows of judging: who waits, whether judges agree and tell traces apart."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from deltawheel.contracts.dead_letter import Burial
from deltawheel.contracts.judgement import Opinion
from deltawheel.contracts.judging_states import score_spreads
from deltawheel.infra.store.store import SqlStore
from deltawheel.infra.telemetry import PrometheusTelemetry
from deltawheel.services.monitoring.judging import JudgingGauges
from tests.records import (
    WHEEL,
    a_dead_letter,
    a_deferral,
    a_judgement,
    a_prompt,
    a_slot_failure,
    a_trace,
    an_assignment,
    seconds,
    some_scores,
)
from tests.services.fakes import FakeClock, metric


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    with closing(SqlStore(f"sqlite:///{tmp_path / 'store.db'}", wheel=WHEEL)) as store:
        yield store


def add_opinions(
    store: SqlStore, levels: Sequence[tuple[float, float]], *, of: str = "1", begin: int = 0
) -> None:
    for number, pair in enumerate(levels, begin):
        assignment = an_assignment(store.add_prompts([a_prompt(f"{number}+1=")])[0])
        trace = store.add_traces([a_trace(assignment)])[0]
        opinions = tuple(
            Opinion(judge=name, judge_revision=f"{name}@{of}", scores=some_scores(level))
            for name, level in zip(("one", "two"), pair, strict=True)
        )
        judged = a_judgement(trace, judged_at=seconds(10 + number))
        store.add_judgements([judged.model_copy(update={"opinions": opinions})])


def gauges(store: SqlStore, telemetry: PrometheusTelemetry) -> JudgingGauges:
    return JudgingGauges(store=store, clock=FakeClock(at=seconds(100)), telemetry=telemetry)


async def shown(store: SqlStore) -> float | None:
    telemetry = PrometheusTelemetry()
    await gauges(store, telemetry).show_judges()
    return metric(telemetry, "deltawheel_judge_agreement", dimension="factuality")


async def test_agreement_is_said_once_there_are_enough_traces(store: SqlStore) -> None:
    add_opinions(store, [(1, 1), (5, 5)] * 24 + [(3, 3)])
    assert await shown(store) is None
    add_opinions(store, [(3, 3)], begin=49)
    assert await shown(store) == 1


async def test_only_the_panel_that_sits_now_counts(store: SqlStore) -> None:
    add_opinions(store, [(1, 1), (5, 5)] * 25)
    add_opinions(store, [(1, 5), (5, 1)] * 25, of="2", begin=50)
    agreement = await shown(store)
    assert agreement is not None
    assert agreement < 0


async def test_judges_who_always_say_the_same_score_agree_about_nothing(store: SqlStore) -> None:
    add_opinions(store, [(5, 5)] * 50)
    assert await shown(store) is None


async def test_waiting_retried_and_dead_traces_are_counted(store: SqlStore) -> None:
    async def states() -> dict[str, float | None]:
        telemetry = PrometheusTelemetry()
        await gauges(store, telemetry).show_states()
        names = ("pending", "retrying", "dead")
        shown = {name: metric(telemetry, "deltawheel_judging", state=name) for name in names}
        age_s = metric(telemetry, "deltawheel_oldest_pending_judgement_seconds")
        return {**shown, "age_s": age_s}

    nothing = {"pending": 0, "retrying": 0, "dead": 0, "age_s": 0}
    assert await states() == nothing
    assignment = an_assignment(store.add_prompts([a_prompt()])[0])
    store.add_assignments([assignment])
    first, second = (
        a_trace(assignment, slot, generated_at=seconds(40 + 10 * slot)) for slot in (0, 1)
    )
    store.add_traces([first, second])
    store.add_deferrals([a_deferral(), a_deferral(service="curation")])
    assert await states() == nothing | {"pending": 1, "retrying": 1, "age_s": 60}
    store.add_judgements([a_judgement(first)])
    assert await states() == nothing | {"pending": 0, "retrying": 1, "age_s": 50}
    failure = a_slot_failure(assignment, second.slot)
    store.bury([Burial(letter=a_dead_letter(), slot_failures=[failure])])
    assert await states() == nothing | {"retrying": 1, "dead": 1}


async def test_spread_of_the_newest_scores_is_shown_by_dimension(store: SqlStore) -> None:
    async def spread(dimension: str = "factuality") -> float | None:
        telemetry = PrometheusTelemetry()
        await gauges(store, telemetry).show_judges()
        return metric(telemetry, "deltawheel_judge_score_spread", dimension=dimension)

    add_opinions(store, [(5, 5)] * 49)
    assert await spread() is None
    add_opinions(store, [(5, 5)], begin=49)
    assert await spread() == 0


def test_spread_is_that_of_the_judge_who_judges_now() -> None:
    newer = [a_judgement(level=level, judge_revision="judge@2") for level in (2.0, 4.0)]
    older = [a_judgement(level=level) for level in (1.0, 5.0)]
    assert score_spreads([*newer, *older], fewest=2)["factuality"] == 1
    assert score_spreads([a_judgement()] * 50)["factuality"] == 0


def test_spread_of_few_is_not_said_however_many_another_judge_has_judged() -> None:
    newer = [a_judgement(level=3.0, judge_revision="judge@2")]
    older = [a_judgement(level=1.0)] * 199
    assert score_spreads([*newer, *older]) == {}
    assert score_spreads([]) == {}
