"""How far judging is with the traces that there are, and whether its judge tells them apart."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from statistics import pstdev

from deltawheel.contracts.judgement import Judgement

__all__ = ["JudgingStates", "score_spreads"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgingStates:
    """Counts of traces that the judge has not judged; how many it has, `Progress` says.

    Args:
        unjudged: Of open prompts, in a slot that has not ended.
        retrying: Deferred, because the judge fails at them while it does not at others.
        dead: Given up by judging, and neither replayed nor dropped since.
        oldest_unjudged_at: When the oldest of the unjudged was written.
    """

    unjudged: int
    retrying: int
    dead: int
    oldest_unjudged_at: datetime | None

    @property
    def pending(self) -> int:
        """Unjudged ones that wait for their turn, or for a judge that is down for all."""
        return max(0, self.unjudged - self.retrying)

    @property
    def counts(self) -> dict[str, int]:
        """The counts by state."""
        return {
            "pending": self.pending,
            "retrying": self.retrying,
            "dead": self.dead,
        }


def score_spreads(judgements: Iterable[Judgement], *, fewest: int = 50) -> dict[str, float]:
    """Return by dimension how far the scores of traces lie apart, as a standard deviation.

    Of the first judgement's judge and rubric alone, and nothing where these judged fewer than
    `fewest`. All of them 0 means a judge that says the same of everything: whatever it judges ties.
    """
    means: defaultdict[str, list[float]] = defaultdict(list)
    kinds: list[tuple[str, str]] = []
    for judgement in judgements:
        kinds.append((judgement.judge_revision, judgement.rubric_digest))
        if kinds[-1] == kinds[0]:
            for name, score in judgement.scores.items():
                means[name].append(score.mean)
    return {name: pstdev(it) for name, it in means.items() if len(it) >= fewest}
