"""The guard, run as it is run: with real processes."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deltawheel.infra.guard import ProcessStat, read_processes, read_stat
from deltawheel.infra.processes import (
    GuardedProcess,
    become_subreaper,
    kill_adopted_orphans,
    living_descendants,
    session_members,
    spawn_guarded,
)

SLEEPER = "import threading; threading.Event().wait(60)"
# A child with a grandchild in the same session and one that has left it; names them in a file.
FAMILY = f"""
import pathlib, subprocess, sys, threading
same = subprocess.Popen([sys.executable, "-c", {SLEEPER!r}])
left = subprocess.Popen([sys.executable, "-c", {SLEEPER!r}], start_new_session=True)
draft = pathlib.Path(sys.argv[1] + ".draft")
draft.write_text(f"{{same.pid}} {{left.pid}}")
draft.rename(sys.argv[1])
threading.Event().wait(60)
"""


def eventually(condition: Callable[[], bool], timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        threading.Event().wait(0.01)


def are_gone(*processes: ProcessStat) -> bool:
    table = read_processes()
    return not any(
        process.pid in table
        and table[process.pid].started == process.started
        and table[process.pid].is_alive
        for process in processes
    )


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., GuardedProcess]]:
    become_subreaper()
    started: list[GuardedProcess] = []

    def start(*argv: str) -> GuardedProcess:
        process = spawn_guarded(argv, env=None, log_file=tmp_path / "log")
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
    kill_adopted_orphans()


@pytest.fixture
def family(
    start: Callable[..., GuardedProcess], tmp_path: Path
) -> tuple[GuardedProcess, ProcessStat, list[ProcessStat]]:
    process = start(sys.executable, "-c", FAMILY, str(tmp_path / "pids"))
    eventually((tmp_path / "pids").exists)
    grandchildren = [read_stat(int(pid)) for pid in (tmp_path / "pids").read_text().split()]
    found = [stat for stat in grandchildren if stat is not None]
    assert len(found) == 2
    child = read_stat(found[0].parent)
    assert child is not None
    return process, child, found


def test_exit_status_of_the_child_is_the_guards(start: Callable[..., GuardedProcess]) -> None:
    assert start(sys.executable, "-c", "raise SystemExit(7)").wait(10) == 7


def test_signal_that_ended_the_child_is_128_and_its_number(
    start: Callable[..., GuardedProcess],
) -> None:
    script = "import os, signal; os.kill(os.getpid(), signal.SIGUSR1)"
    assert start(sys.executable, "-c", script).wait(10) == 128 + signal.SIGUSR1


def test_command_that_cannot_start_says_so_in_the_log(
    start: Callable[..., GuardedProcess], tmp_path: Path
) -> None:
    assert start("no-such-command").wait(10) == 127
    assert "cannot start 'no-such-command': No such file" in (tmp_path / "log").read_text()


def test_sigterm_lets_the_child_stop_in_order(
    start: Callable[..., GuardedProcess], tmp_path: Path
) -> None:
    script = (
        "import signal, sys, threading\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\n"
        "print('up', flush=True)\n"
        "threading.Event().wait(60)"
    )
    process = start(sys.executable, "-c", script)
    eventually(lambda: "up" in (tmp_path / "log").read_text())
    process.terminate()
    assert process.wait(10) == 5


Family = tuple[GuardedProcess, ProcessStat, list[ProcessStat]]


def test_end_of_the_child_ends_grandchildren_that_left_its_session(family: Family) -> None:
    process, child, grandchildren = family
    os.kill(child.pid, signal.SIGKILL)
    assert process.wait(10) == 128 + signal.SIGKILL
    assert are_gone(*grandchildren)


def test_closed_pipe_ends_everything(family: Family) -> None:
    process, child, grandchildren = family
    process.close()
    process.wait(10)
    assert are_gone(child, *grandchildren)


def test_killed_guard_takes_its_child_along_and_poll_kills_the_session(family: Family) -> None:
    process, child, (in_session, _) = family
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    eventually(lambda: are_gone(child, in_session))
    assert session_members(process.pid) == []


def test_subreaper_kills_what_escaped_a_killed_guard(family: Family) -> None:
    process, child, grandchildren = family
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    eventually(lambda: are_gone(child))
    kill_adopted_orphans()
    assert are_gone(*grandchildren)


def test_other_guards_are_no_orphans(start: Callable[..., GuardedProcess]) -> None:
    process = start(sys.executable, "-c", SLEEPER)
    kill_adopted_orphans()
    assert process.poll() is None


PARENT_OF_A_GUARD = """
import pathlib, sys, threading
from deltawheel.infra.processes import spawn_guarded
target = sys.argv[1]
step = spawn_guarded([sys.executable, "-c", sys.argv[2], target], env=None,
                     log_file=pathlib.Path(target + ".log"))
threading.Event().wait(60)
"""


def test_nested_guard_ends_the_step_when_the_service_is_killed(
    start: Callable[..., GuardedProcess], tmp_path: Path
) -> None:
    target = tmp_path / "pids"
    outer = start(sys.executable, "-c", PARENT_OF_A_GUARD, str(target), FAMILY)
    eventually(target.exists)
    below = living_descendants(outer.pid)
    assert len(below) == 5, "service, nested guard, step and its two children"
    (service,) = (process for process in below if process.parent == outer.pid)
    os.kill(service.pid, signal.SIGKILL)
    outer.wait(10)
    assert are_gone(*below)


def test_death_of_the_parent_by_sigkill_ends_everything(tmp_path: Path) -> None:
    target = tmp_path / "pids"
    argv = [sys.executable, "-c", PARENT_OF_A_GUARD, str(target), FAMILY]
    with subprocess.Popen(argv) as parent:
        eventually(target.exists)
        below = living_descendants(parent.pid)
        assert len(below) == 4, "guard, step and its two children"
        parent.kill()
    eventually(lambda: are_gone(*below))


def test_usage_is_told_to_who_runs_it_by_hand() -> None:
    script = Path(__file__).parents[2] / "infra/deltawheel/infra/guard.py"
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(script)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.split(":")[0]) == (2, "usage")
