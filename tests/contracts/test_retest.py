"""Test–retest: the pooled variance within texts, and the share that lies between them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltawheel.contracts.retest import pooled_variance, reliability

SCORES = st.floats(min_value=1, max_value=5)


def test_variances_are_pooled_by_degrees_of_freedom() -> None:
    assert pooled_variance([[1.0, 3.0], [2.0, 2.0, 2.0]]) == pytest.approx(2 / 3)


def test_texts_judged_once_say_nothing() -> None:
    assert pooled_variance([[1.0], [5.0], []]) == 0
    assert reliability([[1.0], [5.0]]) is None


def test_judge_that_repeats_itself_is_reliable_and_one_that_rolls_dice_is_not() -> None:
    assert reliability([[1.0, 1.0], [3.0, 3.0], [5.0, 5.0]]) == 1
    dice = reliability([[1.0, 5.0], [5.0, 1.0], [1.0, 5.0]])
    assert dice is not None
    assert dice < 0


def test_judge_that_always_says_the_same_leaves_no_telling() -> None:
    assert reliability([[5.0, 5.0], [5.0, 5.0]]) is None


@given(
    st.lists(st.lists(SCORES, min_size=3, max_size=3), min_size=2, max_size=9),
    st.floats(min_value=-1, max_value=1),
)
def test_no_shift_of_all_scores_changes_either(groups: list[list[float]], shift: float) -> None:
    moved = [[score + shift for score in group] for group in groups]
    assert pooled_variance(moved) == pytest.approx(pooled_variance(groups), abs=1e-9)
    assert pooled_variance(groups) >= 0


@given(st.lists(st.lists(SCORES, min_size=2, max_size=4), min_size=2, max_size=9))
def test_reliability_is_never_above_one(groups: list[list[float]]) -> None:
    share = reliability(groups)
    assert share is None or share <= 1 + 1e-9
