"""No way of dying leaves a process or a listening port."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deltawheel.infra.guard import ProcessStat
from deltawheel.infra.listening import find_free_port, port_in_use
from deltawheel.infra.processes import identify, is_alive, living_descendants
from tests.ops.supervisor.wheels import eventually

pytestmark = pytest.mark.integration
# Like vLLM: the server listens, and its engine is a process of its own that outlives it.
SERVER = """
import pathlib, socket, subprocess, sys, threading
name, folder, port = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3])
listener = socket.create_server(("127.0.0.1", port))
listener.set_inheritable(True)
engine = "import threading; threading.Event().wait(60)"
for own_session in (False, True):
    subprocess.Popen([sys.executable, "-c", engine], close_fds=False,
                     start_new_session=own_session)
(folder / (name + ".ready")).touch()
threading.Event().wait(60)
"""
SUPERVISOR = """
import sys
from pathlib import Path
from tests.ops.supervisor.test_orphans import SERVER
from tests.ops.supervisor.wheels import QUICK, Halves, RealClock
from deltawheel.infra.processes import Command
from deltawheel.ops.supervisor.plan import ProcessKind, ProcessPlan
from deltawheel.ops.supervisor.signals import stop_on_signals
from deltawheel.ops.supervisor.supervisor import Supervisor

folder, port = Path(sys.argv[1]), sys.argv[2]
argv = (sys.executable, "-c", SERVER, "vllm", str(folder), port)
plan = ProcessPlan(
    name="vllm", kind=ProcessKind.SERVER, make_command=lambda: Command(argv=argv, env={}),
    is_ready=(folder / "vllm.ready").exists, ready_timeout_s=30, log_file=folder / "vllm.log",
    stop_order=0, run_file=folder / "vllm.ready",
)
clock = RealClock()
with Supervisor([plan], settings=QUICK, clock=clock, random=Halves()) as supervisor:
    with stop_on_signals(supervisor.hurry) as stop:
        supervisor.wait_ready(30, should_stop=stop.is_set)
        (folder / "up").touch()
        supervisor.run_until(stop.is_set)
"""


class Wheel:
    """A supervisor in a process of its own, with one server that has two engines."""

    def __init__(self, folder: Path) -> None:
        self.port = find_free_port()
        self._ready = folder / "vllm.ready"
        self.process = subprocess.Popen(
            [sys.executable, "-c", SUPERVISOR, str(folder), str(self.port)],
            cwd=Path(__file__).parents[3],
        )
        eventually((folder / "up").exists)
        self.family = living_descendants(self.process.pid)
        assert len(self.family) == 4, "guard, server and two engines"

    @property
    def guard(self) -> ProcessStat:
        return next(found for found in self.family if found.parent == self.process.pid)

    @property
    def server(self) -> ProcessStat:
        return next(found for found in self.family if found.parent == self.guard.pid)

    def is_gone(self) -> bool:
        return not any(is_alive(identify(process)) for process in self.family)

    def is_back(self) -> bool:
        """Whether a whole new family stands in the old one's place."""
        if not self._ready.exists() or not self.is_gone():
            return False
        return len(living_descendants(self.process.pid)) == 4


@pytest.fixture
def wheel(tmp_path: Path) -> Iterator[Wheel]:
    wheel = Wheel(tmp_path)
    yield wheel
    wheel.process.kill()
    wheel.process.wait()


def test_killed_server_leaves_no_engine_and_comes_back(wheel: Wheel) -> None:
    os.kill(wheel.server.pid, signal.SIGKILL)
    eventually(wheel.is_back)


def test_killed_guard_leaves_no_engine_and_the_server_comes_back(wheel: Wheel) -> None:
    os.kill(wheel.guard.pid, signal.SIGKILL)
    eventually(wheel.is_back)


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_end_of_the_supervisor_leaves_no_process_and_no_port(
    wheel: Wheel, signum: signal.Signals
) -> None:
    wheel.process.send_signal(signum)
    wheel.process.wait(15)
    eventually(wheel.is_gone)
    assert not port_in_use("127.0.0.1", wheel.port)


def test_supervisor_stopped_in_order_exits_with_zero(wheel: Wheel) -> None:
    wheel.process.send_signal(signal.SIGINT)
    assert wheel.process.wait(15) == 0
