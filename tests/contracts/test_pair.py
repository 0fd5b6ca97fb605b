from typing import Any

import pytest
from hypothesis import given
from pydantic import ValidationError

from deltawheel.contracts.judgement import JudgedTrace, Score
from deltawheel.contracts.pair import PreferencePair, QuarantinedPair, SampleDelta
from deltawheel.contracts.rubric import Rubric
from deltawheel.contracts.trace import FinishReason
from tests.contracts.strategies import pairs
from tests.records import (
    a_generator,
    a_judged_trace,
    a_judgement,
    a_pair,
    a_prompt,
    a_quarantined_pair,
    a_trace,
    an_assignment,
    some_scores,
)


def rebuilt(pair: PreferencePair, **changes: Any) -> PreferencePair:
    """Build the pair anew with something changed, so that its rules are asked again."""
    fields = {name: getattr(pair, name) for name in PreferencePair.model_fields}
    return PreferencePair(**{**fields, **changes})


def with_judgement(pair: PreferencePair, side: str, **changes: Any) -> PreferencePair:
    """Build the pair anew with something changed in one side's judgement."""
    judged: JudgedTrace = getattr(pair, side)
    judgement = judged.judgement.model_copy(update=changes)
    return rebuilt(pair, **{side: JudgedTrace(trace=judged.trace, judgement=judgement)})


def under_another_rubric(pair: PreferencePair) -> PreferencePair:
    """Return the same two traces as they are judged under another rubric."""
    digest = Rubric(name="other").digest
    sides = {
        name: JudgedTrace(
            trace=judged.trace,
            judgement=judged.judgement.model_copy(update={"rubric_digest": digest}),
        )
        for name, judged in (("chosen", pair.chosen), ("rejected", pair.rejected))
    }
    return rebuilt(pair, rubric_digest=digest, **sides)


def judged_of(**prompt: Any) -> JudgedTrace:
    return a_judged_trace(an_assignment(a_prompt(**prompt)))


@pytest.mark.parametrize("order_delta", [0.0, -0.0, -0.1, -4.0, 4.1, float("nan"), float("inf")])
def test_pair_whose_chosen_did_not_win_cannot_be_built(order_delta: float) -> None:
    with pytest.raises(ValidationError, match="order_delta"):
        rebuilt(a_pair(), order_delta=order_delta)


@pytest.mark.parametrize(("chosen", "rejected"), [(2.0, 5.0), (3.0, 3.0)])
def test_levels_decide_whether_there_is_a_pair(chosen: float, rejected: float) -> None:
    with pytest.raises(ValidationError, match="order_delta"):
        a_pair(chosen_level=chosen, rejected_level=rejected)


@pytest.mark.parametrize("side", ["chosen", "rejected"])
def test_trace_of_another_prompt_cannot_be_paired(side: str) -> None:
    with pytest.raises(ValidationError, match="does not answer prompt_"):
        rebuilt(a_pair(), **{side: judged_of(text="2+2=")})


@pytest.mark.parametrize("side", ["chosen", "rejected"])
def test_trace_of_another_round_cannot_be_paired(side: str) -> None:
    with pytest.raises(ValidationError, match="does not answer prompt_"):
        rebuilt(a_pair(), **{side: judged_of(round=1)})


@pytest.mark.parametrize("side", ["chosen", "rejected"])
def test_judgement_under_another_rubric_cannot_be_paired(side: str) -> None:
    with pytest.raises(ValidationError, match="was judged under another rubric"):
        with_judgement(a_pair(), side, rubric_digest="sha256:other")


def test_pair_cannot_name_another_rubric_than_its_sides() -> None:
    with pytest.raises(ValidationError, match="was judged under another rubric"):
        rebuilt(a_pair(), rubric_digest="sha256:other")


@pytest.mark.parametrize("side", ["chosen", "rejected"])
def test_sides_judged_by_two_revisions_of_the_judge_cannot_be_paired(side: str) -> None:
    with pytest.raises(ValidationError, match=r"judged by two revisions: .*2"):
        with_judgement(a_pair(), side, judge_revision="2")


@pytest.mark.parametrize("finish_reason", [FinishReason.LENGTH, FinishReason.OTHER])
@pytest.mark.parametrize("side", ["chosen", "rejected"])
def test_trace_that_was_cut_off_cannot_be_paired(side: str, finish_reason: FinishReason) -> None:
    pair = a_pair()
    judged: JudgedTrace = getattr(pair, side)
    cut_off = judged.trace.model_copy(update={"finish_reason": finish_reason})
    with pytest.raises(ValidationError, match=rf"was cut off \({finish_reason.value}\)"):
        rebuilt(pair, **{side: judged.model_copy(update={"trace": cut_off})})


def test_trace_cannot_be_paired_with_itself() -> None:
    pair = a_pair()
    with pytest.raises(ValidationError, match="cannot be paired with itself"):
        rebuilt(pair, rejected=pair.chosen)


def test_pair_without_deltas_cannot_be_built() -> None:
    with pytest.raises(ValidationError, match="deltas"):
        rebuilt(a_pair(), deltas={})


@pytest.mark.parametrize("side", ["chosen", "rejected"])
@pytest.mark.parametrize("is_more", [True, False])
def test_sides_that_were_scored_on_different_dimensions_cannot_be_paired(
    side: str, is_more: bool
) -> None:
    scores = some_scores() | {"charm": Score(mean=3.0)}
    if not is_more:
        scores = {"factuality": Score(mean=3.0)}
    with pytest.raises(ValidationError, match="the dimensions differ: chosen has"):
        with_judgement(a_pair(), side, scores=scores)


def test_pair_that_leaves_out_the_delta_of_a_dimension_cannot_be_built() -> None:
    pair = a_pair()
    some = {name: delta for name, delta in pair.deltas.items() if name != "factuality"}
    with pytest.raises(ValidationError, match="the dimensions differ"):
        rebuilt(pair, deltas=some)


@pytest.mark.parametrize(("off", "is_refused"), [(2e-9, True), (-1.0, True), (1e-10, False)])
def test_delta_is_chosen_minus_rejected_but_for_rounding(off: float, is_refused: bool) -> None:
    pair = a_pair(chosen_level=4.5, rejected_level=2.0)
    deltas = {**pair.deltas, "step_coherence": SampleDelta(delta=2.5 + off)}
    if not is_refused:
        assert rebuilt(pair, deltas=deltas).deltas == deltas
        return
    with pytest.raises(ValidationError, match=r"delta of step_coherence is .* rejected is 2\.5"):
        rebuilt(pair, deltas=deltas)


@pytest.mark.parametrize("side", ["chosen", "rejected"])
def test_deltas_of_other_scores_cannot_stand_in_a_pair(side: str) -> None:
    with pytest.raises(ValidationError, match="the delta of factuality is 3"):
        with_judgement(a_pair(), side, scores=some_scores(4.0, factuality=3.0))


@pytest.mark.parametrize("order_delta", [2.5, 3.5])
def test_order_delta_is_a_mean_of_the_deltas(order_delta: float) -> None:
    with pytest.raises(ValidationError, match=r"order_delta is .* between 3\.0 and 3\.0"):
        rebuilt(a_pair(chosen_level=5.0, rejected_level=2.0), order_delta=order_delta)


@pytest.mark.parametrize("delta", [float("nan"), float("inf"), 4.1, -4.1])
def test_sample_delta_beyond_the_scale_is_refused(delta: float) -> None:
    with pytest.raises(ValidationError, match="delta"):
        SampleDelta(delta=delta)


@pytest.mark.parametrize("mean", [float("nan"), float("inf"), 0.9, 5.1])
def test_score_beyond_the_scale_is_refused(mean: float) -> None:
    with pytest.raises(ValidationError, match="mean"):
        Score(mean=mean)


def test_judgement_of_another_trace_cannot_stand_beside_a_trace() -> None:
    assignment = an_assignment()
    with pytest.raises(ValidationError, match=r"judgement of trace_\w+ does not belong to trace_"):
        JudgedTrace(trace=a_trace(assignment, 0), judgement=a_judgement(a_trace(assignment, 1)))


@given(pairs)
def test_pair_id_does_not_say_who_was_chosen(pair: PreferencePair) -> None:
    mirror = a_pair(pair.prompt, chosen_slot=pair.rejected.trace.slot)
    assert mirror.chosen.trace.trace_id == pair.rejected.trace.trace_id
    assert mirror.pair_id == pair.pair_id


def test_pair_id_hangs_on_both_traces_and_the_rubric() -> None:
    newer = (a_generator("strong", revision="r2"), a_generator("weak"))
    others = (a_generator("strong"), a_generator("weak", revision="r2"))
    different = [
        a_pair(),
        a_pair(a_prompt("2+2=")),
        a_pair(a_prompt(round=1)),
        a_pair(generators=newer),
        a_pair(generators=others),
        under_another_rubric(a_pair()),
    ]
    assert len({pair.pair_id for pair in different}) == len(different)


def test_pair_id_does_not_hang_on_texts_scores_or_time() -> None:
    assert a_pair(chosen_answer="2", chosen_level=4.5).pair_id == a_pair().pair_id


def test_pair_id_on_the_wire_is_not_believed() -> None:
    forged = {**a_pair().model_dump(mode="json"), "pair_id": "pair_of_somebody_else"}
    assert PreferencePair.model_validate(forged).pair_id == a_pair().pair_id


def test_quarantined_pair_names_what_it_failed() -> None:
    assert a_quarantined_pair().key == a_prompt().key
    with pytest.raises(ValidationError, match="expectations"):
        QuarantinedPair(pair=a_pair(), expectations=(), quarantined_at=a_pair().paired_at)
