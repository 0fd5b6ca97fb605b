"""Reading back what the store holds of one (prompt, round)."""

from collections.abc import Sequence
from typing import TypeVar

from sqlalchemy import ColumnElement, Connection, Table, select

from deltawheel.contracts.assignment import Assignment
from deltawheel.contracts.judgement import Judgement, PromptFailed, SlotFailed
from deltawheel.contracts.outcome import Closing
from deltawheel.contracts.prompt import Prompt, PromptKey
from deltawheel.contracts.record import Record
from deltawheel.contracts.store import Group
from deltawheel.contracts.trace import Trace
from deltawheel.infra.store.columns import is_key
from deltawheel.infra.store.part import Part
from deltawheel.infra.store.tables import (
    ASSIGNMENTS,
    CLOSINGS,
    JUDGEMENTS,
    PROMPT_FAILURES,
    PROMPTS,
    SLOT_ENDS,
    TRACES,
)

__all__ = ["LedgerReads"]

R = TypeVar("R", bound=Record)


class LedgerReads(Part):
    """The reading of single traces and groups."""

    def trace(self, trace_id: str) -> Trace | None:
        """Return a trace by its id."""
        if not is_key(trace_id):
            return None
        with self._database.reading() as connection:
            held = connection.scalar(select(TRACES.c.payload).where(TRACES.c.trace_id == trace_id))
        return None if held is None else Trace.model_validate_json(held)

    def group(self, key: PromptKey) -> Group | None:
        """Return all rows of one (prompt, round), or None where the store has no such prompt."""
        if not is_key(key.prompt_id):
            return None
        with self._database.reading() as connection:
            prompts = _records(connection, PROMPTS, key, Prompt)
            return _group(connection, key, prompts[0]) if prompts else None


def _group(connection: Connection, key: PromptKey, prompt: Prompt) -> Group:
    closings = _records(connection, CLOSINGS, key, Closing)
    ends = _of(SLOT_ENDS, key)
    slots = connection.execute(select(SLOT_ENDS.c.slot, SLOT_ENDS.c.payload).where(ends)).all()
    judgements = _records(connection, JUDGEMENTS, key, Judgement)
    traces = _records(connection, TRACES, key, Trace)
    assignments = _records(connection, ASSIGNMENTS, key, Assignment)
    failures = _records(connection, PROMPT_FAILURES, key, PromptFailed)
    return Group(
        prompt=prompt,
        assignment=next(iter(assignments), None),
        traces={trace.trace_id: trace for trace in sorted(traces, key=lambda trace: trace.slot)},
        judgements=sorted(judgements, key=lambda judgement: judgement.slot),
        slot_failures=[SlotFailed.model_validate_json(row.payload) for row in slots if row.payload],
        prompt_failure=max(failures, key=lambda failure: failure.attempt, default=None),
        ended_slots=frozenset(row.slot for row in slots),
        closing=max(closings, key=lambda closing: closing.attempt, default=None),
    )


def _of(table: Table, key: PromptKey) -> ColumnElement[bool]:
    return (table.c.prompt_id == key.prompt_id) & (table.c.round == key.round)


def _records(connection: Connection, table: Table, key: PromptKey, kind: type[R]) -> Sequence[R]:
    held = connection.scalars(select(table.c.payload).where(_of(table, key)))
    return [kind.model_validate_json(payload) for payload in held]
