"""The store of a simulation: the SQLite adapter in memory, used again for one run after another."""

from sqlalchemy import func, select

from deltawheel.infra.store.columns import METADATA
from deltawheel.infra.store.engine import MemoryDatabase
from deltawheel.infra.store.store import SqlStore

__all__ = ["SimulatedStore"]


class SimulatedStore(SqlStore):
    """The `Store` port on SQLite in memory, with what a simulation asks of it besides."""

    _database: MemoryDatabase

    def __init__(self, *, wheel: str) -> None:
        super(SqlStore, self).__init__(MemoryDatabase(), wheel=wheel)

    def clear(self) -> None:
        """Forget every row."""
        self._database.clear()

    def count_doubles(self) -> dict[str, int]:
        """Count, by table, keys under which more than one row lies.

        By the keys that the tables should have, whether or not the database still keeps them.
        """
        doubles: dict[str, int] = {}
        with self._database.reading() as connection:
            for table in METADATA.sorted_tables:
                keys = table.primary_key.columns
                same = select(*keys).group_by(*keys).having(func.count() > 1).subquery()
                if number := connection.scalar(select(func.count()).select_from(same)):
                    doubles[table.name] = number
        return doubles
