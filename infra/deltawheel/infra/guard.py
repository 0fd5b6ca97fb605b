"""The guard: a small parent under which a process cannot leave orphans behind.

Run as a script, `python -I -S guard.py --pipe FD -- argv…`, by `processes.spawn_guarded`. The guard
leads a session of its own, adopts whatever its descendants orphan (PR_SET_CHILD_SUBREAPER), and
holds the read end of a pipe whose write end only its parent has. When the pipe reaches its end of
file (the parent closed it or died, however it died) or when the child ends, it kills every
descendant and exits with the child's status, or 128 plus the signal that ended it. SIGTERM and
SIGINT go on to the child, so that it can stop in order. When the guard itself is killed, the child
is killed by the kernel (PR_SET_PDEATHSIG), and what the child leaves falls to the next subreaper
above; `GuardedProcess.poll` and `processes.kill_adopted_orphans` take it from there.

Only the standard library is imported, and little of it: one guard stands beside every process.
Source: prctl(2), proc(5).
"""

import ctypes
import os
import select
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, NoReturn

PR_SET_PDEATHSIG: Final = 1
PR_SET_CHILD_SUBREAPER: Final = 36
FORWARDED: Final = (signal.SIGTERM, signal.SIGINT)
KILLED: Final = 128 + signal.SIGKILL
CANNOT_START: Final = 127
PARENT_CHECK_MS: Final = 1_000


class ProcessStat(NamedTuple):
    """One line of /proc: `started` is in clock ticks since boot, and makes a pid unmistakable."""

    pid: int
    state: str
    parent: int
    session: int
    started: int

    @property
    def is_alive(self) -> bool:
        """Whether it still runs; a zombie only waits for its parent to read its status."""
        return self.state not in "ZX"


def read_stat(pid: int) -> ProcessStat | None:
    """Read one process, or nothing if there is none of this pid."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            line = file.read().decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name stands in parentheses and may itself hold blanks and parentheses.
    fields = line[line.rindex(")") + 2 :].split()
    return ProcessStat(pid, fields[0], int(fields[1]), int(fields[3]), int(fields[19]))


def read_processes() -> dict[int, ProcessStat]:
    """Read every process that this one can see, by pid."""
    found = (read_stat(int(name)) for name in os.listdir("/proc") if name.isdecimal())
    return {process.pid: process for process in found if process is not None}


def find_descendants(root: int, processes: Mapping[int, ProcessStat]) -> list[ProcessStat]:
    """Return the living descendants of a process, however many generations down."""
    children: dict[int, list[ProcessStat]] = {}
    for process in processes.values():
        children.setdefault(process.parent, []).append(process)
    found: list[ProcessStat] = []
    unvisited = [root]
    while unvisited:
        below = children.get(unvisited.pop(), [])
        found += below
        unvisited += [process.pid for process in below]
    return [process for process in found if process.is_alive]


def send_signal(process: ProcessStat, signum: int) -> bool:
    """Signal a process unless its pid now belongs to another; tell whether it was signalled."""
    current = read_stat(process.pid)
    if current is None or not current.is_alive or current.started != process.started:
        return False
    try:
        os.kill(process.pid, signum)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def prctl(option: int, value: int) -> None:
    """Set an attribute of this process.

    Raises:
        OSError: the kernel refuses.
    """
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}, {value}): {os.strerror(number)}")


def become_subreaper() -> None:
    """Make this process the parent of whatever its descendants orphan."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)


def _open_wakeup() -> int:
    """Turn signals into bytes, each its number, on the file descriptor that is returned."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for signum in (*FORWARDED, signal.SIGCHLD):
        signal.signal(signum, lambda *_: None)
    return reader


def _start_child(command: Sequence[str]) -> int:
    """Fork the child, which the kernel kills when this process dies; return its pid."""
    guard = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become(command, guard)
    return pid


def _become(command: Sequence[str], guard: int) -> NoReturn:
    try:
        signal.set_wakeup_fd(-1)
        for signum in (*FORWARDED, signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(signum, signal.SIG_DFL)
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == guard:
            os.execvp(command[0], list(command))
    except OSError as error:
        sys.stderr.write(f"guard: cannot start {command[0]!r}: {error.strerror}\n")
        sys.stderr.flush()
    finally:
        os._exit(CANNOT_START)


def _reap() -> tuple[dict[int, int], bool]:
    """Collect every ended child: their exit statuses by pid, and whether children remain."""
    statuses: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return statuses, False
        if pid == 0:
            return statuses, True
        code = os.waitstatus_to_exitcode(status)
        statuses[pid] = code if code >= 0 else 128 - code


def _watch(child: int, pipe: int, wakeup: int, parent: int) -> int:
    """Wait for the child's end, or the parent's; return the status to exit with."""
    poller = select.poll()
    poller.register(pipe, select.POLLIN)
    poller.register(wakeup, select.POLLIN)
    while True:
        ready = {fd for fd, _ in poller.poll(PARENT_CHECK_MS)}
        signums = os.read(wakeup, 4096) if wakeup in ready else b""
        statuses, _ = _reap()
        if child in statuses:
            return statuses[child]
        # The parent's pid changes when it dies, even if a fork of its own still holds the pipe.
        if pipe in ready or os.getppid() != parent:
            return KILLED
        for signum in signums:
            if signum in FORWARDED:
                os.kill(child, signum)


def kill_descendants() -> None:
    """Kill everything below this subreaper, again and again until it has no child.

    That is the one sure sign: whatever lives below hangs on some child of ours, since orphans
    become our children. Processes of another user that may not be killed are left.
    """
    pause_s = 0.001
    while _reap()[1]:
        living = find_descendants(os.getpid(), read_processes())
        num_signalled = sum([send_signal(process, signal.SIGKILL) for process in living])
        if living and not num_signalled and all(read_stat(process.pid) for process in living):
            return
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, 0.05)


def main(argv: Sequence[str]) -> int:
    """Guard one process to its end."""
    if len(argv) < 4 or argv[0] != "--pipe" or argv[2] != "--":
        sys.stderr.write("usage: guard.py --pipe FD -- COMMAND [ARGUMENT…]\n")
        return 2
    parent, pipe = os.getppid(), int(argv[1])
    os.set_inheritable(pipe, False)
    if os.getsid(0) != os.getpid():
        os.setsid()
    become_subreaper()
    wakeup = _open_wakeup()
    status = _watch(_start_child(argv[3:]), pipe, wakeup, parent)
    kill_descendants()
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
