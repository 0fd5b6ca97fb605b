"""Reading back what the store holds of (prompt, round)s."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import Connection, Row, Table, select

from deltawheel.contracts.assignment import Assignment
from deltawheel.contracts.judgement import Judgement, PromptFailed, SlotFailed
from deltawheel.contracts.outcome import Closing
from deltawheel.contracts.prompt import Prompt, PromptKey
from deltawheel.contracts.record import Record
from deltawheel.contracts.store import Group
from deltawheel.contracts.trace import Trace
from deltawheel.infra.store.columns import is_key
from deltawheel.infra.store.part import Part, among, chunks, same_attempt
from deltawheel.infra.store.tables import (
    ASSIGNMENTS,
    CLOSINGS,
    JUDGEMENTS,
    PROMPT_FAILURES,
    PROMPTS,
    SLOT_ENDS,
    TRACES,
    TRANSITIONS,
)

__all__ = ["LedgerReads"]

R = TypeVar("R", bound=Record)
_Row: TypeAlias = Row[*tuple[Any, ...]]
_Keys = Sequence[PromptKey]
_PerPrompt = Mapping[PromptKey, Sequence[R]]


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
        return self.groups([key]).get(key)

    def groups(self, keys: Sequence[PromptKey]) -> dict[PromptKey, Group]:
        """Return all rows of these, all of one moment; those that the store lacks are absent."""
        known = [key for key in dict.fromkeys(keys) if is_key(key.prompt_id)]
        with self._database.reading() as connection:
            return {
                key: group for part in chunks(known) for key, group in _groups(connection, part)
            }


def _groups(connection: Connection, keys: _Keys) -> Sequence[tuple[PromptKey, Group]]:
    prompts = _prompts(connection, keys)
    if not prompts:
        return []
    found = list(prompts)
    assignments = _of_any_attempt(connection, ASSIGNMENTS, found, Assignment)
    traces = _of_any_attempt(connection, TRACES, found, Trace)
    judgements = _of_any_attempt(connection, JUDGEMENTS, found, Judgement)
    failures = _of_this_attempt(connection, PROMPT_FAILURES, found, PromptFailed)
    closed = [key for key, row in prompts.items() if row.closed_at is not None]
    closings = _of_this_attempt(connection, CLOSINGS, closed, Closing)
    ends = _slot_ends(connection, found)
    return [
        (
            key,
            Group(
                prompt=Prompt.model_validate_json(row.payload),
                opened_at=row.opened_at or row.accepted_at,
                attempt=row.attempt,
                assignment=next(iter(assignments[key]), None),
                traces={t.trace_id: t for t in sorted(traces[key], key=lambda t: t.slot)},
                judgements=sorted(judgements[key], key=lambda judgement: judgement.slot),
                slot_failures=[failure for _, failure in ends[key] if failure],
                prompt_failure=next(iter(failures[key]), None),
                ended_slots=frozenset(slot for slot, _ in ends[key]),
                closing=next(iter(closings[key]), None),
            ),
        )
        for key, row in prompts.items()
    ]


def _prompts(connection: Connection, keys: _Keys) -> dict[PromptKey, _Row]:
    columns = PROMPTS.c
    those = (
        select(
            columns.prompt_id,
            columns.round,
            columns.attempt,
            columns.accepted_at,
            columns.closed_at,
            columns.payload,
            TRANSITIONS.c.opened_at,
        )
        .select_from(PROMPTS.outerjoin(TRANSITIONS, same_attempt(TRANSITIONS, PROMPTS)))
        .where(among(PROMPTS, keys))
    )
    return {PromptKey(row.prompt_id, row.round): row for row in connection.execute(those)}


def _of_any_attempt(
    connection: Connection, table: Table, keys: _Keys, kind: type[R]
) -> _PerPrompt[R]:
    those = select(table.c.prompt_id, table.c.round, table.c.payload).where(among(table, keys))
    return _by_prompt(connection.execute(those).all(), kind)


def _of_this_attempt(
    connection: Connection, table: Table, keys: _Keys, kind: type[R]
) -> _PerPrompt[R]:
    if not keys:
        return defaultdict(list)
    those = (
        select(table.c.prompt_id, table.c.round, table.c.payload)
        .join(PROMPTS, same_attempt(table, PROMPTS))
        .where(among(table, keys))
    )
    return _by_prompt(connection.execute(those).all(), kind)


def _by_prompt(rows: Sequence[_Row], kind: type[R]) -> _PerPrompt[R]:
    found: defaultdict[PromptKey, list[R]] = defaultdict(list)
    for prompt_id, round_, payload in rows:
        found[PromptKey(prompt_id, round_)].append(kind.model_validate_json(payload))
    return found


def _slot_ends(
    connection: Connection, keys: _Keys
) -> Mapping[PromptKey, Sequence[tuple[int, SlotFailed | None]]]:
    ends = SLOT_ENDS.c
    those = (
        select(ends.prompt_id, ends.round, ends.slot, ends.payload)
        .join(PROMPTS, same_attempt(SLOT_ENDS, PROMPTS))
        .where(among(SLOT_ENDS, keys))
        .order_by(ends.slot)
    )
    found: defaultdict[PromptKey, list[tuple[int, SlotFailed | None]]] = defaultdict(list)
    for prompt_id, round_, slot, payload in connection.execute(those):
        failure = SlotFailed.model_validate_json(payload) if payload else None
        found[PromptKey(prompt_id, round_)].append((slot, failure))
    return found
