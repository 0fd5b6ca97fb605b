"""What is believed of several quantities after outcomes that hang on them by the logistic curve.

The one calculation behind the ladder. An outcome's log-odds are a sum of some of the quantities,
each with a sign: a right answer of a generator (Rasch 1960: its capability and the domain's
ease), or one generator's win over another (Bradley and Terry 1952: the first's capability less
the second's). The quantities have normal priors, so the posterior has one maximum, which Newton's
method finds, and the curvature there gives the errors (Laplace). Plain Python: a pool is small.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, inf, log1p, sqrt
from typing import Final, NamedTuple

__all__ = ["Belief", "Beliefs", "Outcomes", "update"]

_SMALLEST_STDERR: Final = 1e-4
"""What is believed more firmly than this is believed this firmly: an error of 0 has no inverse."""
_MAX_STEPS: Final = 200
_SMALLEST_STEP: Final = 1e-10
_LONGEST_STEP: Final = 2.0
"""Logits. Where outcomes are nearly certain the curvature is next to nothing: a whole step from
there leads to where it is nothing, and no further."""

_Matrix = list[list[float]]


class Belief(NamedTuple):
    """A normal belief on the logit scale; a standard error of infinity knows nothing yet."""

    mean: float
    stderr: float


class Outcomes(NamedTuple):
    """Equal trials: their log-odds are the sum of quantities times these coefficients.

    Counts may be fractions: a tie is half a win, and a pseudo-count keeps log-odds finite.
    """

    coefficients: Mapping[str, float]
    successes: float
    failures: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Beliefs:
    """What is believed of all quantities together: means by name, and how their errors agree."""

    means: Mapping[str, float]
    covariance: Mapping[str, Mapping[str, float]]

    def of(self, name: str) -> Belief:
        """Return what is believed of one quantity."""
        return Belief(self.means[name], sqrt(self.covariance[name][name]))

    def difference(self, first: str, second: str) -> Belief:
        """Return what is believed of the first less the second; what both share cancels."""
        if first == second:
            return Belief(0.0, 0.0)
        shared = self.covariance[first][second]
        variance = self.covariance[first][first] + self.covariance[second][second] - 2 * shared
        return Belief(self.means[first] - self.means[second], sqrt(max(variance, 0.0)))

    def drawn(self, normals: Mapping[str, float]) -> dict[str, float]:
        """Return one draw of the quantities named, from a standard normal number for each.

        Errors that two share are drawn once for both.
        """
        names = sorted(normals)
        covariance = [[self.covariance[a][b] for b in names] for a in names]
        factor = _cholesky(covariance, is_rank_full=False)
        return {
            name: self.means[name]
            + sum(by * normals[other] for by, other in zip(row, names, strict=True) if by)
            for name, row in zip(names, factor, strict=True)
        }


def update(priors: Mapping[str, Belief], outcomes: Sequence[Outcomes]) -> Beliefs:
    """Return what is believed after the outcomes; without any, what was believed before.

    Raises:
        ValueError: of a quantity whose prior knows nothing no outcome tells anything.
    """
    names = list(priors)
    rows = [_Row.of(each, names) for each in outcomes]
    start = [priors[name].mean for name in names]
    precisions = [max(priors[name].stderr, _SMALLEST_STDERR) ** -2 for name in names]
    means = _climb(rows, start, precisions) if rows else start
    if rows:
        covariance = _inverse(_curvature(rows, means, precisions))
    else:
        covariance = [
            [priors[name].stderr ** 2 if name == other else 0.0 for other in names]
            for name in names
        ]
    return Beliefs(
        means=dict(zip(names, means, strict=True)),
        covariance={
            name: dict(zip(names, row, strict=True))
            for name, row in zip(names, covariance, strict=True)
        },
    )


class _Row(NamedTuple):
    """Outcomes with their coefficients by place, most of which are 0 and left out."""

    terms: tuple[tuple[int, float], ...]
    successes: float
    failures: float

    @classmethod
    def of(cls, outcomes: Outcomes, names: Sequence[str]) -> "_Row":
        terms = tuple((names.index(name), by) for name, by in outcomes.coefficients.items() if by)
        return cls(terms, outcomes.successes, outcomes.failures)

    def log_odds(self, at: Sequence[float]) -> float:
        return sum(by * at[place] for place, by in self.terms)


def _climb(
    rows: Sequence[_Row], start: Sequence[float], precisions: Sequence[float]
) -> list[float]:
    """Go to the maximum by Newton's steps, none too long, each halved until it leads upwards."""
    at, height = list(start), _height(rows, start, start, precisions)
    for _ in range(_MAX_STEPS):
        slope = _slope(rows, at, start, precisions)
        steps = _solve(_curvature(rows, at, precisions), slope)
        share = min(1.0, _LONGEST_STEP / max(*map(abs, steps), _SMALLEST_STEP))
        while share > _SMALLEST_STEP:
            there = [x + share * step for x, step in zip(at, steps, strict=True)]
            reached = _height(rows, there, start, precisions)
            if reached >= height:
                break
            share /= 2
        else:
            return at
        at, height = there, reached
        if max(map(abs, steps)) < _SMALLEST_STEP:
            return at
    return at


def _height(
    rows: Sequence[_Row],
    at: Sequence[float],
    start: Sequence[float],
    precisions: Sequence[float],
) -> float:
    """Return the logarithm of the posterior, but for a constant."""
    likelihood = sum(
        -row.successes * _softplus(-odds) - row.failures * _softplus(odds)
        for row in rows
        for odds in [row.log_odds(at)]
    )
    distances = zip(at, start, precisions, strict=True)
    return likelihood - sum((x - m) ** 2 * precision for x, m, precision in distances) / 2


def _slope(
    rows: Sequence[_Row],
    at: Sequence[float],
    start: Sequence[float],
    precisions: Sequence[float],
) -> list[float]:
    slope = [-(x - m) * by for x, m, by in zip(at, start, precisions, strict=True)]
    for row in rows:
        surplus = row.successes - (row.successes + row.failures) * _share(row.log_odds(at))
        for place, by in row.terms:
            slope[place] += by * surplus
    return slope


def _curvature(rows: Sequence[_Row], at: Sequence[float], precisions: Sequence[float]) -> _Matrix:
    size = len(at)
    curvature = [[precisions[i] if i == j else 0.0 for j in range(size)] for i in range(size)]
    for row in rows:
        share = _share(row.log_odds(at))
        information = (row.successes + row.failures) * share * (1 - share)
        for i, by in row.terms:
            for j, other in row.terms:
                curvature[i][j] += by * other * information
    return curvature


def _share(log_odds: float) -> float:
    if log_odds >= 0:
        return 1 / (1 + exp(-log_odds))
    return exp(log_odds) / (1 + exp(log_odds))


def _softplus(x: float) -> float:
    return max(x, 0.0) + log1p(exp(-abs(x)))


def _solve(matrix: _Matrix, right: Sequence[float]) -> list[float]:
    """Solve by Cholesky's factor, which the curvature of a proper posterior has."""
    factor = _cholesky(matrix)
    half: list[float] = []
    for i, row in enumerate(factor):
        half.append((right[i] - sum(row[j] * half[j] for j in range(i))) / row[i])
    solved = [0.0] * len(right)
    for i in reversed(range(len(right))):
        above = sum(factor[j][i] * solved[j] for j in range(i + 1, len(right)))
        solved[i] = (half[i] - above) / factor[i][i]
    return solved


def _inverse(matrix: _Matrix) -> _Matrix:
    size = len(matrix)
    return [_solve(matrix, [float(i == j) for j in range(size)]) for i in range(size)]


def _cholesky(matrix: _Matrix, *, is_rank_full: bool = True) -> _Matrix:
    """Return the lower factor; without full rank, what hangs on others alone adds nothing."""
    factor: _Matrix = []
    for i, row in enumerate(matrix):
        factor.append([0.0] * len(matrix))
        for j in range(i + 1):
            rest = row[j] - sum(factor[i][k] * factor[j][k] for k in range(j))
            if i != j:
                factor[i][j] = rest / factor[j][j] if factor[j][j] else 0.0
            elif 0 < rest < inf:
                factor[i][i] = sqrt(rest)
            elif is_rank_full:
                raise ValueError("of one quantity neither prior nor outcomes tell anything")
    return factor
