"""What is known of judges: calibrations, what they made of anchors, scores given before."""

from sqlalchemy import Index
from sqlmodel import Field

from deltawheel.infra.store.columns import (
    LongText,
    Moment,
    OptionalLongText,
    OptionalMoment,
    Row,
    table_of,
)

__all__ = ["ANCHOR_RUNS", "CALIBRATIONS", "KNOWN_SCORES"]


class CalibrationRow(Row, table=True):
    """How far two judgements of one text lie apart."""

    __tablename__ = "calibrations"
    __table_args__ = (Index(None, "wheel", "judge_revision", "rubric_digest", "measured_at"),)

    calibration_id: str = Field(primary_key=True)
    judge_revision: str
    rubric_digest: str
    measured_at: Moment
    payload: LongText


class AnchorRunRow(Row, table=True):
    """One judging of the anchors, and who has accepted its level."""

    __tablename__ = "anchor_runs"
    __table_args__ = (Index(None, "wheel", "judge_revision", "rubric_digest", "ran_at"),)

    run_id: str = Field(primary_key=True)
    judge_revision: str
    rubric_digest: str
    verdict: str
    ran_at: Moment
    accepted_at: OptionalMoment = None
    accepted_by: str | None = None
    reason: OptionalLongText = None
    payload: LongText


class KnownScoresRow(Row, table=True):
    """What a judge made of a text."""

    __tablename__ = "known_scores"

    scores_id: str = Field(primary_key=True)
    judge_revision: str
    scored_at: Moment
    payload: LongText


ANCHOR_RUNS = table_of(AnchorRunRow)
CALIBRATIONS = table_of(CalibrationRow)
KNOWN_SCORES = table_of(KnownScoresRow)
