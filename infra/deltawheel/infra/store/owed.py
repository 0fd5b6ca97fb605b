"""What the wheel still owes: events whose effect is missing.

Everything starts from the open prompts, which have an index of their own: closed ones, however
many, cost nothing here.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    ScalarSelect,
    Select,
    and_,
    exists,
    func,
    or_,
    select,
)

from deltawheel.contracts.assignment import Assignment
from deltawheel.contracts.generator import Generator
from deltawheel.contracts.judgement import PromptFailed
from deltawheel.contracts.prompt import Prompt, PromptKey
from deltawheel.contracts.record import Record
from deltawheel.contracts.trace import Trace
from deltawheel.infra.store.part import Part, among, chunks, same_attempt, same_prompt
from deltawheel.infra.store.slot_ends import select_slot_ends, slot_end_of
from deltawheel.infra.store.tables import (
    ASSIGNMENTS,
    CLOSINGS,
    PROMPT_FAILURES,
    PROMPTS,
    SLOT_ENDS,
    TRACES,
)

__all__ = ["LedgerDebts", "ended_slots", "num_ended"]

_Aged = tuple[datetime, str, Record]
"""A record with what puts the oldest first: when its prompt was accepted, then its id."""
_Oldest = Callable[[Select[Any]], Sequence[Any]]
"""Runs a query for the rows of the oldest prompts."""


class LedgerDebts(Part):
    """Owed events."""

    def owed(self, *, before: datetime, limit: int, since: datetime | None = None) -> list[Record]:
        """Return events older than `before` whose effect is missing (ARCHITECTURE §4.3).

        Those of the oldest prompts come first, from those on that were accepted at `since`. A
        prompt is as old as its acceptance, a trace as its generation, a group as its last slot's
        end.
        """
        with self._database.reading() as connection:

            def oldest(owed: Select[Any]) -> Sequence[Any]:
                if since is not None:
                    owed = owed.where(PROMPTS.c.accepted_at >= since)
                ordered = owed.order_by(PROMPTS.c.accepted_at, PROMPTS.c.prompt_id, PROMPTS.c.round)
                return connection.execute(ordered.limit(limit)).all()

            owed = [
                *self._prompts(oldest, before),
                *self._traces(oldest, before),
                *self._ended_groups(connection, oldest, before),
                *self._failed_prompts(oldest, before),
            ]
        owed.sort(key=lambda aged: aged[:2])
        return [record for _, _, record in owed[:limit]]

    def has_open_slots(self, generator: Generator) -> bool:
        """Tell whether a prompt that is not closed was dealt to this revision.

        Plans in which the revision does not stand at all are not even read.
        """
        plans = (
            select(ASSIGNMENTS.c.payload)
            .join(PROMPTS, same_prompt(ASSIGNMENTS, PROMPTS))
            .where(self._is_open())
            .where(ASSIGNMENTS.c.payload.contains(generator.revision, autoescape=True))
        )
        with self._database.reading() as connection:
            return any(
                slot.generator.reference == generator.reference
                for plan in connection.scalars(plans)
                for slot in Assignment.model_validate_json(plan).slots
            )

    def _is_open(self) -> ColumnElement[bool]:
        closed = exists().where(same_attempt(CLOSINGS, PROMPTS)).correlate(PROMPTS)
        return and_(PROMPTS.c.wheel == self._wheel, PROMPTS.c.closed_at.is_(None), ~closed)

    def _prompts(self, oldest: _Oldest, before: datetime) -> Iterator[_Aged]:
        """Yield prompts that nobody was asked, or that have a slot without trace and end."""
        failed = exists().where(same_attempt(PROMPT_FAILURES, PROMPTS)).correlate(PROMPTS)
        unfilled = _num_begun() < ASSIGNMENTS.c.num_slots
        nobody = and_(ASSIGNMENTS.c.prompt_id.is_(None), ~failed)
        owed = (
            select(PROMPTS.c.accepted_at, PROMPTS.c.prompt_id, PROMPTS.c.payload)
            .outerjoin(ASSIGNMENTS, same_prompt(ASSIGNMENTS, PROMPTS))
            .where(self._is_open(), PROMPTS.c.accepted_at < before, or_(nobody, unfilled))
        )
        for accepted_at, prompt_id, payload in oldest(owed):
            yield accepted_at, prompt_id, Prompt.model_validate_json(payload)

    def _traces(self, oldest: _Oldest, before: datetime) -> Iterator[_Aged]:
        """Yield traces whose slot has not ended."""
        ended = (
            exists()
            .where(
                same_prompt(SLOT_ENDS, TRACES),
                SLOT_ENDS.c.slot == TRACES.c.slot,
                SLOT_ENDS.c.attempt == PROMPTS.c.attempt,
            )
            .correlate(TRACES, PROMPTS)
        )
        owed = (
            select(PROMPTS.c.accepted_at, TRACES.c.trace_id, TRACES.c.payload)
            .join(TRACES, same_prompt(TRACES, PROMPTS))
            .where(self._is_open(), TRACES.c.generated_at < before, ~ended)
        )
        for accepted_at, trace_id, payload in oldest(owed):
            yield accepted_at, trace_id, Trace.model_validate_json(payload)

    def _ended_groups(
        self, connection: Connection, oldest: _Oldest, before: datetime
    ) -> Iterator[_Aged]:
        """Yield one event of each group whose slots have all ended."""
        last_end = (
            select(func.max(SLOT_ENDS.c.ended_at))
            .where(same_attempt(SLOT_ENDS, PROMPTS))
            .correlate(PROMPTS)
            .scalar_subquery()
        )
        owed = (
            select(PROMPTS.c.accepted_at, PROMPTS.c.prompt_id, PROMPTS.c.round)
            .join(ASSIGNMENTS, same_prompt(ASSIGNMENTS, PROMPTS))
            .where(self._is_open(), num_ended() >= ASSIGNMENTS.c.num_slots, last_end < before)
        )
        groups = {
            PromptKey(prompt_id, round_): accepted_at
            for accepted_at, prompt_id, round_ in oldest(owed)
        }
        for part in chunks(list(groups)):
            current = exists().where(same_attempt(SLOT_ENDS, PROMPTS)).correlate(SLOT_ENDS)
            ends = select_slot_ends().where(among(SLOT_ENDS, part), current)
            first = ends.order_by(SLOT_ENDS.c.prompt_id, SLOT_ENDS.c.round, SLOT_ENDS.c.slot)
            for row in connection.execute(first).mappings():
                accepted_at = groups.pop(PromptKey(row["prompt_id"], row["round"]), None)
                if accepted_at is not None:
                    yield accepted_at, row["prompt_id"], slot_end_of(row)

    def _failed_prompts(self, oldest: _Oldest, before: datetime) -> Iterator[_Aged]:
        """Yield the failures of prompts that nobody was asked."""
        owed = (
            select(PROMPTS.c.accepted_at, PROMPTS.c.prompt_id, PROMPT_FAILURES.c.payload)
            .join(PROMPT_FAILURES, same_attempt(PROMPT_FAILURES, PROMPTS))
            .outerjoin(ASSIGNMENTS, same_prompt(ASSIGNMENTS, PROMPTS))
            .where(
                self._is_open(),
                ASSIGNMENTS.c.prompt_id.is_(None),
                PROMPT_FAILURES.c.failed_at < before,
            )
        )
        for accepted_at, prompt_id, payload in oldest(owed):
            yield accepted_at, prompt_id, PromptFailed.model_validate_json(payload)


def num_ended() -> ScalarSelect[int]:
    """Count the prompt's slots that have ended in its current attempt."""
    return (
        select(func.count())
        .select_from(SLOT_ENDS)
        .where(same_attempt(SLOT_ENDS, PROMPTS))
        .correlate(PROMPTS)
        .scalar_subquery()
    )


def _num_begun() -> ColumnElement[int]:
    """Count the prompt's slots that have a trace, an end in the current attempt, or both."""
    ends_untraced = (
        select(func.count())
        .select_from(SLOT_ENDS)
        .where(
            same_attempt(SLOT_ENDS, PROMPTS),
            ~exists()
            .where(same_prompt(TRACES, SLOT_ENDS), TRACES.c.slot == SLOT_ENDS.c.slot)
            .correlate(SLOT_ENDS),
        )
        .correlate(PROMPTS)
        .scalar_subquery()
    )
    traced = (
        select(func.count(TRACES.c.slot.distinct()))
        .where(same_prompt(TRACES, PROMPTS))
        .correlate(PROMPTS)
        .scalar_subquery()
    )
    return traced + ends_untraced


def ended_slots(connection: Connection, keys: list[PromptKey]) -> set[tuple[str, int, int]]:
    """Return which slots of these prompts have ended, as (prompt_id, round, slot)."""
    ends = SLOT_ENDS.c
    those = select(ends.prompt_id, ends.round, ends.slot).join(
        PROMPTS, same_attempt(SLOT_ENDS, PROMPTS)
    )
    return {
        (prompt_id, round_, slot)
        for part in chunks(keys)
        for prompt_id, round_, slot in connection.execute(those.where(among(SLOT_ENDS, part)))
    }
