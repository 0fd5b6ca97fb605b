"""The database behind the store: how it is opened, how transactions begin, what errors mean.

All that differs between SQLite and PostgreSQL is here; statements elsewhere run on both.
"""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import sqlalchemy.exc
from sqlalchemy import Connection, Dialect, Engine, create_engine, event, make_url
from sqlalchemy.engine import URL
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry, StaticPool

from deltawheel.contracts.errors import (
    STORE,
    ConfigError,
    DeltawheelError,
    InvalidRecordError,
    RetryLaterError,
)
from deltawheel.infra.store.schema import find_revision, needs_upgrade

__all__ = ["Database", "MemoryDatabase", "NoStoreError"]

_BUSY_TIMEOUT_S = 30.0
_MAX_SILENCE_S = 120.0
"""How long one statement of the stream may take; the audit and migrations may take longer."""

_POSTGRES_OPTIONS = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""For libpq, where the URL says nothing else: a host that is gone is noticed in half a minute."""

_BEGIN = "deltawheel_begin"
_DIALECTS = ("sqlite", "postgresql")
_MEANINGS = {
    "SQLITE_NOTADB": "is not a database: move it away, or set store.url to another file",
    "SQLITE_CORRUPT": "is damaged: move it away with its -wal and -shm files, or restore a copy",
    "SQLITE_READONLY": "is read-only: give this user the right to write it and its folder",
    "SQLITE_PERM": "may not be accessed: give this user the right to write it and its folder",
    "SQLITE_CANTOPEN": "cannot be opened: check that the folder exists and may be written",
    "SQLITE_FULL": "cannot grow because its disk is full: free space, then start again",
    "SQLITE_IOERR": "cannot be read or written, the disk reports an error: check disk and space",
}
"""What an operator must know, by SQLite's primary error name."""

_TRANSIENT = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PROTOCOL")

_POSTGRES_MEANINGS = {
    "53100": "cannot grow because its disk is full: free space, then start again",
    "25006": "is read-only: set store.url to the server that takes writes",
    "42501": "may not be accessed: grant this user the right to make and write tables",
}
"""The same, by PostgreSQL's error code."""

_POSTGRES_CONFLICTS = ("40001", "40P01", "55P03")
_POSTGRES_REFUSED = ("22", "54000")
"""Values that no column can hold, and keys too long for an index: always the record's fault."""


class NoStoreError(ConfigError):
    """There is no store yet; the first `up` makes it."""


class Database:
    """One database and its connections, shared by all threads of a process."""

    def __init__(
        self,
        url: str,
        *,
        must_exist: bool = False,
        may_differ: bool = False,
        max_silence_s: float = _MAX_SILENCE_S,
    ) -> None:
        """Connect and see to the schema.

        Args:
            url: SQLAlchemy URL, `sqlite:///…` or `postgresql://…`.
            must_exist: create neither file nor tables.
            may_differ: leave the schema as it is, for whoever is about to change it.
            max_silence_s: how long a PostgreSQL that says nothing is listened to.

        Raises:
            ConfigError: the URL is wrong, the schema is newer than this code, or nothing is there.
            DeltawheelError: the file is no database, damaged, or cannot be written.
            RetryLaterError: the database is busy or away.
        """
        self._url = _parse(url)
        self._is_sqlite = self._url.get_backend_name() == "sqlite"
        self.name = self._url.database if self._is_sqlite else self._url.render_as_string()
        if self._is_sqlite:
            _find_file(Path(self._url.database or ""), must_exist=must_exist)
        self._use(_engine(self._url, is_sqlite=self._is_sqlite, max_silence_s=max_silence_s))
        try:
            self._check_schema(must_exist=must_exist, may_differ=may_differ)
        except BaseException:
            self._engine.dispose()
            raise

    def _use(self, engine: Engine) -> None:
        is_sqlite = engine.dialect.name == "sqlite"
        # SQLite has one writer at a time: threads that queue here need not poll for its lock.
        self._writing: AbstractContextManager[Any] = (
            threading.Lock() if is_sqlite else nullcontext()
        )
        self._engine = engine
        self._reader, self._writer = _modes(engine, is_sqlite=is_sqlite)

    @contextmanager
    def reading(self, *, may_take_long: bool = False) -> Iterator[Connection]:
        """Open a transaction that only reads; all its statements see one moment.

        One that may take long is waited for as long as its host is there.
        """
        with (
            self._translated(),
            self._reader.begin() as connection,
            _patient(connection) if may_take_long else nullcontext(),
        ):
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Open a transaction that writes, committed at the end.

        On SQLite it takes the write lock at once: a read that turns into a write fails whatever
        the busy timeout.
        """
        with self._translated(), self._writing, self._writer.begin() as connection:
            yield connection

    @contextmanager
    def _migrating(self) -> Iterator[Connection]:
        """Open the transaction in which the schema may change.

        SQLite changes a table by making it anew, so nothing is checked against it meanwhile.
        """
        with (
            self._translated(),
            self._writing,
            self._writer.connect() as connection,
            _patient(connection),
            _unbound(connection),
            connection.begin(),
        ):
            yield connection

    def find_revision(self) -> str | None:
        """Return the schema's revision; None where no wheel has made one yet."""
        with self.reading() as connection:
            return find_revision(connection)

    def upgrade(self) -> None:
        """Bring the schema to the newest revision; of several at once, one does it."""
        from deltawheel.infra.store import migrations

        with self._migrating() as connection:
            migrations.upgrade(connection)

    def downgrade(self, revision: str) -> None:
        """Take back every revision after this one, with the data that only they can hold."""
        from deltawheel.infra.store import migrations

        with self._migrating() as connection:
            migrations.downgrade(connection, revision)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def _check_schema(self, *, must_exist: bool, may_differ: bool) -> None:
        found = self.find_revision()
        if found is None and must_exist:
            raise _nothing_here(self.name)
        if may_differ or not needs_upgrade(found, name=self.name):
            return
        if must_exist:
            raise ConfigError(
                f"the store {self.name} has the older schema {found}: run deltawheel migrate, or "
                "start the wheel, which does the same"
            )
        self.upgrade()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlalchemy.exc.TimeoutError as error:
            raise RetryLaterError(
                f"no connection to the store {self.name} is free", dependency=STORE
            ) from error
        except sqlalchemy.exc.DBAPIError as error:
            if (meaning := _meaning(error, self.name or "")) is None:
                raise
            raise meaning from error
        except sqlalchemy.exc.StatementError as error:
            if isinstance(error.orig, DeltawheelError):  # a column's type has refused a value
                raise error.orig from error
            raise


class MemoryDatabase(Database):
    """A SQLite database in this process's memory, behind one connection: for simulations.

    No two transactions may overlap, which a simulation without threads sees to.
    """

    def __init__(self) -> None:
        engine = create_engine(
            "sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False}
        )
        _listen_to_sqlite(engine)
        self.name = ":memory:"
        self._use(engine)
        self.upgrade()
        self.keep()

    @property
    def _raw(self) -> sqlite3.Connection:
        with self._engine.connect() as connection:
            return cast(sqlite3.Connection, connection.connection.driver_connection)

    def keep(self) -> None:
        """Have every later `clear` come back to what is there now."""
        self._kept = self._raw.serialize()

    def clear(self) -> None:
        """Forget what has come since; made for thousands of runs, none of which pays a schema."""
        self._raw.deserialize(self._kept)


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except sqlalchemy.exc.ArgumentError as error:
        raise ConfigError(
            "store.url is no database URL: write sqlite:////path/to/store.db or "
            "postgresql://user@host/database"
        ) from error
    backend = parsed.get_backend_name()
    if backend not in _DIALECTS:
        raise ConfigError(f"store.url names {backend!r}, but the store runs on {list(_DIALECTS)}")
    if backend == "sqlite" and parsed.database in {None, "", ":memory:"}:
        raise ConfigError("store.url must name a file: several processes share the store")
    return parsed


def _find_file(path: Path, *, must_exist: bool) -> None:
    if must_exist and not path.is_file():
        raise _nothing_here(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DeltawheelError(
            f"the store's folder {path.parent} cannot be made: {error.strerror}"
        ) from error


def _nothing_here(name: object) -> NoStoreError:
    return NoStoreError(
        f"no wheel has run here yet: start one with deltawheel up or demo (no store at {name})"
    )


def _engine(url: URL, *, is_sqlite: bool, max_silence_s: float) -> Engine:
    options: dict[str, Any] = {"pool_size": 8, "max_overflow": 24, "pool_pre_ping": not is_sqlite}
    if is_sqlite:
        options["connect_args"] = {"timeout": _BUSY_TIMEOUT_S, "check_same_thread": False}
    else:
        options["connect_args"] = {
            name: value for name, value in _POSTGRES_OPTIONS.items() if name not in url.query
        }
    try:
        engine = create_engine(url, **options)
    except ImportError as error:
        raise ConfigError(
            f"store.url needs a driver that is not there ({error}): for PostgreSQL, install "
            "deltawheel with its extra 'postgres', or pip install 'psycopg[binary]'"
        ) from error
    if is_sqlite:
        _listen_to_sqlite(engine)
    else:
        event.listen(engine, "connect", _prepare_postgres)
        if engine.dialect.driver == "psycopg":
            _listen_to_postgres(engine, max_silence_s)
    return engine


def _listen_to_postgres(engine: Engine, max_silence_s: float) -> None:
    from deltawheel.infra.store.silence import ListeningConnection

    @event.listens_for(engine, "do_connect")
    def connect(_: Dialect, __: object, words: Any, options: Any) -> ListeningConnection:  # noqa: ANN401
        connection = ListeningConnection.connect(*words, **options)
        connection.max_silence_s = max_silence_s
        return connection


def _listen_to_sqlite(engine: Engine) -> None:
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)


def _modes(engine: Engine, *, is_sqlite: bool) -> tuple[Engine, Engine]:
    """Return the engine as readers and as writers use it.

    A PostgreSQL reader sees one moment, as SQLite's do, and can never be refused for that. A
    writer sees each statement's own: what a conflict has just told it of, it must be able to read.
    """
    if is_sqlite:
        return engine, engine.execution_options(**{_BEGIN: "IMMEDIATE"})
    return engine.execution_options(isolation_level="REPEATABLE READ"), engine


def _prepare_sqlite(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    raw = cast(sqlite3.Connection, connection)
    raw.isolation_level = None  # the driver begins nothing by itself; `_begin_sqlite` does
    _keep_a_log_ahead(raw)
    raw.execute("PRAGMA synchronous=NORMAL")
    raw.execute("PRAGMA foreign_keys=ON")


def _keep_a_log_ahead(raw: sqlite3.Connection) -> None:
    """Switch a new file to WAL; where several do so at once, SQLite refuses some without waiting.

    Raises:
        sqlite3.OperationalError: the lock was not free within the busy timeout, or worse.
    """
    deadline = time.monotonic() + _BUSY_TIMEOUT_S
    while True:
        try:
            raw.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname not in _TRANSIENT or time.monotonic() >= deadline:
                raise
            time.sleep(0.01)
        else:
            return


@contextmanager
def _patient(connection: Connection) -> Iterator[None]:
    """Listen to this connection for as long as its host is there."""
    raw: Any = connection.connection.driver_connection
    usual = getattr(raw, "max_silence_s", None)
    if usual is None:
        yield
        return
    raw.max_silence_s = None
    try:
        yield
    finally:
        raw.max_silence_s = usual


@contextmanager
def _unbound(connection: Connection) -> Iterator[None]:
    """Let SQLite check no foreign keys; that can be said outside of transactions only."""
    raw = connection.connection.driver_connection
    if not isinstance(raw, sqlite3.Connection):
        yield
        return
    raw.execute("PRAGMA foreign_keys=OFF")
    try:
        yield
    finally:
        raw.execute("PRAGMA foreign_keys=ON")


def _prepare_postgres(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    """Read times in UTC: in another zone the first and the last years lie outside Python's."""
    with closing(connection.cursor()) as cursor:
        cursor.execute("SET TIME ZONE 'UTC'")
    connection.commit()


def _begin_sqlite(connection: Connection) -> None:
    kind = connection.get_execution_options().get(_BEGIN, "DEFERRED")
    connection.exec_driver_sql(f"BEGIN {kind}")


def _meaning(error: sqlalchemy.exc.DBAPIError, name: str) -> DeltawheelError | None:
    """Say what a database error means, or None when it can only be a fault of ours."""
    if (code := getattr(error.orig, "sqlite_errorname", None)) is not None:
        return _sqlite_meaning(code, name)
    return _postgres_meaning(error, getattr(error.orig, "sqlstate", None) or "", name)


def _sqlite_meaning(code: str, name: str) -> DeltawheelError | None:
    if code.startswith(_TRANSIENT):
        return RetryLaterError(
            f"the store {name} is busy: another process holds its lock", dependency=STORE
        )
    for prefix, meaning in _MEANINGS.items():
        if code.startswith(prefix):
            return DeltawheelError(f"the store {name} {meaning}")
    return None


def _postgres_meaning(
    error: sqlalchemy.exc.DBAPIError, code: str, name: str
) -> DeltawheelError | None:
    if isinstance(error, sqlalchemy.exc.DataError) or code.startswith(_POSTGRES_REFUSED):
        return InvalidRecordError(f"the store {name} cannot hold this record: {error.orig}")
    if code in _POSTGRES_CONFLICTS:
        return RetryLaterError(f"the store {name} is busy: another transaction was in the way")
    if code in _POSTGRES_MEANINGS:
        return DeltawheelError(f"the store {name} {_POSTGRES_MEANINGS[code]}")
    if isinstance(error, sqlalchemy.exc.OperationalError | sqlalchemy.exc.InterfaceError):
        return RetryLaterError(f"the store {name} does not answer: {error.orig}", dependency=STORE)
    return None
