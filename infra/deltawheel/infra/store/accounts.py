"""Counting: how far the wheel is, and from which rows the audit derives what became of each prompt.

Each answer is one statement over indexes, so that it shows one moment on either database and
reads no payload.
"""

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from sqlalchemy import ColumnElement, Row, ScalarSelect, Select, Table, func, select

from deltawheel.contracts.outcome import Outcome, UnpairedCause
from deltawheel.contracts.prompt import PromptKey
from deltawheel.contracts.store import Evidence, Progress
from deltawheel.infra.store.part import Part, same_prompt
from deltawheel.infra.store.rows import EXPIRED, FAILED, FIRST_ATTEMPT, JUDGED
from deltawheel.infra.store.tables import (
    ASSIGNMENTS,
    CLOSINGS,
    DEAD_LETTERS,
    JUDGEMENTS,
    PAIRS,
    PROMPT_FAILURES,
    PROMPTS,
    QUARANTINE,
    QUARANTINE_REASONS,
    SLOT_ENDS,
    STANDSTILLS,
    TRACES,
)

__all__ = ["LedgerAccounts"]

_ROWS_AT_ONCE = 1_000
_COUNTED_WHOLE = tuple(outcome for outcome in Outcome if outcome is not Outcome.UNPAIRED)


class LedgerAccounts(Part):
    """Progress and evidence."""

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

    def evidence(self) -> Iterator[Evidence]:
        """Yield the evidence of every prompt, the oldest first."""
        with self._database.reading() as connection:
            streaming = connection.execution_options(yield_per=_ROWS_AT_ONCE)
            with streaming.execute(self._evidence_rows()) as rows:
                for key, same in groupby(rows, lambda row: PromptKey(row.prompt_id, row.round)):
                    yield _evidence(key, list(same))

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
            tokens.scalar_subquery().label("completion_tokens"),
            oldest.scalar_subquery().label("oldest_open_at"),
            *outcomes,
            *unpaired,
        )

    def _num(self, table: Table, *where: ColumnElement[bool]) -> ScalarSelect[int]:
        rows = select(func.count()).select_from(table).where(table.c.wheel == self._wheel, *where)
        return rows.scalar_subquery()

    def _num_current(self, *where: ColumnElement[bool]) -> ScalarSelect[int]:
        """Count prompts whose highest attempt ended so."""
        later = CLOSINGS.alias("later")
        superseded = (
            select(later.c.attempt)
            .where(
                later.c.prompt_id == CLOSINGS.c.prompt_id,
                later.c.round == CLOSINGS.c.round,
                later.c.attempt > CLOSINGS.c.attempt,
            )
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

    def _evidence_rows(self) -> Select[Any]:
        """Select a row for each prompt and closing, with the counts of the prompt's rows."""
        num_slots = select(ASSIGNMENTS.c.num_slots).where(same_prompt(ASSIGNMENTS, PROMPTS))
        first = SLOT_ENDS.c.attempt == FIRST_ATTEMPT
        return (
            select(
                PROMPTS.c.prompt_id,
                PROMPTS.c.round,
                PROMPTS.c.accepted_at,
                num_slots.scalar_subquery().label("num_slots"),
                _num_of_prompt(TRACES).label("traces"),
                _num_of_prompt(JUDGEMENTS).label("judgements"),
                _num_of_prompt(SLOT_ENDS, first).label("ended_slots"),
                _num_of_prompt(SLOT_ENDS, first, SLOT_ENDS.c.kind == JUDGED).label("judged_slots"),
                _num_of_prompt(
                    SLOT_ENDS, first, SLOT_ENDS.c.kind == EXPIRED, ~_stood_still()
                ).label("lost_slots"),
                _num_of_prompt(PAIRS).label("pairs"),
                _num_of_prompt(QUARANTINE).label("quarantined"),
                _num_of_prompt(PROMPT_FAILURES).label("prompt_failures"),
                CLOSINGS.c.outcome,
            )
            .outerjoin(CLOSINGS, same_prompt(CLOSINGS, PROMPTS))
            .where(PROMPTS.c.wheel == self._wheel)
            .order_by(
                PROMPTS.c.accepted_at, PROMPTS.c.prompt_id, PROMPTS.c.round, CLOSINGS.c.attempt
            )
        )


def _num_of_prompt(table: Table, *where: ColumnElement[bool]) -> ScalarSelect[int]:
    rows = select(func.count()).select_from(table).where(same_prompt(table, PROMPTS), *where)
    return rows.correlate(PROMPTS).scalar_subquery()


def _stood_still() -> ColumnElement[bool]:
    """Return the condition that the wheel stood still between a prompt's acceptance and its end."""
    span = STANDSTILLS.c
    return (
        select(span.began_at)
        .where(
            span.wheel == PROMPTS.c.wheel,
            span.began_at < SLOT_ENDS.c.ended_at,
            span.ended_at > PROMPTS.c.accepted_at,
        )
        .correlate(PROMPTS, SLOT_ENDS)
        .exists()
    )


def _evidence(key: PromptKey, rows: list[Row[Any]]) -> Evidence:
    counts = rows[0]
    return Evidence(
        key=key,
        accepted_at=counts.accepted_at,
        num_slots=counts.num_slots,
        traces=counts.traces,
        judgements=counts.judgements,
        ended_slots=counts.ended_slots,
        judged_slots=counts.judged_slots,
        lost_slots=counts.lost_slots,
        pairs=counts.pairs,
        quarantined=counts.quarantined,
        prompt_failures=counts.prompt_failures,
        closings=[Outcome(row.outcome) for row in rows if row.outcome is not None],
    )
