"""Stored judgements, for reading."""

from datetime import datetime

from sqlalchemy import and_, or_, select

from deltawheel.contracts.judgement import Judgement
from deltawheel.infra.store.part import Part
from deltawheel.infra.store.tables import JUDGEMENTS

__all__ = ["SqlJudgementShelf"]


class SqlJudgementShelf(Part):
    """The `JudgementShelf` port."""

    def jury_judgements(
        self, *, limit: int, before: Judgement | None = None, since: datetime | None = None
    ) -> list[Judgement]:
        """Return a page of those that keep what several judges found, newest first."""
        row = JUDGEMENTS.c
        page = select(row.payload).where(row.wheel == self._wheel, row.num_opinions > 0)
        if since is not None:
            page = page.where(row.judged_at >= since)
        if before is not None:
            at, trace_id = before.judged_at, before.trace_id
            is_same_moment = and_(row.judged_at == at, row.trace_id > trace_id)
            page = page.where(row.judged_at <= at, or_(row.judged_at < at, is_same_moment))
        newest = page.order_by(row.judged_at.desc(), row.trace_id).limit(limit)
        with self._database.reading() as connection:
            held = connection.scalars(newest).all()
        return [Judgement.model_validate_json(payload) for payload in held]
