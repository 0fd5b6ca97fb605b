"""Calibrations: what repeated judgements tell of a judge's scores, and which delta carries it."""

import pytest

from deltawheel.contracts.calibration import Calibration
from deltawheel.contracts.judgement import Score
from tests.records import JUDGE, T0, a_judgement, a_rubric, a_trace, seconds

RUBRIC = a_rubric()


def measured(*texts: list[float]) -> Calibration | None:
    return Calibration.measured(
        [[{"factuality": score} for score in scores] for scores in texts],
        judge="judge",
        judge_revision=JUDGE,
        rubric_digest=RUBRIC.digest,
        at=T0,
    )


def test_variance_is_pooled_over_the_texts_that_were_judged_again() -> None:
    found = measured([1.0, 3.0], [5.0, 5.0, 5.0], [2.0])
    assert found is not None
    assert found.variances == {"factuality": pytest.approx(2 / 3)}
    assert (found.num_texts, found.num_judgements) == (2, 5)
    assert found.stderr("factuality") == pytest.approx((2 / 3) ** 0.5)


def test_texts_judged_once_calibrate_nothing() -> None:
    assert measured([1.0], [5.0], []) is None


def test_later_calibration_of_the_same_judge_is_another() -> None:
    first = measured([1.0, 3.0])
    assert first is not None
    later = first.model_copy(update={"measured_at": seconds(1)})
    assert first.calibration_id != later.calibration_id


def test_delta_carries_the_variance_of_both_sides() -> None:
    scores = {name: Score(mean=3.0, variance=0.3) for name in RUBRIC.dimensions}
    judgement = a_judgement(a_trace(), scores=scores)
    own = RUBRIC.deltas(judgement, judgement)
    assert own["factuality"].variance == pytest.approx(0.6)
    known = RUBRIC.deltas(judgement, judgement, variances={"factuality": 0.05})
    assert known["factuality"].variance == pytest.approx(0.1)
    assert known["step_coherence"] == own["step_coherence"]
