"""A judge that remembers: the same text is judged once, at whatever time it comes."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from deltawheel.contracts.errors import RetryLaterError
from deltawheel.contracts.judgement import Score
from deltawheel.contracts.known_scores import KnownScores
from deltawheel.contracts.ports import Assessment
from deltawheel.contracts.settings import JurySettings
from deltawheel.contracts.trace import Trace
from deltawheel.infra.judges.jury import Jury
from deltawheel.infra.simulated.store import SimulatedStore
from deltawheel.infra.store.store import SqlStore
from deltawheel.infra.telemetry import PrometheusTelemetry
from deltawheel.services.judging.remembering import RememberingJudge
from tests.records import WHEEL, a_prompt, a_rubric, a_trace, an_assignment, some_scores
from tests.services.fakes import FakeClock, FakeJudge, metric

ONE, SAME, OTHER = a_trace(answer="2"), a_trace(slot=1, answer="2"), a_trace(answer="3")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    with closing(SqlStore(f"sqlite:///{tmp_path / 'store.db'}", wheel=WHEEL)) as store:
        yield store


def remembering(
    judge: FakeJudge, store: SqlStore, telemetry: PrometheusTelemetry | None = None
) -> RememberingJudge:
    counts = telemetry or PrometheusTelemetry()
    return RememberingJudge(judge, store, clock=FakeClock(), telemetry=counts)


async def assess(judge: RememberingJudge | Jury, trace: Trace) -> Assessment:
    return await judge.assess(a_prompt(), trace, a_rubric())


async def test_same_text_is_judged_once_whoever_wrote_it(store: SqlStore) -> None:
    levels = iter((4.0, 2.0))
    judge = FakeJudge(score=lambda trace: Assessment(scores=some_scores(next(levels))))
    telemetry = PrometheusTelemetry()
    first = await assess(remembering(judge, store, telemetry), ONE)
    again = await assess(remembering(judge, store, telemetry), SAME)
    assert first.scores == again.scores == some_scores(4.0)
    assert (await assess(remembering(judge, store, telemetry), OTHER)).scores == some_scores(2.0)
    assert judge.read == [ONE, OTHER]
    assert metric(telemetry, "deltawheel_judge_cache_hits_total", judge="judge") == 1


async def test_two_that_come_at_once_are_judged_once(store: SqlStore) -> None:
    judge = FakeJudge()
    remembered = remembering(judge, store)
    found = await asyncio.gather(*(assess(remembered, trace) for trace in (ONE, SAME, OTHER, SAME)))
    assert [each.scores for each in found] == [some_scores()] * 4
    assert len(judge.read) == 2


async def test_two_processes_that_judge_the_same_text_go_on_with_what_the_store_holds() -> None:
    class StoreThatForgot(SimulatedStore):
        """As it was when the slower one looked."""

        def known_scores(self, ids: Sequence[str]) -> dict[str, KnownScores]:
            return {}

    store = StoreThatForgot(wheel=WHEEL)
    first = await assess(remembering(FakeJudge(), store), ONE)
    slower = FakeJudge(score=lambda trace: Assessment(scores=some_scores(1.0)))
    second = await assess(remembering(slower, store), ONE)
    assert second.scores == first.scores == some_scores()
    assert slower.read == [ONE]


async def test_another_revision_remembers_nothing_of_the_first(store: SqlStore) -> None:
    older, newer = FakeJudge(), FakeJudge(revision="judge@2")
    for judge in (older, newer, newer):
        await assess(remembering(judge, store), ONE)
    assert (len(older.read), len(newer.read)) == (1, 1)


async def test_neither_failures_nor_half_of_the_scores_are_remembered(store: SqlStore) -> None:
    half = Assessment(scores={"factuality": Score(mean=4.0)})
    judge = FakeJudge(score=lambda trace: half)
    assert await assess(remembering(judge, store), ONE) == half

    def fail(trace: Trace) -> Assessment:
        raise RetryLaterError("busy")

    judge.score = fail
    with pytest.raises(RetryLaterError, match="busy"):
        await assess(remembering(judge, store), ONE)
    judge.score = lambda trace: Assessment(scores=some_scores())
    assert (await assess(remembering(judge, store), ONE)).scores == some_scores()


async def test_judge_is_not_asked_again_while_another_of_the_jury_is_down(store: SqlStore) -> None:
    def fail(trace: Trace) -> Assessment:
        raise RetryLaterError("down")

    first, second = FakeJudge(), FakeJudge(name="two", revision="two@1", score=fail)
    clock = FakeClock(at=ONE.generated_at)
    jury = Jury([remembering(first, store), remembering(second, store)], JurySettings(), clock)
    for _ in range(3):
        with pytest.raises(RetryLaterError, match="down"):
            await assess(jury, ONE)
    second.score = lambda trace: Assessment(scores=some_scores(1.0))
    found = await assess(jury, ONE)
    assert [it.scores for it in found.opinions] == [some_scores(), some_scores(1.0)]
    assert (len(first.read), len(second.read)) == (1, 4)


async def test_prompt_asked_again_costs_only_what_is_new(store: SqlStore) -> None:
    judge = FakeJudge()
    for round_ in range(2):
        await assess(remembering(judge, store), a_trace(an_assignment(a_prompt(round=round_))))
    assert len(judge.read) == 1
