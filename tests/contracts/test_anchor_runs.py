"""Anchor runs: a judge has moved when the same texts score otherwise, beyond chance and limit."""

import random
from collections.abc import Mapping
from math import sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltawheel.contracts.anchor_runs import AnchorRun, AnchorVerdict, JudgeDrift
from deltawheel.contracts.calibration import Calibration
from tests.records import JUDGE, T0, a_rubric, seconds

SCORES = st.dictionaries(
    st.sampled_from("abcdefgh"), st.floats(min_value=1, max_value=5), min_size=1
)


def a_run(
    scores: Mapping[str, float], *, at: float = 0, repeats: int = 1, revision: str = JUDGE
) -> AnchorRun:
    return AnchorRun(
        judge="judge",
        judge_revision=revision,
        rubric_digest=a_rubric().digest,
        scores={key: {"factuality": score} for key, score in scores.items()},
        num_repeats=repeats,
        ran_at=seconds(at),
    )


def a_calibration(variance: float) -> Calibration:
    return Calibration(
        judge="judge",
        judge_revision=JUDGE,
        rubric_digest=a_rubric().digest,
        variances={"factuality": variance},
        num_texts=4,
        num_judgements=12,
        measured_at=T0,
    )


BASELINE = a_run({"a": 2, "b": 4}, repeats=3)


def test_first_run_is_a_baseline() -> None:
    assert BASELINE.verdict is AnchorVerdict.BASELINE
    assert BASELINE.drifted == {}


def test_same_texts_that_score_higher_than_the_limit_are_a_drift() -> None:
    run = a_run({"a": 2.5, "b": 4.5}, at=9).compared(BASELINE, limit=0.4, calibration=None)
    assert (run.baseline_id, run.verdict) == (BASELINE.run_id, AnchorVerdict.DRIFTED)
    assert run.drifted == {"factuality": 0.5}


def test_single_texts_may_move_as_long_as_the_mean_stays() -> None:
    run = a_run({"a": 3, "b": 3}, at=9).compared(BASELINE, limit=0.1, calibration=None)
    assert (run.shifts, run.verdict) == ({"factuality": 0}, AnchorVerdict.STEADY)


def test_judge_that_wavers_may_move_by_five_standard_errors() -> None:
    run = a_run({"a": 2.5, "b": 4.5}, at=9)
    wavers = run.compared(BASELINE, limit=0.1, calibration=a_calibration(0.5))
    assert wavers.limits["factuality"] == pytest.approx(5 * sqrt(0.5 * (1 + 1 / 3) / 2))
    assert wavers.verdict is AnchorVerdict.STEADY
    steady = run.compared(BASELINE, limit=0.1, calibration=a_calibration(0.001))
    assert steady.limits["factuality"] == pytest.approx(0.1291, abs=1e-4)
    assert steady.verdict is AnchorVerdict.DRIFTED


def test_texts_that_only_one_run_has_do_not_count() -> None:
    run = a_run({"a": 2, "c": 5}, at=9).compared(BASELINE, limit=0.1, calibration=None)
    assert run.shifts == {"factuality": 0}


def test_run_over_other_texts_is_a_baseline_of_its_own() -> None:
    run = a_run({"c": 5}, at=9)
    assert run.compared(BASELINE, limit=0.1, calibration=None) == run


@given(SCORES)
def test_judge_that_repeats_itself_never_drifts(scores: dict[str, float]) -> None:
    again = a_run(scores, at=9).compared(a_run(scores), limit=1e-6, calibration=None)
    assert again.verdict is AnchorVerdict.STEADY


@given(SCORES, SCORES, st.floats(min_value=0, max_value=1))
def test_doubt_never_makes_a_drift(
    before: dict[str, float], after: dict[str, float], variance: float
) -> None:
    run, baseline = a_run(after, at=9), a_run(before)
    sure = run.compared(baseline, limit=0.3, calibration=None)
    unsure = run.compared(baseline, limit=0.3, calibration=a_calibration(variance))
    assert unsure.drifted.keys() <= sure.drifted.keys()


def test_chance_alone_never_drifts_and_half_a_point_is_seen_at_once() -> None:
    chance, spread = random.Random(7), 0.4
    calibration, texts = a_calibration(spread**2), [f"text {n}" for n in range(42)]

    def drawn(level: float, *, repeats: int = 1) -> AnchorRun:
        noise = spread / sqrt(repeats)
        scores = {text: level + chance.gauss(0, noise) for text in texts}
        return a_run(scores, repeats=repeats, at=repeats)

    num_false = num_seen = 0
    for _ in range(25):
        baseline = drawn(3.0, repeats=3)
        for _ in range(20):
            same = drawn(3.0).compared(baseline, limit=0.25, calibration=calibration)
            num_false += same.verdict is AnchorVerdict.DRIFTED
        moved = drawn(3.5).compared(baseline, limit=0.25, calibration=calibration)
        num_seen += moved.verdict is AnchorVerdict.DRIFTED
    assert (num_false, num_seen >= 23) == (0, True)


def test_drift_names_what_moved_the_suspect_window_and_the_way_out() -> None:
    run = a_run({"a": 3, "b": 5}, at=20).compared(BASELINE, limit=0.4, calibration=None)
    said = JudgeDrift(run=run, last_good_at=seconds(0), first_bad_at=seconds(10)).sentence
    assert "factuality by +1.00" in said
    assert "first at 2026-01-01T00:00:10+00:00" in said
    assert "since 2026-01-01T00:00:00+00:00 are suspect" in said
    assert "`deltawheel judge anchors --accept`" in said
