"""A jury: whose scores count, who is asked of which prompt, and what one that fails costs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltawheel.contracts.errors import InvalidRecordError, RetryLaterError
from deltawheel.contracts.judgement import Score
from deltawheel.contracts.ports import Assessment
from deltawheel.contracts.prompt import Prompt
from deltawheel.contracts.rubric import Rubric
from deltawheel.contracts.settings import JurySettings
from deltawheel.contracts.trace import Trace
from deltawheel.infra.judges.jury import Jury, jury_revision
from tests.records import a_prompt, a_rubric, a_trace, an_assignment, some_scores
from tests.services.fakes import FakeClock


@dataclass
class Juror:
    """Says the same of every trace, or fails as a test says."""

    name: str
    level: float = 4.0
    error: Exception | None = None
    read: list[str] = field(default_factory=list)

    @property
    def revision(self) -> str:
        return f"{self.name}@1"

    async def assess(self, prompt: Prompt, trace: Trace, rubric: Rubric) -> Assessment:
        self.read.append(trace.trace_id)
        if self.error is not None:
            raise self.error
        return Assessment(scores=some_scores(self.level))


def a_jury(*judges: Juror, trace: Trace | None = None, age_s: float = 1.0, **ways: Any) -> Jury:
    now = (trace or a_trace()).generated_at + timedelta(seconds=age_s)
    return Jury(judges, JurySettings(**ways), FakeClock(now))


async def found_by(jury: Jury, trace: Trace | None = None) -> Assessment:
    return await jury.assess(a_prompt(), trace or a_trace(), a_rubric())


async def test_scores_of_the_first_count_and_those_of_all_are_kept() -> None:
    found = await found_by(a_jury(Juror("one", 4.0), Juror("two", 2.0)))
    assert found.scores == some_scores(4.0)
    kept = [(it.judge, it.judge_revision, it.scores, it.fault) for it in found.opinions]
    assert kept == [
        ("one", "one@1", some_scores(4.0), None),
        ("two", "two@1", some_scores(2.0), None),
    ]


async def test_mean_counts_and_is_as_unsure_as_its_judges_differ() -> None:
    jury = a_jury(Juror("one", 5.0), Juror("two", 2.0), combine="mean")
    found = await found_by(jury)
    assert found.scores["factuality"] == Score(mean=3.5, variance=2.25, num_votes=2)
    assert [it.judge for it in found.opinions] == ["one", "two"]


def test_only_judges_whose_scores_count_are_named_by_the_revision() -> None:
    first, second = Juror("one"), Juror("two")
    assert a_jury(first, second).revision == "one@1"
    assert a_jury(first, second, share=0.5).revision == "one@1"
    assert a_jury(first, second, combine="mean").revision == "mean(one@one@1,two@two@1)"
    assert a_jury(first, second, combine="mean").name == "one+two"
    assert jury_revision({"one": "one@1"}, JurySettings(combine="mean")) == "one@1"


async def test_both_sides_of_a_pair_have_the_same_judges() -> None:
    first, second = Juror("one"), Juror("two")
    jury = a_jury(first, second, share=0.5)
    sizes: list[int] = []
    for number in range(200):
        assignment = an_assignment(a_prompt(f"{number}+1="))
        sides = [await found_by(jury, a_trace(assignment, slot)) for slot in (0, 1)]
        assert len({len(side.opinions) for side in sides}) == 1
        sizes.append(len(sides[0].opinions))
    assert set(sizes) == {0, 2}
    assert 70 < sizes.count(2) < 130
    assert len(first.read) == 400
    assert len(second.read) == 2 * sizes.count(2)


@pytest.mark.parametrize(
    "error",
    [RetryLaterError("two is busy"), TimeoutError("two"), RetryLaterError("half")],
)
async def test_young_trace_waits_for_every_opinion_and_an_old_one_goes_on_without(
    error: Exception,
) -> None:
    judges = Juror("one"), Juror("two", error=error)
    with pytest.raises(type(error), match=str(error)):
        await found_by(a_jury(*judges, patience_s=60, age_s=59))
    found = await found_by(a_jury(*judges, patience_s=60, age_s=60))
    assert found.scores == some_scores(4.0)
    assert [(it.judge, it.fault) for it in found.opinions] == [("one", None), ("two", str(error))]


async def test_trace_that_a_further_judge_refuses_for_good_goes_on_at_once() -> None:
    found = await found_by(a_jury(Juror("one"), Juror("two", error=InvalidRecordError("too long"))))
    assert found.scores == some_scores(4.0)
    assert found.opinions[1].fault == "too long"


@pytest.mark.parametrize("error", [RetryLaterError("busy"), InvalidRecordError("too long")])
@pytest.mark.parametrize(("combine", "failing"), [("first", 0), ("mean", 0), ("mean", 1)])
async def test_no_score_that_counts_is_forgone_however_old_the_trace_is(
    error: Exception, combine: str, failing: int
) -> None:
    judges = Juror("one"), Juror("two")
    judges[failing].error = error
    with pytest.raises(type(error), match=str(error)):
        await found_by(a_jury(*judges, combine=combine, age_s=1e6))


async def test_fault_of_our_own_is_never_taken_for_a_missing_opinion() -> None:
    with pytest.raises(ZeroDivisionError):
        await found_by(a_jury(Juror("one"), Juror("two", error=ZeroDivisionError()), age_s=1e6))


LEVELS = st.lists(st.floats(1, 5), min_size=2, max_size=5)


@given(LEVELS)
async def test_mean_lies_between_its_judges_in_whatever_order_they_sit(
    levels: Sequence[float],
) -> None:
    jurors = [Juror(str(number), level) for number, level in enumerate(levels)]
    there = (await found_by(a_jury(*jurors, combine="mean"))).scores["factuality"]
    back = (await found_by(a_jury(*reversed(jurors), combine="mean"))).scores["factuality"]
    assert min(levels) - 1e-9 <= there.mean <= max(levels) + 1e-9
    assert there.mean == pytest.approx(back.mean)
    assert there.variance == pytest.approx(back.variance)
