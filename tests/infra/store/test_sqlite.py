"""SQLite's file: what is made, what is refused, and what its errors are turned into."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from deltawheel.contracts.errors import STORE, ConfigError, DeltawheelError, RetryLaterError
from deltawheel.infra.store.store import SqlStore
from tests.infra.store.stored import add_judged
from tests.records import WHEEL, a_prompt, a_trace


@pytest.fixture
def url(sqlite_url: str) -> str:
    return sqlite_url


def path_of(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


@contextmanager
def on_connect(*pragmas: str) -> Iterator[None]:
    """Set these on every connection, as a machine in trouble would."""

    def trouble(connection: Any, _: object) -> None:
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")

    event.listen(Engine, "connect", trouble)
    try:
        yield
    finally:
        event.remove(Engine, "connect", trouble)


def test_opening_makes_folder_and_file_with_a_write_ahead_log(
    url: str, opened: Callable[..., SqlStore]
) -> None:
    opened()
    with closing(sqlite3.connect(path_of(url))) as file:
        assert file.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_reading_a_wheel_that_never_ran_makes_nothing(url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no wheel has run here yet: start one with deltawheel"):
        SqlStore.open_existing(url, wheel=WHEEL)
    assert list(tmp_path.iterdir()) == []


def test_reading_an_empty_file_says_that_no_wheel_has_run(url: str) -> None:
    path_of(url).parent.mkdir()
    path_of(url).touch()
    with pytest.raises(ConfigError, match="no wheel has run here yet"):
        SqlStore.open_existing(url, wheel=WHEEL)


@pytest.mark.parametrize("must_exist", [True, False])
def test_file_that_is_no_database_is_named(url: str, must_exist: bool) -> None:
    path_of(url).parent.mkdir()
    path_of(url).write_bytes(b"not a database" * 1_000)
    with pytest.raises(DeltawheelError, match=r"store\.db is not a database: move it away"):
        SqlStore(url, wheel=WHEEL, must_exist=must_exist)


def test_damaged_file_is_named(url: str, opened: Callable[..., SqlStore]) -> None:
    store = opened()
    store.add_prompts([a_prompt(f"{number}+1=") for number in range(500)])
    store.close()
    raw = bytearray(path_of(url).read_bytes())
    raw[4096:] = b"\x55" * (len(raw) - 4096)
    path_of(url).write_bytes(raw)
    with pytest.raises(DeltawheelError, match=r"store\.db is damaged: move it away"):
        opened().progress()


def test_folder_in_place_of_the_file_is_named(url: str) -> None:
    path_of(url).mkdir(parents=True)
    with pytest.raises(DeltawheelError, match="cannot be opened"):
        SqlStore(url, wheel=WHEEL)


def test_file_in_place_of_the_folder_is_named(url: str) -> None:
    path_of(url).parent.touch()
    with pytest.raises(DeltawheelError, match=r"folder .* cannot be made"):
        SqlStore(url, wheel=WHEEL)


def test_read_only_store_is_read_but_not_written(url: str, opened: Callable[..., SqlStore]) -> None:
    opened().close()
    with on_connect("query_only=ON"):
        store = opened()
        assert store.progress().is_drained
        with pytest.raises(DeltawheelError, match="is read-only: give this user the right"):
            store.add_traces([a_trace()])


def test_full_disk_is_said_and_loses_nothing(url: str, opened: Callable[..., SqlStore]) -> None:
    prompt = add_judged(before := opened())
    before.close()
    with on_connect("max_page_count=1"):
        store = opened()
        many = [a_prompt(f"{number}+1=") for number in range(500)]
        with pytest.raises(DeltawheelError, match="its disk is full: free space") as caught:
            store.add_prompts(many)
        assert not isinstance(caught.value, RetryLaterError)
    group = opened().group(prompt.key)
    assert group is not None
    assert group.has_ended


def test_lock_held_by_another_process_is_a_reason_to_retry(
    url: str, opened: Callable[..., SqlStore]
) -> None:
    opened().close()
    with on_connect("busy_timeout=50"):
        store = opened()
        with closing(sqlite3.connect(path_of(url), isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(RetryLaterError, match="is busy") as caught:
                store.add_traces([a_trace()])
            assert caught.value.dependency == STORE
            assert store.progress().is_drained
        assert store.add_traces([a_trace()])[0] == a_trace()
