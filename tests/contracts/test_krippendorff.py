"""Krippendorff's alpha: the published example, its definition, and where there is none."""

import random
from collections.abc import Sequence
from itertools import permutations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from deltawheel.contracts.krippendorff import Scale, alpha, alpha_interval
from deltawheel.infra.simulated.seeded_random import SeededRandom

PUBLISHED = (
    "1 2 3 3 2 1 4 1 2 . . .",
    "1 2 3 3 2 2 4 1 2 5 . 3",
    ". 3 3 3 2 3 4 2 2 5 1 .",
    "1 2 3 3 2 4 4 1 2 5 1 .",
)
"""Four observers of twelve units (Krippendorff 2011, part C)."""
UNITS = [
    [float(value) for value in unit if value != "."]
    for unit in zip(*(row.split() for row in PUBLISHED), strict=True)
]


def test_published_example_has_the_published_alphas() -> None:
    assert alpha(UNITS, Scale.INTERVAL) == pytest.approx(0.849, abs=5e-4)
    assert alpha(UNITS, Scale.ORDINAL) == pytest.approx(0.815, abs=5e-4)


def by_definition(units: Sequence[Sequence[float]], scale: Scale) -> float:
    """Alpha as the paper writes it, over pairs of values with differences summed one by one."""
    paired = [unit for unit in units if len(unit) > 1]
    values = [value for unit in paired for value in unit]

    def difference(one: float, other: float) -> float:
        low, high = min(one, other), max(one, other)
        if scale is Scale.INTERVAL:
            return (high - low) ** 2
        between = sum(1 for value in values if low <= value <= high)
        return (between - (values.count(low) + values.count(high)) / 2) ** 2

    observed = sum(
        sum(difference(*pair) for pair in permutations(unit, 2)) / (len(unit) - 1)
        for unit in paired
    )
    expected = sum(difference(*pair) for pair in permutations(values, 2)) / (len(values) - 1)
    return 1 - observed / expected


MANY = st.lists(st.lists(st.integers(1, 5).map(float), max_size=4), max_size=8)


@given(MANY, st.sampled_from(Scale))
def test_sums_give_what_the_definition_says(units: list[list[float]], scale: Scale) -> None:
    found = alpha(units, scale)
    assume(found is not None)
    assert found == pytest.approx(by_definition(units, scale))


@given(MANY, st.randoms(use_true_random=False))
def test_order_of_judges_and_traces_makes_no_difference(
    units: list[list[float]], shuffled: random.Random
) -> None:
    other = [shuffled.sample(unit, len(unit)) for unit in units]
    shuffled.shuffle(other)
    assert alpha(other) == pytest.approx(alpha(units))


def test_judges_who_say_the_same_agree_and_who_score_by_lot_do_not() -> None:
    lot = random.Random(1)
    alike = [[score, score] for score in (1.0, 2.5, 4.0, 5.0)]
    assert alpha(alike) == 1
    by_lot = [[lot.uniform(1, 5), lot.uniform(1, 5)] for _ in range(2000)]
    assert alpha(by_lot) == pytest.approx(0, abs=0.06)
    opposed = [[score, 6 - score] for score in (1.0, 2.0, 4.0, 5.0)]
    assert (alpha(opposed) or 0) < -0.5


@pytest.mark.parametrize("units", [[], [[3.0]], [[3.0], [4.0]], [[4.0, 4.0], [4.0, 4.0]]])
def test_nothing_is_said_where_nothing_was_scored_twice_or_everything_alike(
    units: list[list[float]],
) -> None:
    assert alpha(units) is None
    assert alpha_interval(units, random=SeededRandom(1)) is None


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """Two judges see quality with as much noise as there is quality, so that alpha is a half."""
    lot, num_hits = random.Random(3), 0
    for trial in range(40):
        qualities = [lot.gauss(3, 1) for _ in range(100)]
        units = [[lot.gauss(each, 1), lot.gauss(each, 1)] for each in qualities]
        interval = alpha_interval(units, random=SeededRandom(trial), num_resamples=80)
        assert interval is not None
        num_hits += interval[0] <= 0.5 <= interval[1]
    assert 33 <= num_hits < 40


def test_interval_is_the_same_for_the_same_seed() -> None:
    assert alpha_interval(UNITS, random=SeededRandom(1)) == alpha_interval(
        UNITS, random=SeededRandom(1)
    )
