"""What monitoring shows of a jury: the agreement of those who sit now, once there is enough."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from deltawheel.contracts.judgement import Opinion
from deltawheel.infra.store.store import SqlStore
from deltawheel.infra.telemetry import PrometheusTelemetry
from deltawheel.services.monitoring.jury import JuryGauges
from tests.records import WHEEL, a_judgement, a_prompt, a_trace, an_assignment, seconds, some_scores
from tests.services.fakes import metric


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


async def shown(store: SqlStore) -> float | None:
    telemetry = PrometheusTelemetry()
    await JuryGauges(store, telemetry).refresh()
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
