"""The run file: what runs at the moment, for `status`, and what to reap after a crash."""

import fcntl
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from deltawheel.contracts.clock import Clock
from deltawheel.contracts.errors import ConfigError, DeltawheelError
from deltawheel.contracts.settings import Settings
from deltawheel.infra import wiring
from deltawheel.infra.processes import (
    GuardRecord,
    ProcessId,
    current_process,
    is_alive,
    read_boot_id,
    reap,
)
from deltawheel.ops.supervisor.lifecycle import Phase
from deltawheel.ops.supervisor.plan import (
    ProcessKind,
    read_health_port,
    run_folder,
    service_file,
)

__all__ = [
    "ProcessState",
    "RunFile",
    "RunRecord",
    "metrics_urls",
    "read_killed_run",
    "read_run",
    "run_file",
]

NAME: Final = "wheel.json"


class ProcessState(BaseModel):
    """One process as it stands: `guard` leads the session `guard.pid` while there is a process."""

    model_config = ConfigDict(frozen=True)

    name: str
    kind: ProcessKind
    phase: Phase
    guard: ProcessId | None
    members: tuple[ProcessId, ...]
    host: str
    ports: tuple[int, ...]
    num_restarts: int
    last_status: int | None
    log_file: Path

    @property
    def is_alive(self) -> bool:
        """Whether something of it still runs."""
        return any(is_alive(one) for one in (self.guard, *self.members) if one is not None)

    def guard_record(self) -> GuardRecord | None:
        """Return what is needed to reap it, if there is a process."""
        if self.guard is None:
            return None
        return GuardRecord(guard=self.guard, members=self.members, host=self.host, ports=self.ports)


class RunRecord(BaseModel):
    """One run of a wheel."""

    model_config = ConfigDict(frozen=True)

    wheel: str
    boot_id: str
    supervisor: ProcessId
    started_at: datetime
    gateway_url: str
    broker: str
    servers: dict[str, str]
    processes: tuple[ProcessState, ...] = ()

    @classmethod
    def begin(cls, settings: Settings, *, started_at: datetime) -> Self:
        """Return the record of a run that this process is about to start; ports are resolved."""
        return cls(
            wheel=settings.wheel,
            boot_id=read_boot_id(),
            supervisor=current_process(),
            started_at=started_at,
            gateway_url=settings.gateway.url,
            broker=wiring.bootstrap_address(settings),
            servers={server.name: server.url for server in settings.servers},
        )

    @property
    def is_running(self) -> bool:
        """Whether the supervisor that wrote this still lives."""
        return self.boot_id == read_boot_id() and is_alive(self.supervisor)

    def left_processes(self) -> tuple[ProcessState, ...]:
        """Return the processes of which something still runs."""
        if self.boot_id != read_boot_id():
            return ()
        return tuple(process for process in self.processes if process.is_alive)


def run_file(settings: Settings) -> Path:
    """Return where the run file lies while a wheel runs, and after one was killed."""
    return run_folder(settings) / NAME


def read_run(settings: Settings) -> RunRecord | None:
    """Return the run that is on at the moment, if one is.

    A file that cannot be read counts as none: only the next `up` sets it aside.
    """
    record = _read(settings)
    return record if record is not None and record.is_running else None


def read_killed_run(settings: Settings) -> RunRecord | None:
    """Return the run that ended without removing its file, if one did; the next `up` reaps it."""
    record = _read(settings)
    return record if record is not None and not record.is_running else None


def _read(settings: Settings) -> RunRecord | None:
    try:
        text = run_file(settings).read_text(encoding="utf-8")
        return RunRecord.model_validate_json(text)
    except (OSError, ValueError):
        return None


def metrics_urls(settings: Settings, run: RunRecord) -> dict[str, str]:
    """Return where each running service serves its metrics; the port changes with each start."""
    ports = {
        process.name: read_health_port(service_file(settings, process.name))
        for process in run.processes
        if process.guard is not None
    }
    return {name: f"http://127.0.0.1:{port}/metrics" for name, port in ports.items() if port}


class RunFile:
    """This process's claim on a state folder, and the file that tells others of its run."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._lock: int | None = None
        self._record: RunRecord | None = None

    @property
    def path(self) -> Path:
        """Return the file's path."""
        return run_file(self._settings)

    def claim(self) -> tuple[str, ...]:
        """Take the state folder for this process, and reap what a killed run has left in it.

        To be called before ports are resolved: what is left may hold them. Returns sentences on
        what was found and done.

        Raises:
            ConfigError: another wheel runs on this state, or the folder cannot be used.
            DeltawheelError: a leftover cannot be killed.
        """
        self._take_lock()
        try:
            return self._reap_leftovers()
        except DeltawheelError:
            self.release()
            raise

    def begin(self, settings: Settings) -> None:
        """Start the record of this run, from settings whose ports are resolved."""
        self._record = RunRecord.begin(settings, started_at=self._clock.now())
        self.publish(())

    def publish(self, states: Sequence[ProcessState]) -> None:
        """Replace the file by one with these states, in one step.

        Raises:
            OSError: it cannot be written.
        """
        if self._record is None:
            raise DeltawheelError("the run has not begun; call begin() with resolved settings")
        record = self._record.model_copy(update={"processes": tuple(states)})
        draft = self.path.with_name(f"{NAME}.draft")
        draft.write_text(record.model_dump_json(indent=2), encoding="utf-8")
        draft.replace(self.path)

    def release(self) -> None:
        """Remove the file and give the folder back; after the last process has ended."""
        if self._record is not None:
            self.path.unlink(missing_ok=True)
            self._record = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take_lock(self) -> None:
        folder = self.path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(folder / "wheel.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(
                f"home: {folder} cannot be used: {error.strerror}; give a folder that can be "
                "written, or move what is in the way"
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock)
            raise ConfigError(self._describe_other()) from error
        self._lock = lock

    def _describe_other(self) -> str:
        other = read_run(self._settings)
        who = f" (pid {other.supervisor.pid}, {other.gateway_url})" if other is not None else ""
        return (
            f"home: a wheel is already running on {self._settings.state}{who}; stop it first, or "
            "give this one another home"
        )

    def _reap_leftovers(self) -> tuple[str, ...]:
        try:
            record = RunRecord.model_validate_json(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return ()
        except (ValidationError, UnicodeDecodeError):
            return (self._set_aside(),)
        except OSError as error:
            raise ConfigError(f"home: cannot read {self.path}: {error.strerror}") from error
        if record.boot_id != read_boot_id():
            return ()
        return tuple(filter(None, map(_reap, record.processes)))

    def _set_aside(self) -> str:
        aside = self.path.with_name(f"{NAME}.unreadable")
        self.path.replace(aside)
        return (
            f"{self.path} could not be read and was set aside as {aside.name}; if an earlier run "
            "was killed, end its processes by hand"
        )


def _reap(state: ProcessState) -> str | None:
    record = state.guard_record()
    if record is None:
        return None
    report = reap(record)
    if not report.killed:
        return None
    pids = ", ".join(map(str, report.killed))
    return f"{state.name}: killed what an earlier run had left (pid {pids})"
