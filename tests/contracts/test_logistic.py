import math
from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltawheel.contracts.logistic import Belief, Outcomes, update

PRIORS = {"a": Belief(1.0, 0.5), "b": Belief(-0.5, 1.5)}
COUNTS = st.integers(0, 500)


def test_without_outcomes_nothing_changes() -> None:
    beliefs = update(PRIORS, ())
    assert {name: beliefs.of(name) for name in PRIORS} == PRIORS


def test_a_flat_prior_gives_the_log_odds_of_the_outcomes() -> None:
    beliefs = update({"a": Belief(0.0, math.inf)}, [Outcomes({"a": 1.0}, 30, 10)])
    mean, stderr = beliefs.of("a")
    assert mean == pytest.approx(math.log(3))
    assert stderr == pytest.approx(math.sqrt(1 / 30 + 1 / 10))


@given(wins=COUNTS, losses=COUNTS)
def test_the_maximum_is_found_whatever_the_counts(wins: int, losses: int) -> None:
    beliefs = update(PRIORS, [Outcomes({"a": 1.0, "b": -1.0}, wins, losses)])
    a, b = beliefs.means["a"], beliefs.means["b"]
    surplus = wins - (wins + losses) / (1 + math.exp(b - a))
    assert (a - 1.0) / 0.5**2 == pytest.approx(surplus, abs=1e-6 * (1 + wins + losses))
    assert (b + 0.5) / 1.5**2 == pytest.approx(-surplus, abs=1e-6 * (1 + wins + losses))


def test_a_firm_prior_yields_to_no_outcomes() -> None:
    beliefs = update({"a": Belief(1.0, 0.0)}, [Outcomes({"a": 1.0}, 0, 500)])
    assert beliefs.means["a"] == pytest.approx(1.0, abs=1e-4)
    assert beliefs.of("a").stderr <= 1e-4


def test_what_two_share_cancels_in_their_difference() -> None:
    outcomes = [Outcomes({name: 1.0, "ease": 1.0}, 40, 10) for name in PRIORS]
    beliefs = update({**PRIORS, "ease": Belief(0.0, math.inf)}, outcomes)
    apart = math.hypot(beliefs.of("a").stderr, beliefs.of("b").stderr)
    assert beliefs.difference("a", "b").stderr < apart
    assert beliefs.difference("a", "a") == (0.0, 0.0)


def test_what_nothing_tells_of_is_refused() -> None:
    with pytest.raises(ValueError, match="neither prior nor outcomes"):
        update({"unseen": Belief(0.0, math.inf), **PRIORS}, [Outcomes({"b": 1.0}, 1, 1)])


def test_errors_are_those_of_a_grid_over_the_posterior() -> None:
    beliefs = update({"a": Belief(0.5, 1.0)}, [Outcomes({"a": 1.0}, 28, 12)])
    grid = [n / 500 for n in range(-1_000, 2_000)]
    share = [1 / (1 + math.exp(-x)) for x in grid]
    prior = NormalDist(0.5, 1.0)
    height = [prior.pdf(x) * p**28 * (1 - p) ** 12 for x, p in zip(grid, share, strict=True)]
    total = sum(height)
    mean = sum(x * h for x, h in zip(grid, height, strict=True)) / total
    spread = sum((x - mean) ** 2 * h for x, h in zip(grid, height, strict=True)) / total
    assert beliefs.of("a") == pytest.approx((mean, math.sqrt(spread)), abs=0.02)
