"""The figures of a conformance card, as pure functions of what a judge found of anchor cases."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean
from typing import Final, TypeAlias

from deltawheel.contracts.anchors import PARAPHRASE, SOLUTION
from deltawheel.contracts.retest import pooled_variance, reliability

__all__ = [
    "Discriminant",
    "Found",
    "Ordering",
    "Retest",
    "Spread",
    "discriminant_of",
    "ordering_of",
    "retest_of",
    "slope_of",
    "spread_of",
    "wilson",
]

Found: TypeAlias = Mapping[tuple[str, str], Sequence[Mapping[str, float]]]
"""By case and text: the scores by dimension, one mapping for each time that it was judged."""

_SAME: Final = 1e-9
"""Differences up to this are rounding."""
_Z: Final = 1.959964
"""Of the intervals, at 95 percent."""


def wilson(successes: float, number: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson, 1927); all of 0 to 1 where nothing was tried."""
    if not number:
        return 0.0, 1.0
    share, squared = successes / number, _Z * _Z
    centre = share + squared / (2 * number)
    half = _Z * sqrt(share * (1 - share) / number + squared / (4 * number * number))
    scale = 1 + squared / number
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ordering:
    """How often a text made worse on a dimension scores lower there; ties count half."""

    num_pairs: int
    num_right: int
    num_ties: int

    @property
    def accuracy(self) -> float:
        """The share of pairs in the known order; one half is what guessing gets."""
        return self._successes / self.num_pairs if self.num_pairs else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """The accuracy's 95 % interval."""
        return wilson(self._successes, self.num_pairs)

    @property
    def _successes(self) -> float:
        return self.num_right + self.num_ties / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Discriminant:
    """Whether a judge sees what was spoilt, and not only that something was.

    Args:
        fall: Mean fall on the dimension that texts were made worse on, points.
        margin: That fall less the mean fall on the other dimensions, points.
        share_deepest: How often no other dimension falls as far.
    """

    fall: float
    margin: float
    share_deepest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How far scores lie apart that should be the same: the mean, with and without its sign."""

    absolute: float
    signed: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Retest:
    """How far one judgement lies from another of the same text.

    Args:
        variance: Of a single score, pooled over texts, squared points.
        reliability: Share of the variance that lies between texts; None if there is no telling.
    """

    variance: float
    reliability: float | None

    @property
    def stderr(self) -> float:
        """The standard error of one score, points; a delta's is larger by the root of two."""
        return sqrt(self.variance)


def ordering_of(found: Found, dimension: str) -> Ordering:
    """Compare each text made worse on the dimension with its case's solution."""
    falls = [fall[dimension] for fall in _falls(found, dimension)]
    return Ordering(
        num_pairs=len(falls),
        num_right=sum(fall > _SAME for fall in falls),
        num_ties=sum(abs(fall) <= _SAME for fall in falls),
    )


def discriminant_of(found: Found, dimension: str) -> Discriminant | None:
    """Compare the fall on the dimension with that on others; None where there are no others."""
    falls = _falls(found, dimension)
    if not falls or len(falls[0]) < 2:
        return None
    aimed = [fall[dimension] for fall in falls]
    others = [[fall[name] for name in fall if name != dimension] for fall in falls]
    return Discriminant(
        fall=fmean(aimed),
        margin=fmean(own - fmean(rest) for own, rest in zip(aimed, others, strict=True)),
        share_deepest=fmean(
            own > max(rest) + _SAME for own, rest in zip(aimed, others, strict=True)
        ),
    )


def spread_of(found: Found, dimension: str, *, between: str) -> Spread | None:
    """Compare two texts of a case that should score alike.

    `between` is the other text, such as the paraphrase; for the solution itself, its first and its
    last judgement are compared: an identity pair.
    """
    shifts = []
    for (case, variant), scores in found.items():
        solution = found.get((case, SOLUTION))
        if variant != between or not solution or (variant == SOLUTION and len(scores) < 2):
            continue
        shifts.append(scores[-1][dimension] - solution[0][dimension])
    if not shifts:
        return None
    return Spread(absolute=fmean(map(abs, shifts)), signed=fmean(shifts))


def retest_of(found: Found, dimension: str) -> Retest | None:
    """Compare judgements of the same text; None where none was judged twice."""
    groups = [[each[dimension] for each in scores] for scores in found.values()]
    repeated = [group for group in groups if len(group) > 1]
    if not repeated:
        return None
    return Retest(variance=pooled_variance(repeated), reliability=reliability(repeated))


def slope_of(points: Sequence[tuple[float, float]]) -> float:
    """Return by how much the second value rises with the first, by least squares."""
    mean_x, mean_y = fmean(x for x, _ in points), fmean(y for _, y in points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


def _falls(found: Found, variant: str) -> list[dict[str, float]]:
    """Return by how much each dimension is lower in these texts than in their cases' solutions."""
    falls = []
    for (case, name), scores in found.items():
        solution = found.get((case, SOLUTION))
        if name == variant and name not in {SOLUTION, PARAPHRASE} and scores and solution:
            before, after = _means(solution), _means(scores)
            falls.append({dimension: before[dimension] - after[dimension] for dimension in after})
    return falls


def _means(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: fmean(each[name] for each in scores) for name in scores[0]}
