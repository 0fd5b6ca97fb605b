"""Processes that leave no orphans.

Linux only, like the guard: sessions, subreapers and /proc.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from deltawheel.contracts.errors import DeltawheelError
from deltawheel.infra import guard
from deltawheel.infra.guard import ProcessStat, become_subreaper
from deltawheel.infra.listening import port_in_use

__all__ = [
    "Command",
    "GuardRecord",
    "GuardedProcess",
    "ProcessId",
    "ReapReport",
    "become_subreaper",
    "current_process",
    "identify",
    "is_alive",
    "kill_adopted_orphans",
    "kill_session",
    "living_descendants",
    "read_boot_id",
    "reap",
    "resident_bytes",
    "session_members",
    "spawn_guarded",
]

KILL_TIMEOUT_S: Final = 10.0
GUARD_TIMEOUT_S: Final = 3.0
_live_guards: set[int] = set()
_spawning = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """How a process is started: its arguments and its whole environment."""

    argv: tuple[str, ...]
    env: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessId:
    """One process, unmistakably: a pid is given away again, a pid with its start time is not.

    `started` is in clock ticks since boot, so it means something only within one boot.
    """

    pid: int
    started: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardRecord:
    """What is kept of a guarded process, so that a later run can reap it.

    `members` are processes that were once seen in the guard's session: while one of them lives, or
    the guard, the session's number cannot have been given to another.
    """

    guard: ProcessId
    members: tuple[ProcessId, ...] = ()
    host: str = "127.0.0.1"
    ports: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReapReport:
    """What reaping one record did: pids killed, and ports that are in use nevertheless."""

    killed: tuple[int, ...]
    busy_ports: tuple[int, ...]


class GuardedProcess:
    """A process under its guard; while this object's process lives, so may the guarded one."""

    def __init__(self, popen: "subprocess.Popen[bytes]", pipe: int) -> None:
        self._popen = popen
        self._pipe: int | None = pipe
        self._lock = threading.Lock()
        process = guard.read_stat(popen.pid)
        assert process is not None, "an unreaped child is always listed"
        self.id = ProcessId(pid=popen.pid, started=process.started)

    @property
    def pid(self) -> int:
        """Pid of the guard, which is also the session's id."""
        return self.id.pid

    def members(self) -> tuple[ProcessId, ...]:
        """Return the living processes of its session, the guard among them."""
        return tuple(map(identify, session_members(self.pid)))

    def poll(self) -> int | None:
        """Return the exit status if it has ended, 128 + n for signal n, and nothing else.

        The guard's own end comes last, so after it nothing is left, unless the guard itself was
        killed: what then remains of its session is killed here, before the guard's pid is freed.
        """
        with self._lock:
            if self._popen.returncode is None and not self._has_ended():
                return None
            self._finish()
            code = self._popen.returncode
            return code if code >= 0 else 128 - code

    def terminate(self) -> None:
        """Ask the process to stop in order (SIGTERM); the guard passes it on."""
        with self._lock:
            if self._popen.returncode is None:
                self._popen.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the process and all that it started; return when nothing of it is left.

        Raises:
            DeltawheelError: something of it cannot be killed.
        """
        self.close()
        try:
            self.wait(GUARD_TIMEOUT_S)
        except TimeoutError:
            self._popen.kill()
            try:
                self.wait(KILL_TIMEOUT_S)
            except TimeoutError as error:
                raise DeltawheelError(f"{error}, though it was killed; end it by hand") from error

    def wait(self, timeout_s: float | None = None) -> int:
        """Wait for its end and return the exit status.

        Raises:
            TimeoutError: it still runs after `timeout_s` seconds.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while (status := self.poll()) is None:
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"process {self.pid} still runs after {timeout_s} s")
            time.sleep(0.02)
        return status

    def close(self) -> None:
        """Close the pipe, upon which the guard kills everything; without waiting for it."""
        with self._lock:
            self._close_pipe()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()

    def _has_ended(self) -> bool:
        # WNOWAIT: until it is collected, its pid cannot be given to another process.
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self._popen.pid, flags) is not None

    def _finish(self) -> None:
        if self._popen.returncode is None:
            kill_session(self._popen.pid)
            self._popen.wait()
            _live_guards.discard(self._popen.pid)
        self._close_pipe()

    def _close_pipe(self) -> None:
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None


def spawn_guarded(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None,
    log_file: Path,
    cwd: Path | None = None,
) -> GuardedProcess:
    """Start a process under a guard; it and all its descendants end when this process does.

    Args:
        argv: The command; it is looked up on the PATH.
        env: Its whole environment; None means this process's own.
        log_file: Where its output and errors are appended; folders are made.
        cwd: Its working directory; this process's own if unset.

    Raises:
        OSError: the log cannot be opened, or no process can be made. A command that cannot be
            started ends with status 127 and says so in the log.
    """
    log_file.parent.mkdir(parents=True, exist_ok=True)
    reader, writer = os.pipe()
    script = [sys.executable, "-I", "-S", guard.__file__, "--pipe", str(reader), "--", *argv]
    try:
        with log_file.open("ab") as log, _spawning:
            popen = subprocess.Popen(
                script,
                env=env,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(reader,),
                start_new_session=True,
            )
            _live_guards.add(popen.pid)
    except BaseException:
        os.close(writer)
        raise
    finally:
        os.close(reader)
    return GuardedProcess(popen, writer)


def identify(process: ProcessStat) -> ProcessId:
    """Return what tells this process from a later one of the same pid."""
    return ProcessId(pid=process.pid, started=process.started)


def current_process() -> ProcessId:
    """Return this process."""
    process = guard.read_stat(os.getpid())
    assert process is not None, "a process sees itself"
    return identify(process)


def is_alive(process: ProcessId) -> bool:
    """Whether this very process still runs."""
    current = guard.read_stat(process.pid)
    return current is not None and current.is_alive and current.started == process.started


def read_boot_id() -> str:
    """Return what changes at each boot; start times compare only under the same one."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def resident_bytes(processes: Iterable[ProcessId]) -> int:
    """Return the resident memory of these processes, bytes; one that has ended has none."""
    return sum(map(_resident_bytes, processes))


def _resident_bytes(process: ProcessId) -> int:
    try:
        pages = Path(f"/proc/{process.pid}/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def session_members(session: int) -> list[ProcessStat]:
    """Return the living processes of a session."""
    processes = guard.read_processes().values()
    return [process for process in processes if process.session == session and process.is_alive]


def living_descendants(pid: int | None = None) -> list[ProcessStat]:
    """Return the living descendants of a process, of this one if unset."""
    return guard.find_descendants(os.getpid() if pid is None else pid, guard.read_processes())


def kill_session(session: int) -> tuple[int, ...]:
    """Kill every process of a session; return the pids.

    Raises:
        DeltawheelError: some of them live on for ten seconds.
    """
    return _kill_all(lambda: session_members(session))


def kill_adopted_orphans() -> tuple[int, ...]:
    """Kill what has been orphaned below this subreaper, with its descendants; return the pids.

    An adopted process is a child in a session other than ours that we did not start as a guard:
    guards lead a session each, and what escapes them keeps theirs or has made its own.
    """
    with _spawning:
        killed = _kill_all(_find_adopted_alive)
        for child in _find_adopted_children(guard.read_processes()):
            os.waitpid(child.pid, os.WNOHANG)
    return killed


def reap(record: GuardRecord) -> ReapReport:
    """Kill what is left of an earlier run's process, and nothing that only has its number.

    Raises:
        DeltawheelError: some of it cannot be killed.
    """
    deadline = time.monotonic() + GUARD_TIMEOUT_S
    # Its pipe is closed, so a living guard is at work, and reaches even what left its session.
    while is_alive(record.guard) and time.monotonic() < deadline:
        time.sleep(0.02)
    killed = _kill_all(lambda: session_members(record.guard.pid)) if _is_ours(record) else ()
    deadline = time.monotonic() + GUARD_TIMEOUT_S
    while busy := tuple(port for port in record.ports if _is_busy(record.host, port)):
        if not killed or time.monotonic() >= deadline:
            break
        time.sleep(0.05)
    return ReapReport(killed=killed, busy_ports=busy)


def _is_busy(host: str, port: int) -> bool:
    try:
        return port_in_use(host, port)
    except OSError:
        # An address that is no longer this machine's: nothing of the earlier run listens there.
        return False


def _find_adopted_children(processes: Mapping[int, ProcessStat]) -> list[ProcessStat]:
    own, own_session = os.getpid(), os.getsid(0)
    return [
        process
        for process in processes.values()
        if process.parent == own
        and process.session != own_session
        and process.pid not in _live_guards
    ]


def _find_adopted_alive() -> list[ProcessStat]:
    processes = guard.read_processes()
    adopted = _find_adopted_children(processes)
    below = [found for child in adopted for found in guard.find_descendants(child.pid, processes)]
    return [*(child for child in adopted if child.is_alive), *below]


def _is_ours(record: GuardRecord) -> bool:
    """Whether the session still is the recorded one: somebody recorded is still in it."""
    recorded = {record.guard, *record.members}
    return any(identify(member) in recorded for member in session_members(record.guard.pid))


def _kill_all(find: Callable[[], Iterable[ProcessStat]]) -> tuple[int, ...]:
    """Kill what `find` finds until it finds nothing more."""
    killed: dict[int, None] = {}
    deadline = time.monotonic() + KILL_TIMEOUT_S
    while living := list(find()):
        for process in living:
            if guard.send_signal(process, signal.SIGKILL):
                killed[process.pid] = None
        if time.monotonic() >= deadline:
            pids = ", ".join(str(process.pid) for process in living)
            raise DeltawheelError(f"processes {pids} do not end when killed; end them by hand")
        time.sleep(0.01)
    return tuple(killed)
