"""What every part of the store is built on: one database, one wheel, first writer wins."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, FromClause, Table, and_, false, or_, select

from deltawheel.contracts.prompt import PromptKey
from deltawheel.contracts.record import Record
from deltawheel.infra.store.bulk import Insert, are_all_new, insert_into
from deltawheel.infra.store.engine import Database

__all__ = [
    "Part",
    "Row",
    "among",
    "chunks",
    "first_writers",
    "insert_missing",
    "same_attempt",
    "same_prompt",
    "upserting",
]

R = TypeVar("R", bound=Record)
T = TypeVar("T")
Row = Mapping[str, Any]

_CHUNK = 500
"""Keys per IN list: far below SQLite's and PostgreSQL's limits on parameters."""


class Part:
    """One group of the store's methods."""

    def __init__(self, database: Database, *, wheel: str) -> None:
        self._database = database
        self._wheel = wheel


def upserting(connection: Connection, table: Table) -> Insert:
    """Return an insert that knows ON CONFLICT, in the connection's dialect."""
    return insert_into(connection.dialect, table)


def insert_missing(
    connection: Connection, table: Table, rows: Sequence[Row]
) -> set[tuple[Any, ...]]:
    """Insert the rows whose key is free; return the primary keys of these.

    In the order of the keys, because two transactions that insert the same rows in another order
    wait for each other. Nearly always all are new, and then their number says enough.
    """
    if not rows:
        return set()
    names = [column.name for column in table.primary_key.columns]
    keyed = {tuple(row[name] for name in names): row for row in reversed(rows)}
    ordered = [keyed[key] for key in sorted(keyed)]
    if len(ordered) > 1 and are_all_new(connection, table, ordered):
        return set(keyed)
    insert = upserting(connection, table).on_conflict_do_nothing()
    returning = insert.returning(*table.primary_key.columns)
    return {tuple(row) for row in connection.execute(returning, ordered)}


def first_writers(
    connection: Connection, table: Table, rows: Sequence[Row], records: Sequence[R]
) -> list[R]:
    """Store records under their keys; return what the store holds there, in the order given."""
    names = [column.name for column in table.primary_key.columns]
    keys = [tuple(row[name] for name in names) for row in rows]
    first: dict[tuple[Any, ...], tuple[Row, R]] = {}
    for key, row, record in zip(keys, rows, records, strict=True):
        first.setdefault(key, (row, record))
    new = insert_missing(connection, table, [row for row, _ in first.values()])
    held = {key: record for key, (_, record) in first.items()}
    if known := [key for key in first if key not in new]:
        held |= _held(connection, table, known, type(records[0]))
    return [held[key] for key in keys]


def _held(
    connection: Connection, table: Table, keys: Sequence[tuple[Any, ...]], kind: type[R]
) -> dict[tuple[Any, ...], R]:
    columns = list(table.primary_key.columns)
    wanted = set(keys)
    return {
        tuple(row[:-1]): kind.model_validate_json(row[-1])
        for part in chunks(keys)
        for row in connection.execute(
            # By the first column alone: SQLite searches no index for a list of tuples.
            select(*columns, table.c.payload).where(columns[0].in_({key[0] for key in part}))
        )
        if tuple(row[:-1]) in wanted
    }


def among(table: Table, keys: Sequence[PromptKey]) -> ColumnElement[bool]:
    """Return the condition that a row belongs to one of these (prompt, round)s.

    Round by round, of which there is one as a rule: SQLite searches no index for a list of tuples.
    """
    ids: defaultdict[int, list[str]] = defaultdict(list)
    for prompt_id, round_ in dict.fromkeys(keys):
        ids[round_].append(prompt_id)
    rounds = [and_(table.c.round == it, table.c.prompt_id.in_(ids[it])) for it in ids]
    return or_(false(), *rounds)


def same_prompt(one: FromClause, other: FromClause) -> ColumnElement[bool]:
    """Return the condition that rows of two tables belong to the same (prompt, round)."""
    return and_(one.c.prompt_id == other.c.prompt_id, one.c.round == other.c.round)


def same_attempt(one: Table, other: Table) -> ColumnElement[bool]:
    """Return the condition that rows of two tables belong to the same attempt at one prompt.

    Of `PROMPTS` that is its current attempt.
    """
    return and_(same_prompt(one, other), one.c.attempt == other.c.attempt)


def chunks(items: Sequence[T]) -> list[Sequence[T]]:
    """Cut a sequence into pieces that fit one statement."""
    return [items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK)]
