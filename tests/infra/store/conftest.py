"""The store that a test is about: SQLite in a folder of its own, and a database of PostgreSQL's."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deltawheel.contracts.store import Store
from deltawheel.infra.store.store import SqlStore
from tests.components import require
from tests.postgres import PostgresServer, postgres_server
from tests.records import WHEEL


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One server for the whole run; each test has a database of its own."""
    require("postgres")
    with postgres_server() as server:
        yield server


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'state' / 'store.db'}"


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> Iterator[str]:
    with postgres.database() as url:
        yield url


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.integration)])
def url(request: pytest.FixtureRequest) -> str:
    """An empty database, on each of the two in turn."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    store = SqlStore(url, wheel=WHEEL)
    yield store
    store.close()


@pytest.fixture
def opened(url: str) -> Iterator[Callable[..., SqlStore]]:
    """Open stores that are closed when the test ends."""
    stores: list[SqlStore] = []

    def open_store(**options: Any) -> SqlStore:
        stores.append(SqlStore(url, wheel=WHEEL, **options))
        return stores[-1]

    yield open_store
    for store in stores:
        store.close()
