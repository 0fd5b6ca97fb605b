"""The store that training's tests run on."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from deltawheel.contracts.store import Store
from deltawheel.infra.store.store import SqlStore
from tests.records import WHEEL


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = SqlStore(f"sqlite:///{tmp_path / 'store.db'}", wheel=WHEEL)
    yield store
    store.close()
