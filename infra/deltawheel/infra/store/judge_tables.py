"""What is known of judges: their calibrations."""

from sqlalchemy import Index
from sqlmodel import Field

from deltawheel.infra.store.columns import LongText, Moment, Row, table_of

__all__ = ["CALIBRATIONS"]


class CalibrationRow(Row, table=True):
    """How far two judgements of one text lie apart."""

    __tablename__ = "calibrations"
    __table_args__ = (Index(None, "wheel", "judge_revision", "rubric_digest", "measured_at"),)

    calibration_id: str = Field(primary_key=True)
    judge_revision: str
    rubric_digest: str
    measured_at: Moment
    payload: LongText


CALIBRATIONS = table_of(CalibrationRow)
