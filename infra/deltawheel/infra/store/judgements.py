"""Stored judgements, for reading."""

from datetime import datetime
from typing import Any, Final

from sqlalchemy import Select, and_, exists, func, or_, select

from deltawheel.contracts.judgement import Judgement
from deltawheel.contracts.judging_states import JudgingStates
from deltawheel.infra.store.loop_tables import DEFERRALS
from deltawheel.infra.store.part import Part, same_prompt
from deltawheel.infra.store.tables import (
    DEAD_LETTERS,
    JUDGEMENTS,
    LETTER_MOVES,
    PROMPTS,
    SLOT_ENDS,
    TRACES,
)

__all__ = ["SqlJudgementShelf"]

_JUDGING: Final = "judging"
"""What the service is called in letters and deferrals."""


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

    def newest_judgements(self, limit: int) -> list[Judgement]:
        """Return the newest of all, newest first."""
        row = JUDGEMENTS.c
        newest = (
            select(row.payload)
            .where(row.wheel == self._wheel)
            .order_by(row.judged_at.desc(), row.trace_id)
            .limit(limit)
        )
        with self._database.reading() as connection:
            held = connection.scalars(newest).all()
        return [Judgement.model_validate_json(payload) for payload in held]

    def judging_states(self) -> JudgingStates:
        """Count traces that the judge owes something; only of open prompts are they looked at."""
        unjudged = self._unjudged().subquery()
        is_moved = exists().where(LETTER_MOVES.c.letter_id == DEAD_LETTERS.c.letter_id)
        counts = {
            "unjudged": select(func.count()).select_from(unjudged),
            "oldest_unjudged_at": select(func.min(unjudged.c.generated_at)),
            "retrying": select(func.count()).where(
                DEFERRALS.c.wheel == self._wheel, DEFERRALS.c.service == _JUDGING
            ),
            "dead": select(func.count()).where(
                DEAD_LETTERS.c.wheel == self._wheel,
                DEAD_LETTERS.c.service == _JUDGING,
                ~is_moved.correlate(DEAD_LETTERS),
            ),
        }
        named = [count.scalar_subquery().label(name) for name, count in counts.items()]
        with self._database.reading() as connection:
            row = connection.execute(select(*named)).mappings().one()
        return JudgingStates(**row)

    def _unjudged(self) -> Select[Any]:
        """Return when each trace was written whose slot has not ended in the current attempt."""
        ended = (
            exists()
            .where(
                same_prompt(SLOT_ENDS, TRACES),
                SLOT_ENDS.c.slot == TRACES.c.slot,
                SLOT_ENDS.c.attempt == PROMPTS.c.attempt,
            )
            .correlate(TRACES, PROMPTS)
        )
        return (
            select(TRACES.c.generated_at)
            .join(PROMPTS, same_prompt(TRACES, PROMPTS))
            .where(PROMPTS.c.wheel == self._wheel, PROMPTS.c.closed_at.is_(None), ~ended)
        )
