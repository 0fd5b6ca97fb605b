"""Counting: how far the wheel is.

Each answer is one statement over indexes, so that it shows one moment on either database and
reads no payload.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, ScalarSelect, Select, Table, exists, func, select

from deltawheel.contracts.outcome import Outcome, UnpairedCause
from deltawheel.contracts.store import MemberTokens, Progress
from deltawheel.infra.store.part import Part, same_prompt
from deltawheel.infra.store.rows import EXPIRED, FAILED
from deltawheel.infra.store.tables import (
    ASSIGNMENTS,
    CLOSINGS,
    DEAD_LETTERS,
    JUDGEMENTS,
    LETTER_MOVES,
    PAIRS,
    PROMPTS,
    QUARANTINE_REASONS,
    SLOT_ENDS,
    TRACES,
    TRANSITIONS,
)

__all__ = ["LedgerAccounts"]

_COUNTED_WHOLE = tuple(outcome for outcome in Outcome if outcome is not Outcome.UNPAIRED)


class LedgerAccounts(Part):
    """Progress, and what it has taken."""

    def progress(self) -> Progress:
        """Return the counts, all of one moment."""
        with self._database.reading() as connection:
            row = connection.execute(self._counts()).mappings().one()
            reasons = connection.execute(self._reasons()).all()
        counts = dict(row)
        unpaired = {cause: counts.pop(cause.value) for cause in UnpairedCause}
        counts[Outcome.UNPAIRED.value] = sum(unpaired.values())
        outcomes = {outcome: counts.pop(outcome.value) for outcome in Outcome}
        return Progress(
            **counts,
            outcomes={outcome: number for outcome, number in outcomes.items() if number},
            unpaired={cause: number for cause, number in unpaired.items() if number},
            quarantined={expectation: number for expectation, number in reasons},
        )

    def member_tokens(self, *, since: datetime | None = None) -> list[MemberTokens]:
        """Return what each generator's traces have taken, or those written from a time on.

        From an index alone: a million traces take 0.7 s of SQLite, those of a day their share.
        """
        traces = TRACES.c
        sums = (
            select(
                traces.generator,
                func.count().label("num_traces"),
                func.sum(traces.prompt_tokens).label("prompt_tokens"),
                func.sum(traces.completion_tokens).label("completion_tokens"),
            )
            .where(traces.wheel == self._wheel)
            .group_by(traces.generator)
            .order_by(traces.generator)
        )
        if since is not None:
            sums = sums.where(traces.generated_at >= since)
        with self._database.reading() as connection:
            rows = connection.execute(sums).mappings().all()
        return [MemberTokens(**row) for row in rows]

    def _counts(self) -> Select[Any]:
        oldest = select(func.min(PROMPTS.c.accepted_at)).where(
            PROMPTS.c.wheel == self._wheel, PROMPTS.c.closed_at.is_(None)
        )
        tokens = select(func.coalesce(func.sum(TRACES.c.completion_tokens), 0)).where(
            TRACES.c.wheel == self._wheel
        )
        ends = CLOSINGS.c
        outcomes = [
            self._num_current(ends.outcome == outcome.value).label(outcome.value)
            for outcome in _COUNTED_WHOLE
        ]
        is_unpaired = ends.outcome == Outcome.UNPAIRED.value
        unpaired = [
            self._num_current(is_unpaired, ends.cause == cause.value).label(cause.value)
            for cause in UnpairedCause
        ]
        return select(
            self._num(PROMPTS).label("prompts"),
            self._num(ASSIGNMENTS).label("assigned"),
            self._num(TRACES).label("traces"),
            self._num(JUDGEMENTS).label("judgements"),
            self._num(SLOT_ENDS, SLOT_ENDS.c.kind.in_((FAILED, EXPIRED))).label("slot_failures"),
            self._num(PAIRS).label("pairs"),
            self._num(DEAD_LETTERS).label("dead_letters"),
            self._num(DEAD_LETTERS, ~_is_moved()).label("unmoved_letters"),
            tokens.scalar_subquery().label("completion_tokens"),
            oldest.scalar_subquery().label("oldest_open_at"),
            *outcomes,
            *unpaired,
        )

    def _num(self, table: Table, *where: ColumnElement[bool]) -> ScalarSelect[int]:
        rows = select(func.count()).select_from(table).where(table.c.wheel == self._wheel, *where)
        return rows.scalar_subquery()

    def _num_current(self, *where: ColumnElement[bool]) -> ScalarSelect[int]:
        """Count prompts whose current attempt ended so: no later one has been opened."""
        superseded = (
            select(TRANSITIONS.c.attempt)
            .where(same_prompt(TRANSITIONS, CLOSINGS), TRANSITIONS.c.attempt > CLOSINGS.c.attempt)
            .correlate(CLOSINGS)
            .exists()
        )
        return self._num(CLOSINGS, *where, ~superseded)

    def _reasons(self) -> Select[Any]:
        expectation = QUARANTINE_REASONS.c.expectation
        return (
            select(expectation, func.count())
            .where(QUARANTINE_REASONS.c.wheel == self._wheel)
            .group_by(expectation)
        )


def _is_moved() -> ColumnElement[bool]:
    moved = exists().where(LETTER_MOVES.c.letter_id == DEAD_LETTERS.c.letter_id)
    return moved.correlate(DEAD_LETTERS)
