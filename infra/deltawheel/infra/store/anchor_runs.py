"""Runs of the anchors, and what they say of their judge."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, Select, and_, func, not_, or_, select, update

from deltawheel.contracts.anchor_runs import AnchorEntry, AnchorRun, AnchorVerdict, JudgeDrift
from deltawheel.infra.store.columns import is_key
from deltawheel.infra.store.judge_tables import ANCHOR_RUNS
from deltawheel.infra.store.part import Part, first_writers

__all__ = ["SqlAnchorRuns"]

_RUN = ANCHOR_RUNS.c
_IS_SETTLED = or_(_RUN.verdict != AnchorVerdict.DRIFTED.value, _RUN.accepted_at.is_not(None))
"""Whether a run leaves nothing to be done about its judge."""


class SqlAnchorRuns(Part):
    """The `AnchorRuns` port."""

    def add_anchor_run(self, run: AnchorRun) -> AnchorRun:
        """Store one; return what the store holds under its id."""
        row = {
            "wheel": self._wheel,
            "run_id": run.run_id,
            "judge_revision": run.judge_revision,
            "rubric_digest": run.rubric_digest,
            "verdict": run.verdict.value,
            "ran_at": run.ran_at,
            "payload": run.model_dump_json(),
        }
        with self._database.writing() as connection:
            return first_writers(connection, ANCHOR_RUNS, [row], [run])[0]

    def anchor_runs(self, limit: int) -> Sequence[AnchorEntry]:
        """Return the newest runs of all judges, newest first."""
        newest = _newest_first().where(_RUN.wheel == self._wheel).limit(limit)
        with self._database.reading() as connection:
            return [_entry(row) for row in connection.execute(newest).mappings()]

    def newest_anchor_run(self, judge_revision: str, rubric_digest: str) -> AnchorEntry | None:
        """Return the last run of this judge under this rubric."""
        return self._first(self._is_of(judge_revision, rubric_digest))

    def anchor_baseline(self, judge_revision: str, rubric_digest: str) -> AnchorRun | None:
        """Return what runs of this judge are compared with: the newest baseline or accepted run."""
        is_level = or_(_RUN.verdict == AnchorVerdict.BASELINE.value, _RUN.accepted_at.is_not(None))
        entry = self._first(and_(self._is_of(judge_revision, rubric_digest), is_level))
        return entry.run if entry else None

    def accept_anchor_run(
        self, run_id: str, *, by: str, reason: str, at: datetime
    ) -> AnchorEntry | None:
        """Make a run the baseline; None if it is not there, or somebody has done so already."""
        if not is_key(run_id):
            return None
        accept = (
            update(ANCHOR_RUNS)
            .where(_RUN.wheel == self._wheel, _RUN.run_id == run_id, _RUN.accepted_at.is_(None))
            .values(accepted_at=at, accepted_by=by, reason=reason)
            .returning(*_RUN)
        )
        with self._database.writing() as connection:
            row = connection.execute(accept).mappings().first()
        return None if row is None else _entry(row)

    def judge_drift(self, judge_revision: str, rubric_digest: str) -> JudgeDrift | None:
        """Return this judge's newest drift that nobody has accepted and no steady run has ended."""
        is_its = self._is_of(judge_revision, rubric_digest)
        newest = self._first(and_(is_its, not_(_IS_SETTLED)))
        if newest is None or self._has_ended(newest.run, is_its):
            return None
        is_before = and_(is_its, _RUN.ran_at <= newest.run.ran_at)
        with self._database.reading() as connection:
            good_at = connection.scalar(select(func.max(_RUN.ran_at)).where(is_before, _IS_SETTLED))
            bad = select(func.min(_RUN.ran_at)).where(is_before)
            if good_at is not None:
                bad = bad.where(_RUN.ran_at > good_at)
            bad_at = connection.scalar(bad)
        return JudgeDrift(
            run=newest.run, last_good_at=good_at, first_bad_at=bad_at or newest.run.ran_at
        )

    def _has_ended(self, drift: AnchorRun, is_its: ColumnElement[bool]) -> bool:
        """Tell whether a later run ends the drift: accepted, or steady against its baseline.

        A baseline of other texts ends nothing, nor what is steady against that: both may be of
        the judge as it is since it has moved.
        """
        is_later = and_(is_its, _RUN.ran_at > drift.ran_at)
        if self._first(and_(is_later, _RUN.accepted_at.is_not(None))):
            return True
        is_steady = and_(is_later, _RUN.verdict == AnchorVerdict.STEADY.value)
        first = select(ANCHOR_RUNS).where(is_steady).order_by(_RUN.ran_at, _RUN.run_id).limit(1)
        with self._database.reading() as connection:
            row = connection.execute(first).mappings().first()
        return row is not None and _entry(row).run.baseline_id == drift.baseline_id

    def _is_of(self, judge_revision: str, rubric_digest: str) -> ColumnElement[bool]:
        return and_(
            _RUN.wheel == self._wheel,
            _RUN.judge_revision == judge_revision,
            _RUN.rubric_digest == rubric_digest,
        )

    def _first(self, where: ColumnElement[bool]) -> AnchorEntry | None:
        with self._database.reading() as connection:
            row = connection.execute(_newest_first().where(where).limit(1)).mappings().first()
        return None if row is None else _entry(row)


def _newest_first() -> Select[Any]:
    return select(ANCHOR_RUNS).order_by(_RUN.ran_at.desc(), _RUN.run_id)


def _entry(row: RowMapping) -> AnchorEntry:
    return AnchorEntry(
        run=AnchorRun.model_validate_json(row["payload"]),
        accepted_at=row["accepted_at"],
        accepted_by=row["accepted_by"],
        reason=row["reason"],
    )
