"""Calibrations: the standard error of a judge's scores, found by judging the same texts again."""

from collections.abc import Collection, Mapping, Sequence
from math import sqrt
from typing import Annotated, Protocol, Self

from pydantic import Field

from deltawheel.contracts.ids import content_id
from deltawheel.contracts.record import Count, Record, UtcTime
from deltawheel.contracts.retest import pooled_variance

__all__ = ["Calibration", "Calibrations"]

_Variance = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Calibration(Record):
    """How far two judgements of one text lie apart, for one revision of a judge and one rubric.

    The spread of a score's token probabilities is not its standard error: it says how torn the
    judge is, and not how it would decide if asked again.
    """

    judge: str
    judge_revision: str
    rubric_digest: str
    variances: Mapping[str, _Variance] = Field(
        min_length=1,
        description="By dimension: variance of one score within its text, pooled over texts.",
    )
    num_texts: Count
    num_judgements: Count
    measured_at: UtcTime

    @classmethod
    def measured(
        cls,
        scores: Collection[Sequence[Mapping[str, float]]],
        *,
        judge: str,
        judge_revision: str,
        rubric_digest: str,
        at: UtcTime,
    ) -> Self | None:
        """Return what repeated judgements tell, or None where no text was judged twice.

        Args:
            scores: For each text, its scores by dimension, as often as it was judged.
            judge: Whose they are.
            judge_revision: Of the judge.
            rubric_digest: Under which it judged.
            at: When.
        """
        repeated = [each for each in scores if len(each) > 1]
        if not repeated:
            return None
        return cls(
            judge=judge,
            judge_revision=judge_revision,
            rubric_digest=rubric_digest,
            variances={
                name: pooled_variance([[one[name] for one in each] for each in repeated])
                for name in repeated[0][0]
            },
            num_texts=len(repeated),
            num_judgements=sum(map(len, repeated)),
            measured_at=at,
        )

    @property
    def calibration_id(self) -> str:
        """One at a time of each judge under each rubric."""
        when = self.measured_at.isoformat()
        return content_id("calibration", 1, self.judge_revision, self.rubric_digest, when)

    @property
    def degrees_of_freedom(self) -> int:
        """Judgements less texts, whose means they are measured from."""
        return self.num_judgements - self.num_texts

    def stderr(self, dimension: str) -> float:
        """Return the standard error of one score, in points."""
        return sqrt(self.variances[dimension])


class Calibrations(Protocol):
    """Stored calibrations."""

    def add_calibration(self, calibration: Calibration) -> Calibration:
        """Store one; return what the store holds under its id."""
        ...

    def newest_calibration(self, judge_revision: str, rubric_digest: str) -> Calibration | None:
        """Return the last one that was measured of this judge under this rubric."""
        ...
