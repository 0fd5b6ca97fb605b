"""Agreement of a jury: from stored opinions to alphas."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from statistics import fmean

from deltawheel.contracts.judgement import Judgement, Opinion

__all__ = ["Panel", "higher", "panels"]


@dataclass(slots=True, kw_only=True)
class Panel:
    """The same judges, at the same revisions and under the same rubric, and what they found.

    Another revision of one of them, or another rubric, is another panel: what they agree on would
    be of two kinds.
    """

    rubric_digest: str
    judges: tuple[str, ...]
    revisions: tuple[str, ...]
    opinions: list[tuple[Opinion, ...]] = field(default_factory=list)

    @property
    def dimensions(self) -> list[str]:
        """Everything that somebody scored, in the rubric's order."""
        scored = (it.scores for row in self.opinions for it in row)
        return list(dict.fromkeys(name for scores in scored for name in scores))

    @property
    def num_missing(self) -> int:
        """How many opinions were never given: agreement is silent about these traces."""
        return sum(1 for row in self.opinions for it in row if not it.scores)

    def scores(self, dimension: str) -> list[list[float]]:
        """Return each trace's scores on a dimension, of the judges that have given one."""
        return [_means(row, dimension) for row in self.opinions]

    def pairs(self) -> list[tuple[int, int]]:
        """Return every two of the judges, by their places."""
        return list(combinations(range(len(self.judges)), 2))

    def both(self, one: int, other: int, dimension: str) -> list[list[float]]:
        """Return the scores of two judges, of the traces that both have scored."""
        rows = [_means((row[one], row[other]), dimension) for row in self.opinions]
        return [row for row in rows if len(row) == 2]


def _means(opinions: Iterable[Opinion], dimension: str) -> list[float]:
    return [it.scores[dimension].mean for it in opinions if dimension in it.scores]


def higher(both: Sequence[Sequence[float]]) -> float:
    """Return by how many points the first of two judges scores higher, on average."""
    return fmean(first - second for first, second in both) if both else 0.0


def panels(judgements: Iterable[Judgement]) -> list[Panel]:
    """Return the panels that have sat, in the order in which they are met."""
    found: defaultdict[tuple[object, ...], list[Judgement]] = defaultdict(list)
    for judgement in judgements:
        if judgement.opinions:
            revisions = tuple((it.judge, it.judge_revision) for it in judgement.opinions)
            found[judgement.rubric_digest, revisions].append(judgement)
    return [
        Panel(
            rubric_digest=same[0].rubric_digest,
            judges=tuple(it.judge for it in same[0].opinions),
            revisions=tuple(it.judge_revision for it in same[0].opinions),
            opinions=[judgement.opinions for judgement in same],
        )
        for same in found.values()
    ]
