"""Anchors judged again: what a judge makes of the same texts later on, and when it has moved."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from math import sqrt
from statistics import fmean
from typing import Final, Protocol, Self

from pydantic import Field

from deltawheel.contracts.calibration import Calibration
from deltawheel.contracts.ids import content_id
from deltawheel.contracts.record import Count, Record, UtcTime

__all__ = ["AnchorEntry", "AnchorRun", "AnchorRuns", "AnchorVerdict", "JudgeDrift"]

_Z: Final = 5.0
"""Standard errors that a mean may move by without its judge having moved.

Simulated with a judge of unknown spread, 42 texts, five dimensions and a run every six hours: three
years in a hundred have a false alarm (at four: 40), for an unlucky baseline stays one for all runs.
A judge whose single scores spread by 0.4 points is found at the first run in nine cases of ten once
it has moved by 0.45.
"""


class AnchorVerdict(StrEnum):
    """What a run says of the judge."""

    BASELINE = "baseline"
    STEADY = "steady"
    DRIFTED = "drifted"


class AnchorRun(Record):
    """One judging of the anchor texts, compared text by text with the baseline.

    `scores` are means over the repeats, by text and dimension. A text's key holds a digest of it,
    so that only the same texts are ever compared.
    """

    judge: str
    judge_revision: str
    rubric_digest: str
    scores: Mapping[str, Mapping[str, float]] = Field(min_length=1)
    num_repeats: Count = 1
    num_left_out: int = Field(
        default=0, ge=0, description="Texts that the judge refused or had no usable answer for."
    )
    baseline_id: str | None = Field(default=None, description="Compared with; null: a baseline.")
    shifts: Mapping[str, float] = Field(
        default={}, description="By dimension: mean rise over the texts since the baseline, points."
    )
    limits: Mapping[str, float] = Field(
        default={}, description="By dimension: how far the mean may move, points."
    )
    ran_at: UtcTime

    @property
    def run_id(self) -> str:
        """One at a time of each judge under each rubric."""
        when = self.ran_at.isoformat()
        return content_id("anchor-run", 1, self.judge_revision, self.rubric_digest, when)

    @property
    def drifted(self) -> dict[str, float]:
        """The shifts that are beyond their limit."""
        return {name: it for name, it in self.shifts.items() if abs(it) > self.limits[name]}

    @property
    def verdict(self) -> AnchorVerdict:
        """What it says of the judge."""
        if self.baseline_id is None:
            return AnchorVerdict.BASELINE
        return AnchorVerdict.DRIFTED if self.drifted else AnchorVerdict.STEADY

    def compared(
        self, baseline: "AnchorRun", *, limit: float, calibration: Calibration | None
    ) -> Self:
        """Return it with its shifts since the baseline, or as it is if they share no text.

        A mean may move by `limit` points, or by five of its standard errors where test–retest says
        that these are more: with few texts, or a judge that wavers.
        """
        shared = self.scores.keys() & baseline.scores.keys()
        if not shared:
            return self
        repeats = 1 / self.num_repeats + 1 / baseline.num_repeats
        known = calibration.variances if calibration else {}
        names = list(next(iter(self.scores.values())))
        shifts = {
            name: fmean(self.scores[key][name] - baseline.scores[key][name] for key in shared)
            for name in names
        }
        limits = {
            name: max(limit, _Z * sqrt(known.get(name, 0.0) * repeats / len(shared)))
            for name in names
        }
        changes = {"baseline_id": baseline.run_id, "shifts": shifts, "limits": limits}
        return self.model_copy(update=changes)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorEntry:
    """A stored run and, where an operator has taken its level as the new baseline, who and why."""

    run: AnchorRun
    accepted_at: datetime | None = None
    accepted_by: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeDrift:
    """A judge that has moved, and between which runs: what it judged since the first is suspect.

    Args:
        run: The newest run that has found it.
        last_good_at: When anchors were last as they should be.
        first_bad_at: When they were first found moved.
    """

    run: AnchorRun
    last_good_at: datetime | None
    first_bad_at: datetime

    @property
    def sentence(self) -> str:
        """What has happened, which judgements are suspect, and what to do."""
        moved = ", ".join(f"{name} by {shift:+.2f}" for name, shift in self.run.drifted.items())
        since = self.last_good_at.isoformat() if self.last_good_at else "the beginning"
        return (
            f"judge {self.run.judge} at {self.run.judge_revision} has drifted: its mean over "
            f"the anchors has moved on {moved} points, found first at "
            f"{self.first_bad_at.isoformat()}; all judgements since {since} are suspect. "
            "Selection is frozen until the anchors score as before: put the judge right and run "
            "`deltawheel judge anchors --run`, or take the new level with `deltawheel judge "
            "anchors --accept`"
        )


class AnchorRuns(Protocol):
    """Stored runs of the anchors."""

    def add_anchor_run(self, run: AnchorRun) -> AnchorRun:
        """Store one; return what the store holds under its id."""
        ...

    def anchor_runs(self, limit: int) -> Sequence[AnchorEntry]:
        """Return the newest runs of all judges, newest first."""
        ...

    def newest_anchor_run(self, judge_revision: str, rubric_digest: str) -> AnchorEntry | None:
        """Return the last run of this judge under this rubric."""
        ...

    def anchor_baseline(self, judge_revision: str, rubric_digest: str) -> AnchorRun | None:
        """Return what runs of this judge are compared with: the newest baseline or accepted run."""
        ...

    def accept_anchor_run(
        self, run_id: str, *, by: str, reason: str, at: datetime
    ) -> AnchorEntry | None:
        """Make a run the baseline; None if it is not there, or somebody has done so already."""
        ...

    def judge_drift(self, judge_revision: str, rubric_digest: str) -> JudgeDrift | None:
        """Return this judge's newest drift that nobody has accepted and no steady run has ended.

        A later baseline ends none: other texts say nothing of where the judge was.
        """
        ...
