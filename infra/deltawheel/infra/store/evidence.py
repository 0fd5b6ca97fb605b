"""Evidence: from which rows the audit derives what became of each prompt.

One transaction that only reads, so that all of it is of one moment, and no writer waits for it: on
SQLite the log ahead keeps that moment, on PostgreSQL REPEATABLE READ does. What is read lies in
indexes and in the columns before payloads; single payloads are read of what stands out.
"""

import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any

from pydantic_core import from_json
from sqlalchemy import (
    CTE,
    ColumnElement,
    Connection,
    FromClause,
    ScalarSelect,
    Select,
    Table,
    and_,
    case,
    exists,
    func,
    literal,
    or_,
    select,
)

from deltawheel.contracts.evidence import (
    Evidence,
    Finding,
    HeldPair,
    HeldSlotEnd,
    PromptRows,
    Snapshot,
    TiedScores,
)
from deltawheel.contracts.outcome import Outcome, UnpairedCause
from deltawheel.contracts.prompt import PromptKey
from deltawheel.contracts.trace import FinishReason
from deltawheel.infra.store.columns import UtcDateTime
from deltawheel.infra.store.contents import contents
from deltawheel.infra.store.loop_tables import DEFERRED_PROMPTS, OUTAGES
from deltawheel.infra.store.part import Part, among, same_prompt
from deltawheel.infra.store.rows import EXPIRED, FAILED
from deltawheel.infra.store.strays import COUNTED, strays, unproven
from deltawheel.infra.store.tables import (
    ASSIGNMENTS,
    CLOSINGS,
    JUDGEMENTS,
    PAIRS,
    PROMPT_FAILURES,
    PROMPTS,
    QUARANTINE,
    SLOT_ENDS,
    STANDSTILLS,
    TRACES,
    TRANSITIONS,
)

__all__ = ["LedgerEvidence"]

_ROWS_AT_ONCE = 5_000
_USUAL_SLOTS = 2
_APART = "MATERIALIZED"
"""SQLite would look rows up one by one, where one scan is meant."""
_MOMENT = UtcDateTime()
_BEFORE = CLOSINGS.alias("closings_before")


class LedgerEvidence(Part):
    """The audit's view of the store."""

    def evidence(self) -> Iterator[Evidence]:
        """Yield the evidence of every prompt."""
        with self.snapshot() as snapshot:
            yield from snapshot.evidence()

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """Read one moment of the store for as long as the audit takes."""
        with self._database.reading(may_take_long=True) as connection, _with_room(connection):
            yield _SqlSnapshot(connection, self._wheel)


@contextmanager
def _with_room(connection: Connection) -> Iterator[None]:
    """Give the audit more memory than a statement of the stream has."""
    if connection.dialect.name != "sqlite":
        connection.exec_driver_sql("SET LOCAL work_mem = '256MB'")
        connection.exec_driver_sql("SET LOCAL jit = off")
        connection.exec_driver_sql("SET LOCAL cursor_tuple_fraction = 1")
        yield
        return
    connection.exec_driver_sql("PRAGMA cache_size = -64000")
    try:
        yield
    finally:
        connection.exec_driver_sql("PRAGMA cache_size = -2000")


class _SqlSnapshot:
    """See `contracts.evidence.Snapshot`."""

    def __init__(self, connection: Connection, wheel: str) -> None:
        self._connection = connection
        self._wheel = wheel

    def evidence(self) -> Iterator[Evidence]:
        """Yield the current attempt at every prompt."""
        yield from map(_evidence, self._stream(_current(self._wheel)))

    def superseded(self) -> Iterator[Evidence]:
        """Yield earlier attempts that have a closing."""
        yield from map(_evidence, self._stream(_superseded(self._wheel)))

    def strays(self, *, of: Collection[str]) -> Iterator[Finding]:
        """Yield rows that name what is not there, and keys that are there twice."""
        yield from strays(self._connection, self._wheel, of=of)

    def unproven(self, keys: Sequence[PromptKey] | None) -> Iterator[Finding]:
        """Yield judged slots without their judgement, and judgements without their trace."""
        yield from unproven(self._connection, self._wheel, keys)

    def contents(self) -> Iterator[Finding]:
        """Yield rows whose columns say something else than their payload."""
        yield from contents(self._connection, self._wheel)

    def ties(self) -> Iterator[TiedScores]:
        """Yield the scores behind each current closing as a tie."""
        rows = self._stream(_tied(self._wheel))
        for (prompt_id, round_, attempt), same in groupby(rows, lambda row: row[:3]):
            yield TiedScores(
                key=PromptKey(prompt_id, round_),
                attempt=attempt,
                judgements=[from_json(payload) for *_, payload in same],
            )

    def totals(self) -> Mapping[str, int]:
        """Return how many rows each of the counted tables has."""
        return {
            name: self._connection.scalar(
                select(func.count()).select_from(table).where(table.c.wheel == self._wheel)
            )
            or 0
            for name, table in COUNTED.items()
        }

    def rows(self, keys: Sequence[PromptKey]) -> Iterator[PromptRows]:
        """Yield the rows of these prompts, by their ids."""
        ends = self._slot_ends(keys)
        pairs: defaultdict[PromptKey, list[HeldPair]] = defaultdict(list)
        for table, is_quarantined in ((PAIRS, False), (QUARANTINE, True)):
            held = select(table.c.prompt_id, table.c.round, table.c.pair_id, table.c.payload)
            for prompt_id, round_, pair_id, payload in self._connection.execute(
                held.where(among(table, keys), table.c.wheel == self._wheel)
            ):
                traces = _sides(payload, is_quarantined=is_quarantined)
                pairs[PromptKey(prompt_id, round_)].append(
                    HeldPair(pair_id, is_quarantined, traces)
                )
        cut_off = self._cut_off(keys)
        for key in keys:
            yield PromptRows(key=key, slot_ends=ends[key], pairs=pairs[key], cut_off=cut_off[key])

    def _slot_ends(self, keys: Sequence[PromptKey]) -> Mapping[PromptKey, list[HeldSlotEnd]]:
        end = SLOT_ENDS.c
        those = select(
            end.prompt_id,
            end.round,
            end.slot,
            end.attempt,
            end.kind,
            end.trace_id,
            end.rubric_digest,
        )
        found: defaultdict[PromptKey, list[HeldSlotEnd]] = defaultdict(list)
        for prompt_id, round_, *rest in self._connection.execute(
            those.where(among(SLOT_ENDS, keys)).order_by(end.attempt, end.slot)
        ):
            found[PromptKey(prompt_id, round_)].append(HeldSlotEnd(*rest))
        return found

    def _cut_off(self, keys: Sequence[PromptKey]) -> Mapping[PromptKey, frozenset[str]]:
        found: defaultdict[PromptKey, frozenset[str]] = defaultdict(frozenset)
        trace = TRACES.c
        those = select(trace.prompt_id, trace.round, trace.trace_id, trace.payload)
        for prompt_id, round_, trace_id, payload in self._connection.execute(
            those.where(among(TRACES, keys))
        ):
            if json.loads(payload).get("finish_reason") != FinishReason.STOP.value:
                found[PromptKey(prompt_id, round_)] |= {trace_id}
        return found

    def _stream(self, rows: Select[Any]) -> Iterator[Any]:
        streaming = self._connection.execution_options(yield_per=_ROWS_AT_ONCE)
        with streaming.execute(rows) as found:
            yield from found


def _evidence(row: Any) -> Evidence:  # noqa: ANN401
    prompt_id, round_, *rest = row
    return Evidence(PromptKey(prompt_id, round_), *rest)


def _sides(payload: str, *, is_quarantined: bool) -> tuple[str, str]:
    held = json.loads(payload)
    pair = held["pair"] if is_quarantined else held
    return pair["chosen"]["trace"]["trace_id"], pair["rejected"]["trace"]["trace_id"]


def _latest(wheel: str) -> CTE:
    """Select the newest attempt of each prompt that has been opened again."""
    row = TRANSITIONS.c
    return (
        select(
            row.prompt_id,
            row.round,
            func.max(row.attempt).label("attempt"),
            func.count().label("number"),
        )
        .where(row.wheel == wheel)
        .group_by(row.prompt_id, row.round)
        .cte("latest")
    )


def _current(wheel: str) -> Select[Any]:
    """Select the counts of every prompt at its newest attempt."""
    latest = _latest(wheel)
    attempt = func.coalesce(latest.c.attempt, 1)
    number = func.coalesce(latest.c.number, 0)
    source = PROMPTS.outerjoin(latest, _is_of(latest)).outerjoin(
        CLOSINGS, and_(same_prompt(CLOSINGS, PROMPTS), CLOSINGS.c.attempt == attempt)
    )
    return _counts(wheel, source, attempt, number, is_current=True)


def _superseded(wheel: str) -> Select[Any]:
    """Select the counts of earlier attempts that have a closing."""
    latest = _latest(wheel)
    source = latest.join(PROMPTS, _is_of(latest)).join(
        CLOSINGS,
        and_(same_prompt(CLOSINGS, PROMPTS), CLOSINGS.c.attempt < latest.c.attempt),
    )
    return _counts(wheel, source, CLOSINGS.c.attempt, literal(0), is_current=False)


def _is_of(other: CTE) -> ColumnElement[bool]:
    """Return the condition that a prompt is the other's."""
    return and_(other.c.prompt_id == PROMPTS.c.prompt_id, other.c.round == PROMPTS.c.round)


def _counts(
    wheel: str,
    source: FromClause,
    attempt: ColumnElement[int],
    num_transitions: ColumnElement[int],
    *,
    is_current: bool,
) -> Select[Any]:
    failed = _failed(wheel)
    lost = _lost(wheel)
    at_attempt = [and_(_is_of(counts), counts.c.attempt == attempt) for counts in (failed, lost)]
    opened = and_(same_prompt(TRANSITIONS, PROMPTS), TRANSITIONS.c.attempt == attempt)
    marks, others, wide = _marks(wheel), _unlike_most(wheel), _wide(wheel)
    is_closed = CLOSINGS.c.attempt.is_not(None)
    is_marked = or_(marks.c.prompt_id.is_(None), marks.c.closed_at.is_not(None))
    of_others = and_(_is_of(others), others.c.attempt == attempt)
    num_slots = case(
        (ASSIGNMENTS.c.prompt_id.is_not(None), func.coalesce(wide.c.num_slots, _USUAL_SLOTS))
    )
    was_paired = exists().where(
        _BEFORE.c.prompt_id == PROMPTS.c.prompt_id,
        _BEFORE.c.round == PROMPTS.c.round,
        _BEFORE.c.attempt < attempt,
        _BEFORE.c.outcome == Outcome.PAIRED.value,
    )
    return (
        select(
            PROMPTS.c.prompt_id,
            PROMPTS.c.round,
            func.coalesce(TRANSITIONS.c.opened_at, marks.c.accepted_at, type_=_MOMENT),
            attempt,
            num_transitions,
            literal(is_current),
            func.coalesce(marks.c.attempt, 1),
            is_closed == is_marked,
            num_slots,
            _num(TRACES, TRACES.c.slot < num_slots),
            _num(JUDGEMENTS),
            _num(SLOT_ENDS, SLOT_ENDS.c.attempt == attempt, SLOT_ENDS.c.slot < num_slots),
            func.coalesce(failed.c.number, 0),
            func.coalesce(lost.c.number, 0),
            _num(PAIRS),
            _num(QUARANTINE),
            _num(PROMPT_FAILURES, PROMPT_FAILURES.c.attempt == attempt),
            case((is_closed, func.coalesce(others.c.outcome, Outcome.PAIRED.value))),
            others.c.cause,
            case((attempt > 1, was_paired.correlate_except(_BEFORE)), else_=literal(False)),
        )
        .select_from(
            source.outerjoin(ASSIGNMENTS, same_prompt(ASSIGNMENTS, PROMPTS))
            .outerjoin(marks, _is_of(marks))
            .outerjoin(others, of_others)
            .outerjoin(wide, _is_of(wide))
            .outerjoin(TRANSITIONS, opened)
            .outerjoin(failed, at_attempt[0])
            .outerjoin(lost, at_attempt[1])
        )
        .where(func.coalesce(marks.c.wheel, wheel) == wheel)
        # In the order of the key every index is walked along, none searched from its root.
        .order_by(PROMPTS.c.prompt_id, PROMPTS.c.round)
    )


def _num(table: Table, *where: ColumnElement[bool]) -> ScalarSelect[int]:
    rows = select(func.count()).select_from(table).where(same_prompt(table, PROMPTS), *where)
    return rows.correlate_except(table).scalar_subquery()


def _marks(wheel: str) -> CTE:
    """Select what prompts say of themselves, where it is not the usual: closed in attempt 1.

    Other wheels' prompts are among them. One scan of the table, as the two below: looking up each
    row would read it in random order, which costs three times as much, and far more from a disk.
    """
    row = PROMPTS.c
    return (
        select(row.prompt_id, row.round, row.wheel, row.attempt, row.closed_at, row.accepted_at)
        .where(or_(row.wheel != wheel, row.attempt != 1, row.closed_at.is_(None)))
        .cte("marks")
        .prefix_with(_APART)
    )


def _unlike_most(wheel: str) -> CTE:
    """Select the closings that are not plainly paired."""
    row = CLOSINGS.c
    return (
        select(row.prompt_id, row.round, row.attempt, row.outcome, row.cause)
        .where(row.wheel == wheel, or_(row.outcome != Outcome.PAIRED.value, row.cause.is_not(None)))
        .cte("others")
        .prefix_with(_APART)
    )


def _wide(wheel: str) -> CTE:
    """Select the assignments of another number of slots than the usual."""
    row = ASSIGNMENTS.c
    return (
        select(row.prompt_id, row.round, row.num_slots)
        .where(row.wheel == wheel, row.num_slots != _USUAL_SLOTS)
        .cte("wide")
        .prefix_with(_APART)
    )


def _failed(wheel: str) -> CTE:
    end = SLOT_ENDS.c
    return (
        select(end.prompt_id, end.round, end.attempt, func.count().label("number"))
        .where(end.wheel == wheel, end.kind.in_((FAILED, EXPIRED)))
        .group_by(end.prompt_id, end.round, end.attempt)
        .cte("failed")
    )


def _lost(wheel: str) -> CTE:
    """Count the slots that have expired though nothing explains their wait."""
    end = SLOT_ENDS.c
    return (
        select(end.prompt_id, end.round, end.attempt, func.count().label("number"))
        .join(PROMPTS, same_prompt(SLOT_ENDS, PROMPTS))
        .where(end.wheel == wheel, end.kind == EXPIRED, ~_was_held_up())
        .group_by(end.prompt_id, end.round, end.attempt)
        .cte("lost")
    )


def _was_held_up() -> ColumnElement[bool]:
    """Return the condition that anything held up a slot between acceptance and its end."""
    return or_(_lived_through(STANDSTILLS), _lived_through(OUTAGES), _was_deferred())


def _was_deferred() -> ColumnElement[bool]:
    since = DEFERRED_PROMPTS.c.deferred_at
    deferred = exists().where(same_prompt(DEFERRED_PROMPTS, PROMPTS), since < SLOT_ENDS.c.ended_at)
    return deferred.correlate(PROMPTS, SLOT_ENDS)


def _lived_through(spans: Table) -> ColumnElement[bool]:
    span = spans.c
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


def _tied(wheel: str) -> Select[Any]:
    """Select all judgements of prompts whose current closing says that they tie."""
    later = exists().where(
        same_prompt(TRANSITIONS, CLOSINGS), TRANSITIONS.c.attempt > CLOSINGS.c.attempt
    )
    closing = CLOSINGS.c
    return (
        select(closing.prompt_id, closing.round, closing.attempt, JUDGEMENTS.c.payload)
        .select_from(CLOSINGS.join(JUDGEMENTS, same_prompt(JUDGEMENTS, CLOSINGS)))
        .where(
            closing.wheel == wheel,
            closing.outcome == Outcome.UNPAIRED.value,
            closing.cause == UnpairedCause.TIE.value,
            ~later.correlate(CLOSINGS),
        )
        .order_by(closing.prompt_id, closing.round, closing.attempt)
    )
