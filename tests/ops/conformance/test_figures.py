"""The card's figures: what judges of known habits come out as."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltawheel.contracts.anchors import PARAPHRASE, SOLUTION
from deltawheel.ops.conformance.figures import (
    Found,
    discriminant_of,
    ordering_of,
    retest_of,
    slope_of,
    spread_of,
    wilson,
)


def scored(a: float, b: float) -> dict[str, float]:
    return {"a": a, "b": b}


FOUND: Found = {
    ("one", SOLUTION): [scored(5, 5), scored(4, 5)],
    ("one", PARAPHRASE): [scored(4, 5), scored(4, 5)],
    ("one", "a"): [scored(2, 4), scored(3, 4)],
    ("one", "b"): [scored(4.5, 5), scored(4.5, 5)],
    ("two", SOLUTION): [scored(3, 3), scored(3, 3)],
    ("two", "a"): [scored(4, 3), scored(4, 3)],
}


def test_ordering_counts_right_pairs_and_ties_of_mean_scores() -> None:
    a, b = ordering_of(FOUND, "a"), ordering_of(FOUND, "b")
    assert (a.num_pairs, a.num_right, a.num_ties, a.accuracy) == (2, 1, 0, 0.5)
    assert (b.num_pairs, b.num_right, b.num_ties, b.accuracy) == (1, 0, 1, 0.5)


def test_dimension_without_pairs_has_no_accuracy_and_an_interval_of_everything() -> None:
    nothing = ordering_of(FOUND, "c")
    assert (nothing.accuracy, nothing.interval) == (0, (0, 1))


def test_discriminant_is_the_fall_less_that_of_others() -> None:
    seen = discriminant_of(FOUND, "a")
    assert seen is not None
    assert seen.fall == pytest.approx((2 - 1) / 2)
    assert seen.margin == pytest.approx(((2 - 1) + (-1 - 0)) / 2)
    assert seen.share_deepest == 0.5


def test_one_dimension_alone_cannot_be_told_from_others() -> None:
    found: Found = {("one", SOLUTION): [{"a": 5}], ("one", "a"): [{"a": 1}]}
    assert discriminant_of(found, "a") is None
    assert ordering_of(found, "a").accuracy == 1


def test_spread_is_that_of_two_judgements_or_of_two_wordings() -> None:
    identity = spread_of(FOUND, "a", between=SOLUTION)
    assert identity is not None
    assert (identity.absolute, identity.signed) == (0.5, -0.5)
    paraphrase = spread_of(FOUND, "a", between=PARAPHRASE)
    assert paraphrase is not None
    assert paraphrase.signed == -1
    assert spread_of({("one", SOLUTION): [scored(1, 1)]}, "a", between=SOLUTION) is None


def test_retest_pools_the_variance_within_texts() -> None:
    again = retest_of(FOUND, "a")
    assert again is not None
    assert again.variance == pytest.approx((0.5 + 0.5) / 6)
    assert again.stderr == pytest.approx(again.variance**0.5)
    assert retest_of({("one", SOLUTION): [scored(1, 1)]}, "a") is None


def test_wilson_is_what_the_books_say() -> None:
    low, high = wilson(8, 10)
    assert low == pytest.approx(0.4902, abs=1e-4)
    assert high == pytest.approx(0.9433, abs=1e-4)


@given(st.integers(min_value=1, max_value=500), st.floats(min_value=0, max_value=1))
def test_wilson_holds_the_share_and_stays_a_share(number: int, share: float) -> None:
    low, high = wilson(share * number, number)
    assert 0 <= low <= share + 1e-9
    assert share - 1e-9 <= high <= 1


def test_slope_is_by_least_squares_and_nothing_over_one_length() -> None:
    assert slope_of([(0, 1), (1, 3), (2, 5)]) == pytest.approx(2)
    assert slope_of([(1, 1), (1, 3)]) == 0
