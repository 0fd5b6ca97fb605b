"""Strays: rows that name what is not there, and keys that are there twice.

Each search is one statement that finds nothing in an honest store. They walk an index in its own
order and look into another in the same, which costs about a microsecond a row.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Table,
    and_,
    exists,
    func,
    inspect,
    select,
    tuple_,
)

from deltawheel.contracts.evidence import Finding, FindingKind
from deltawheel.contracts.prompt import PromptKey
from deltawheel.infra.store.loop_tables import UNSENT_LETTERS
from deltawheel.infra.store.part import among, same_attempt, same_prompt
from deltawheel.infra.store.rows import EXPIRED, FAILED
from deltawheel.infra.store.tables import (
    ASSIGNMENTS,
    CLOSINGS,
    DEAD_LETTERS,
    JUDGEMENTS,
    LETTER_MOVES,
    PAIR_DELTAS,
    PAIRS,
    PROMPT_FAILURES,
    PROMPTS,
    QUARANTINE,
    QUARANTINE_REASONS,
    SLOT_ENDS,
    TRACES,
    TRANSITIONS,
)

__all__ = ["COUNTED", "strays", "unproven"]

_NAMES = {
    ASSIGNMENTS: "assignment",
    CLOSINGS: "closing",
    DEAD_LETTERS: "dead letter",
    JUDGEMENTS: "judgement",
    LETTER_MOVES: "letter move",
    PAIRS: "pair",
    PAIR_DELTAS: "delta",
    PROMPTS: "prompt",
    PROMPT_FAILURES: "prompt failure",
    QUARANTINE: "quarantined pair",
    QUARANTINE_REASONS: "quarantine reason",
    SLOT_ENDS: "slot end",
    TRACES: "trace",
    TRANSITIONS: "transition",
    UNSENT_LETTERS: "unsent letter",
}
"""What one row of each of the audited tables is."""

_MOST = 10_000
"""Findings of one search; where a whole table is gone, the first say it."""


class _Search(NamedTuple):
    """What a row means whose `by` is among the `rows` of a statement."""

    table: Table
    kind: FindingKind
    fact: str
    by: Sequence[ColumnElement[Any]]
    rows: Select[Any]


COUNTED = {
    "num_slots": ASSIGNMENTS,
    "traces": TRACES,
    "judgements": JUDGEMENTS,
    "pairs": PAIRS,
    "quarantined": QUARANTINE,
    "ended_slots": SLOT_ENDS,
    "outcome": CLOSINGS,
}
"""Tables whose rows evidence counts: none is a stray where all of them have been counted."""


def strays(connection: Connection, wheel: str, *, of: Collection[str]) -> Iterator[Finding]:
    """Yield what is found.

    Args:
        connection: In one transaction.
        wheel: Whose rows are searched.
        of: Keys of `COUNTED`, those whose rows evidence has not all counted.
    """
    uncounted = {table for name, table in COUNTED.items() if name in of}
    for search in (*_orphans(uncounted), *_twice()):
        yield from _found(connection, search, wheel)
    yield from _uneven_deltas(connection, wheel)
    yield from _unguarded(connection, wheel)


def _found(connection: Connection, search: _Search, wheel: str) -> Iterator[Finding]:
    # The wheel is asked of what was found alone: hardly any index has it beside the key.
    key = tuple_(*search.by) if len(search.by) > 1 else search.by[0]
    found = select(search.table).where(search.table.c.wheel == wheel, key.in_(search.rows))
    for row in connection.execute(found.limit(_MOST)).mappings():
        yield _finding(search.kind, search.fact, search.table, row)


def _finding(kind: FindingKind, fact: str, table: Table, row: Any) -> Finding:  # noqa: ANN401
    names = [column.name for column in table.primary_key.columns]
    others = [name for name in ("slot", "trace_id") if name in row and name not in names]
    about = [f"{name} {row[name]}" for name in (*names, *others) if row[name] is not None]
    return Finding(
        kind=kind,
        fact=fact,
        prompt_id=row.get("prompt_id"),
        round=row.get("round"),
        attempt=row.get("attempt"),
        rows=(f"{_NAMES[table]}: {', '.join(about)}",),
    )


def _orphans(uncounted: Collection[Table]) -> Iterator[_Search]:
    """Find rows whose prompt, trace, pair, transition or dead letter is not there."""
    for table in (*uncounted, PROMPT_FAILURES, TRANSITIONS):
        prompt = table.c.prompt_id, table.c.round
        yield _without(table, PROMPTS, same_prompt(table, PROMPTS), by=prompt)
    for one, other in ((QUARANTINE, QUARANTINE_REASONS), (QUARANTINE_REASONS, QUARANTINE)):
        yield _without(one, other, one.c.pair_id == other.c.pair_id)
    reopened = [table for table in (SLOT_ENDS, CLOSINGS) if table in uncounted]
    for table in (*reopened, PROMPT_FAILURES):
        opened = same_attempt(table, TRANSITIONS)
        yield _without(table, TRANSITIONS, opened, table.c.attempt > 1)
    # A move is of a letter, or of one attempt at a prompt, whose colons no letter's id has.
    of_letter = {LETTER_MOVES: [~LETTER_MOVES.c.letter_id.contains(":")], UNSENT_LETTERS: []}
    for table, where in of_letter.items():
        yield _without(table, DEAD_LETTERS, table.c.letter_id == DEAD_LETTERS.c.letter_id, *where)


def _without(
    table: Table,
    other: Table,
    is_its: ColumnElement[bool],
    *where: ColumnElement[bool],
    by: Sequence[ColumnElement[Any]] = (),
) -> _Search:
    by = by or tuple(table.primary_key.columns)
    rows = select(*by).where(*where, ~exists().where(is_its).correlate(table))
    return _Search(table, "missing", f"{_a(table)} without its {_NAMES[other]}", by, rows)


def _a(table: Table) -> str:
    name = _NAMES[table]
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def unproven(
    connection: Connection, wheel: str, keys: Sequence[PromptKey] | None
) -> Iterator[Finding]:
    """Yield slots that ended judged without their judgement, and judgements without their trace.

    Of these prompts, or of all: that looks up each row in an order in which nothing lies.
    """
    for search in _proofs(keys):
        yield from _found(connection, search, wheel)


def _proofs(keys: Sequence[PromptKey] | None) -> Iterator[_Search]:
    def those(table: Table) -> list[ColumnElement[bool]]:
        return [] if keys is None else [among(table, keys)]

    is_its_trace = JUDGEMENTS.c.trace_id == TRACES.c.trace_id
    yield _without(JUDGEMENTS, TRACES, is_its_trace, *those(JUDGEMENTS))
    is_its = and_(
        JUDGEMENTS.c.trace_id == SLOT_ENDS.c.trace_id,
        JUDGEMENTS.c.judge_revision == SLOT_ENDS.c.judge_revision,
        JUDGEMENTS.c.rubric_digest == SLOT_ENDS.c.rubric_digest,
    )
    is_judged = SLOT_ENDS.c.kind.not_in((FAILED, EXPIRED))
    yield _without(SLOT_ENDS, JUDGEMENTS, is_its, is_judged, *those(SLOT_ENDS))


def _twice() -> Iterator[_Search]:
    """Find slots with two traces, and pairs that are both stored and quarantined."""
    slot = TRACES.c.prompt_id, TRACES.c.round, TRACES.c.slot
    doubled = select(*slot).group_by(*slot).having(func.count() > 1)
    yield _Search(TRACES, "double", "a trace whose slot has another", slot, doubled)
    stored = exists().where(PAIRS.c.pair_id == QUARANTINE.c.pair_id)
    reopened = exists().where(same_prompt(TRANSITIONS, QUARANTINE))
    pair_id = QUARANTINE.c.pair_id
    both = select(pair_id).where(stored.correlate(QUARANTINE), ~reopened.correlate(QUARANTINE))
    fact = "a pair both stored and quarantined, though nobody has released it"
    yield _Search(QUARANTINE, "contradictory", fact, [pair_id], both)


def _uneven_deltas(connection: Connection, wheel: str) -> Iterator[Finding]:
    """Find pairs that lack the delta of a dimension which others of their rubric have."""
    row = PAIR_DELTAS.c
    judged_by = row.wheel, row.rubric_digest, row.judge_revision
    counts = (
        select(row.rubric_digest, row.judge_revision, row.dimension, func.count())
        .where(row.wheel == wheel)
        .group_by(*judged_by, row.dimension)
    )
    most: dict[tuple[str, str], int] = {}
    counted = connection.execute(counts).all()
    for digest, revision, _, number in counted:
        most[digest, revision] = max(number, most.get((digest, revision), 0))
    if sum(most.values()) != _num_pairs(connection, wheel):
        for one, other in ((PAIRS, PAIR_DELTAS), (PAIR_DELTAS, PAIRS)):
            search = _without(one, other, PAIRS.c.pair_id == PAIR_DELTAS.c.pair_id)
            yield from _found(connection, search, wheel)
    for digest, revision, dimension, number in counted:
        if number < most[digest, revision]:
            yield from _lacking(connection, wheel, (digest, revision), dimension)


def _num_pairs(connection: Connection, wheel: str) -> int:
    pairs = select(func.count()).select_from(PAIRS).where(PAIRS.c.wheel == wheel)
    return connection.scalar(pairs) or 0


def _lacking(
    connection: Connection, wheel: str, judged_by: tuple[str, str], dimension: str
) -> Iterator[Finding]:
    row, other = PAIR_DELTAS.c, PAIR_DELTAS.alias("other")
    has = exists().where(other.c.pair_id == row.pair_id, other.c.dimension == dimension)
    lacking = (
        select(row.pair_id)
        .distinct()
        .where(
            row.wheel == wheel,
            row.rubric_digest == judged_by[0],
            row.judge_revision == judged_by[1],
            ~has.correlate(PAIR_DELTAS),
        )
        .limit(_MOST)
    )
    those = select(PAIRS.c.pair_id, PAIRS.c.prompt_id, PAIRS.c.round).where(
        PAIRS.c.pair_id.in_(lacking)
    )
    for found in connection.execute(those).mappings():
        yield _finding("missing", f"a pair without its delta of {dimension}", PAIRS, found)


def _unguarded(connection: Connection, wheel: str) -> Iterator[Finding]:
    """Look whether every key is still kept unique; where it is not, find what is there twice."""
    inspector = inspect(connection)
    for table, name in _NAMES.items():
        columns = [column.name for column in table.primary_key.columns]
        held = [inspector.get_pk_constraint(table.name)["constrained_columns"]]
        held += [index["column_names"] for index in _unique(inspector, table.name)]
        if any(set(key) == set(columns) for key in held):
            continue
        yield Finding(
            kind="missing",
            fact=f"the unique key of {table.name} ({', '.join(columns)}): without it a {name} can "
            "be stored twice",
        )
        yield from _doubles(connection, wheel, table)


def _unique(inspector: Any, name: str) -> Sequence[Any]:  # noqa: ANN401
    return [
        *inspector.get_unique_constraints(name),
        *(index for index in inspector.get_indexes(name) if index["unique"]),
    ]


def _doubles(connection: Connection, wheel: str, table: Table) -> Iterator[Finding]:
    key = list(table.primary_key.columns)
    of_whom = [
        func.min(table.c[name]).label(name)
        for name in ("prompt_id", "round")
        if name in table.c and name not in table.primary_key.columns
    ]
    doubled = (
        select(*key, *of_whom, func.count().label("number"))
        .where(table.c.wheel == wheel)
        .group_by(*key)
        .having(func.count() > 1)
        .limit(_MOST)
    )
    for row in connection.execute(doubled).mappings():
        yield _finding("double", f"{row['number']} rows of one {_NAMES[table]}", table, row)
