"""Scores that a judge has given a text before: what is known need not be asked again."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from pydantic import Field

from deltawheel.contracts.ids import content_id, digest_of
from deltawheel.contracts.judgement import Score
from deltawheel.contracts.record import Record, UtcTime
from deltawheel.contracts.trace import Trace

__all__ = ["KnownScores", "ScoreMemory", "scores_id"]


class KnownScores(Record):
    """What one judge, at one revision, made of one text as an answer to one prompt."""

    scores_id: str = Field(description="Of prompt, text, judge and rubric; see `scores_id`.")
    judge: str
    judge_revision: str
    scores: Mapping[str, Score] = Field(min_length=1)
    scored_at: UtcTime


def scores_id(trace: Trace, *, judge: str, judge_revision: str, rubric_digest: str) -> str:
    """Name what a judge makes of a trace's text, whoever wrote it and in whatever round.

    Reasoning and answer count apart: the judge is shown them so. The judge's name counts too: two
    models behind endpoints may have the same words for their revision.
    """
    texts = digest_of(trace.reasoning), digest_of(trace.answer)
    return content_id("scores", 1, trace.prompt_id, *texts, judge, judge_revision, rubric_digest)


class ScoreMemory(Protocol):
    """Known scores, by id; the first writer of one wins."""

    def known_scores(self, ids: Sequence[str]) -> dict[str, KnownScores]:
        """Return those that are known of these."""
        ...

    def add_known_scores(self, known: Sequence[KnownScores]) -> list[KnownScores]:
        """Store some; return what the store holds under their ids, in the order given."""
        ...
