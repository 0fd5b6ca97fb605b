"""Which schema a database has, and which this code reads and writes.

Told by one row in plain SQL, so that opening a store that is up to date imports no Alembic.
"""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, Select, String, column, inspect, select, table

from deltawheel.contracts.errors import ConfigError

__all__ = ["REVISIONS", "VERSION_TABLE", "find_revision", "needs_upgrade"]

REVISIONS: Final = (
    "0001",
    "0002",
    "0003",
    "0004",
    "0005",
    "0006",
    "0007",
    "0008",
    "0009",
    "0010",
    "0011",
)
"""Every revision that this code knows, the oldest first; it reads and writes the last."""

VERSION_TABLE: Final = "schema_revision"
"""Not Alembic's own name for it: MLflow may keep its tables in the same database."""

_REVISION: Final[Select[str]] = select(column("version_num", String())).select_from(
    table(VERSION_TABLE)
)


def find_revision(connection: Connection) -> str | None:
    """Return the database's revision; None where it has no schema of ours."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.scalar(_REVISION)


def needs_upgrade(found: str | None, *, name: object, known: Sequence[str] = REVISIONS) -> bool:
    """Tell whether a schema is older than this code, or missing.

    Raises:
        ConfigError: it is none that this code knows, so a later deltawheel has made it.
    """
    if found is not None and found not in known:
        raise ConfigError(
            f"the store {name} has schema {found}, but this deltawheel knows {known[-1]}: "
            "install the deltawheel that made it, or a newer one"
        )
    return found != known[-1]
