"""What every part of the store is built on: one database, one wheel, first writer wins."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Table, and_, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite

from deltawheel.contracts.prompt import PromptKey
from deltawheel.contracts.record import Record
from deltawheel.infra.store.engine import Database

__all__ = [
    "Part",
    "Row",
    "among",
    "chunks",
    "first_writer",
    "insert_missing",
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


def upserting(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """Return an insert that knows ON CONFLICT, in the connection's dialect."""
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)


def insert_missing(
    connection: Connection, table: Table, rows: Sequence[Row]
) -> set[tuple[Any, ...]]:
    """Insert the rows whose key is free; return the primary keys of these.

    By RETURNING, because PostgreSQL counts no rows of a bulk insert; in the order of the keys,
    because two transactions that insert the same rows in another order wait for each other.
    """
    if not rows:
        return set()
    keys = table.primary_key.columns
    insert = upserting(connection, table).on_conflict_do_nothing().returning(*keys)
    ordered = sorted(rows, key=lambda row: tuple(row[column.name] for column in keys))
    return {tuple(row) for row in connection.execute(insert, ordered)}


def first_writer(connection: Connection, table: Table, row: Row, record: R) -> R:
    """Store the record under its key and return what the store holds there."""
    if insert_missing(connection, table, [row]):
        return record
    key = and_(*(column == row[column.name] for column in table.primary_key.columns))
    held = connection.execute(select(table.c.payload).where(key)).scalar_one()
    return type(record).model_validate_json(held)


def among(table: Table, keys: Sequence[PromptKey]) -> ColumnElement[bool]:
    """Return the condition that a row belongs to one of these (prompt, round)s.

    The ids alone say it first: SQLite searches no index for a list of tuples.
    """
    is_id = table.c.prompt_id.in_({key.prompt_id for key in keys})
    return and_(is_id, tuple_(table.c.prompt_id, table.c.round).in_([tuple(key) for key in keys]))


def same_prompt(one: Table, other: Table) -> ColumnElement[bool]:
    """Return the condition that rows of two tables belong to the same (prompt, round)."""
    return and_(one.c.prompt_id == other.c.prompt_id, one.c.round == other.c.round)


def chunks(items: Sequence[T]) -> list[Sequence[T]]:
    """Cut a sequence into pieces that fit one statement."""
    return [items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK)]
