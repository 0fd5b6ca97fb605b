"""Calibrations of judges."""

from sqlalchemy import select

from deltawheel.contracts.calibration import Calibration
from deltawheel.infra.store.judge_tables import CALIBRATIONS
from deltawheel.infra.store.part import Part, first_writers

__all__ = ["SqlCalibrations"]


class SqlCalibrations(Part):
    """The `Calibrations` port."""

    def add_calibration(self, calibration: Calibration) -> Calibration:
        """Store one; return what the store holds under its id."""
        row = {
            "wheel": self._wheel,
            "calibration_id": calibration.calibration_id,
            "judge_revision": calibration.judge_revision,
            "rubric_digest": calibration.rubric_digest,
            "measured_at": calibration.measured_at,
            "payload": calibration.model_dump_json(),
        }
        with self._database.writing() as connection:
            return first_writers(connection, CALIBRATIONS, [row], [calibration])[0]

    def newest_calibration(self, judge_revision: str, rubric_digest: str) -> Calibration | None:
        """Return the last one that was measured of this judge under this rubric."""
        row = CALIBRATIONS.c
        newest = (
            select(row.payload)
            .where(
                row.wheel == self._wheel,
                row.judge_revision == judge_revision,
                row.rubric_digest == rubric_digest,
            )
            .order_by(row.measured_at.desc(), row.calibration_id)
            .limit(1)
        )
        with self._database.reading() as connection:
            held = connection.scalar(newest)
        return None if held is None else Calibration.model_validate_json(held)
