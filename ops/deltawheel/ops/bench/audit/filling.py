"""Filling a store with finished work, past all services: for measuring what reads it."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

from sqlalchemy import Connection, Dialect, Table

from deltawheel.infra.store import tables
from deltawheel.infra.store.engine import Database
from deltawheel.ops.bench.audit.stories import Pattern, Story, stories, story_of

__all__ = ["fill"]

_BATCH = 2_000
_SPAN = timedelta(seconds=10)
_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
_FILLED = (
    tables.PROMPTS,
    tables.ASSIGNMENTS,
    tables.TRACES,
    tables.JUDGEMENTS,
    tables.SLOT_ENDS,
    tables.CLOSINGS,
    tables.PAIRS,
    tables.PAIR_DELTAS,
    tables.QUARANTINE,
    tables.QUARANTINE_REASONS,
)
"""In an order in which each row finds what it refers to."""
_Values: TypeAlias = tuple[Any, ...]


def fill(
    database: Database, *, wheel: str, num_prompts: int, progress: Callable[[int], None]
) -> None:
    """Write so many prompts with everything that became of them into an empty store.

    Indexes are made at the end, which is what makes it quick. Calls `progress` with the number of
    prompts written so far.
    """
    with database.writing() as connection:
        for table in _FILLED:
            for index in table.indexes:
                index.drop(connection)
    for first in range(0, num_prompts, _BATCH):
        last = min(first + _BATCH, num_prompts)
        with database.writing() as connection:
            _write_batch(connection, wheel, first, last)
        progress(last)
    with database.writing() as connection:
        for table in _FILLED:
            for index in table.indexes:
                index.create(connection)
        engine = connection.engine
    if engine.dialect.name == "postgresql":
        # What its autovacuum does by itself to a store that has been filled in a wheel's time.
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM ANALYZE")


def _write_batch(connection: Connection, wheel: str, first: int, last: int) -> None:
    at = _BEGIN + _SPAN * (first // _BATCH)
    told = stories(wheel, at)
    ready = {
        outcome: [_bound(pattern, connection.dialect) for pattern in story.patterns]
        for outcome, story in told.items()
    }
    rows: defaultdict[Table, list[_Values]] = defaultdict(list)
    for number in range(first, last):
        outcome = story_of(number)
        _tell(told[outcome], ready[outcome], number, rows)
    for table in _FILLED:
        _insert(connection, table, rows[table])


def _bound(pattern: Pattern, dialect: Dialect) -> tuple[Table, _Values]:
    """Return a pattern's values as the driver takes them, in the order of the columns."""
    values = []
    for column in pattern.table.columns:
        bind = column.type.dialect_impl(dialect).bind_processor(dialect)
        value = pattern.values.get(column.name)
        values.append(bind(value) if bind is not None else value)
    return pattern.table, tuple(values)


def _tell(
    story: Story,
    patterns: Iterable[tuple[Table, _Values]],
    number: int,
    rows: Mapping[Table, list[_Values]],
) -> None:
    ids = story.ids(number)
    for table, values in patterns:
        rows[table].append(tuple(v % ids if type(v) is str else v for v in values))


def _insert(connection: Connection, table: Table, rows: Sequence[_Values]) -> None:
    """Insert by the driver itself: SQLAlchemy's own preparation would take most of the time."""
    raw: Any = connection.connection.driver_connection
    names = ", ".join(column.name for column in table.columns)
    if connection.dialect.name == "sqlite":
        places = ", ".join("?" * len(table.columns))
        raw.executemany(f"INSERT INTO {table.name} ({names}) VALUES ({places})", rows)
        return
    with raw.cursor() as cursor, cursor.copy(f"COPY {table.name} ({names}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)
