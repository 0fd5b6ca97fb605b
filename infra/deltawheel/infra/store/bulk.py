"""Many rows of one table at once, for the price of the database itself.

SQLAlchemy looks at each value of each row by itself; with the columns' own conversions worked out
once a table, a row with twelve texts costs a third.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import Column, Connection, Dialect, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.schema import ScalarElementColumnDefault

__all__ = ["Insert", "are_all_new", "insert_into"]

Insert = sqlite.Insert | postgresql.Insert


def insert_into(dialect: Dialect, table: Table) -> Insert:
    """Return an insert that knows ON CONFLICT, in this dialect."""
    return postgresql.insert(table) if dialect.name == "postgresql" else sqlite.insert(table)


def are_all_new(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Insert all of these rows, or nothing if the key of one of them is taken.

    All of them have the same columns.
    """
    prepared = _prepare(connection.dialect, table, tuple(rows[0]))
    # No `with`: a full disk takes SQLite's whole transaction back, savepoint and all.
    savepoint = connection.begin_nested()
    inserted = connection.exec_driver_sql(prepared.statement, prepared.values_of(rows))
    if inserted.rowcount == len(rows):
        savepoint.commit()
        return True
    savepoint.rollback()
    return False


@dataclass(frozen=True, slots=True)
class _Column:
    """How one column's values become what the driver takes."""

    name: str
    convert: Callable[[Any], Any] | None
    default: Any

    def of(self, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Return the column's values; equal ones, as most names and times are, convert once."""
        values = [row.get(self.name, self.default) for row in rows]
        if self.convert is None:
            return values
        converted = {value: self.convert(value) for value in set(values)}
        return [converted[value] for value in values]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    """An insert as the driver takes it; `is_positional` says how it names its values."""

    statement: str
    columns: tuple[_Column, ...]
    is_positional: bool

    def values_of(self, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
        values = list(zip(*(column.of(rows) for column in self.columns), strict=True))
        if self.is_positional:
            return values
        names = [column.name for column in self.columns]
        return [dict(zip(names, row, strict=True)) for row in values]


@lru_cache(maxsize=256)
def _prepare(dialect: Dialect, table: Table, names: tuple[str, ...]) -> _Prepared:
    insert = insert_into(dialect, table).on_conflict_do_nothing()
    compiled = insert.compile(dialect=dialect, column_keys=list(names))
    return _Prepared(
        statement=str(compiled),
        columns=tuple(
            _column(table.c[name], dialect) for name in compiled.positiontup or compiled.params
        ),
        is_positional=bool(compiled.positional),
    )


def _column(column: Column[Any], dialect: Dialect) -> _Column:
    convert = column.type.dialect_impl(dialect).bind_processor(dialect)
    default = column.default.arg if isinstance(column.default, ScalarElementColumnDefault) else None
    return _Column(column.name, convert, default)
