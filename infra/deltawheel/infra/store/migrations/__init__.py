"""Changing the schema, one revision after another. Only this imports Alembic, and only when run.

A new one: change the tables, add `versions/rNNNN_….py` and its number to `schema.REVISIONS`. A test
compares what the revisions make with what the tables say, on both databases.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, inspect, text

from deltawheel.infra.store.schema import REVISIONS, find_revision

__all__ = ["downgrade", "upgrade"]

_ADVISORY_KEY: Final = 0x64656C7461
_BEFORE_MIGRATIONS: Final = "schema_version"
"""What told the first revision's schema before there were migrations."""

_one_at_a_time = threading.Lock()
"""Alembic keeps the migration that runs in its modules."""


def upgrade(connection: Connection) -> None:
    """Bring the schema to the newest revision."""
    with _alone(connection) as config:
        if find_revision(connection) is None and inspect(connection).has_table(_BEFORE_MIGRATIONS):
            command.stamp(config, REVISIONS[0])
            connection.execute(text(f"DROP TABLE {_BEFORE_MIGRATIONS}"))
        command.upgrade(config, REVISIONS[-1])


def downgrade(connection: Connection, revision: str) -> None:
    """Take back every revision after this one; `base` takes back all."""
    with _alone(connection) as config:
        command.downgrade(config, revision)


@contextmanager
def _alone(connection: Connection) -> Iterator[Config]:
    """Wait until nobody else changes this schema, then yield what `env.py` reads.

    SQLite's write lock is held already; PostgreSQL's goes with the transaction.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_KEY})
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    with _one_at_a_time:
        yield config
