"""Reaping, ports, and the command of a vLLM server."""

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deltawheel.contracts.errors import ConfigError
from deltawheel.contracts.settings import ServerSettings
from deltawheel.infra import vllm_server
from deltawheel.infra.listening import (
    answers_200,
    find_free_port,
    find_free_ports,
    port_holder,
    port_in_use,
)
from deltawheel.infra.processes import (
    GuardedProcess,
    GuardRecord,
    ProcessId,
    ReapReport,
    current_process,
    is_alive,
    reap,
    spawn_guarded,
)

LISTENER = """
import socket, sys, threading
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
threading.Event().wait(60)
"""


def eventually(condition: Callable[[], bool], timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        threading.Event().wait(0.01)


@pytest.fixture
def port() -> int:
    return find_free_port()


@pytest.fixture
def listening(port: int, tmp_path: Path) -> Iterator[GuardedProcess]:
    argv = [sys.executable, "-c", LISTENER, str(port)]
    with spawn_guarded(argv, env=None, log_file=tmp_path / "log") as process:
        eventually(lambda: port_in_use("127.0.0.1", port))
        yield process


def test_process_started_at_another_time_is_another() -> None:
    own = current_process()
    assert is_alive(own)
    assert not is_alive(ProcessId(pid=own.pid, started=own.started - 1))


def test_reaping_kills_the_recorded_session_and_frees_its_port(
    listening: GuardedProcess, port: int
) -> None:
    report = reap(GuardRecord(guard=listening.id, members=listening.members(), ports=(port,)))
    assert listening.pid in report.killed
    assert report.busy_ports == ()
    assert not port_in_use("127.0.0.1", port)


def test_reaping_knows_a_session_without_its_guard_by_a_recorded_member(
    listening: GuardedProcess, port: int
) -> None:
    (child,) = (member for member in listening.members() if member != listening.id)
    dead_guard = ProcessId(pid=listening.pid, started=listening.id.started - 1)
    report = reap(GuardRecord(guard=dead_guard, members=(child,), ports=(port,)))
    # Its guard here is alive, and may have ended the child a moment before `reap` came to it.
    assert set(report.killed) & {listening.pid, child.pid}
    assert not is_alive(child)


def test_port_of_an_address_that_this_machine_no_longer_has_is_not_busy() -> None:
    dead_guard = ProcessId(pid=os.getpid(), started=current_process().started - 1)
    record = GuardRecord(guard=dead_guard, host="192.0.2.1", ports=(8600,))
    assert reap(record) == ReapReport(killed=(), busy_ports=())


def test_reaping_never_kills_a_process_that_got_the_recorded_pid(
    listening: GuardedProcess, port: int
) -> None:
    recycled = ProcessId(pid=listening.pid, started=listening.id.started - 1)
    report = reap(GuardRecord(guard=recycled, members=(recycled,), ports=(port,)))
    assert report.killed == ()
    assert report.busy_ports == (port,)
    assert listening.poll() is None


def test_waiting_longer_than_allowed_is_an_error(listening: GuardedProcess) -> None:
    with pytest.raises(TimeoutError, match="still runs"):
        listening.wait(0.05)


def test_holder_of_a_port_is_named(port: int) -> None:
    with socket.create_server(("127.0.0.1", port)):
        assert f"(pid {os.getpid()})" in (port_holder(port) or "")
    assert port_holder(port) is None


def test_free_ports_differ() -> None:
    ports = find_free_ports(20)
    assert len(set(ports)) == 20
    assert not any(port_in_use("127.0.0.1", port) for port in ports)


def test_address_that_is_not_ours_is_an_error_of_its_own() -> None:
    with pytest.raises(OSError, match=r"."):
        port_in_use("203.0.113.1", find_free_port())


def test_nobody_listening_is_no_answer(port: int) -> None:
    assert not answers_200(f"http://127.0.0.1:{port}/health")


def test_vllm_gets_every_setting_and_no_network() -> None:
    server = ServerSettings(port=8123, max_loras=5, kv_cache_gb=3, extra_args=("--seed", "1"))
    command = vllm_server.make_command(server, environment={"PATH": "/bin"})
    arguments = list(command.argv)
    assert arguments[arguments.index("--max-loras") + 1] == "5"
    assert arguments[arguments.index("--port") + 1] == "8123"
    assert (Path(arguments[arguments.index("--model") + 1]) / "config.json").is_file()
    assert arguments[-2:] == ["--seed", "1"]
    assert command.env["VLLM_CPU_KVCACHE_SPACE"] == "3"
    assert command.env["HF_HUB_OFFLINE"] == "1"
    assert command.env["PATH"] == "/bin"


def test_base_without_a_model_is_named_by_its_key(tmp_path: Path) -> None:
    server = ServerSettings(port=8123, base=str(tmp_path))
    with pytest.raises(ConfigError, match=r"servers\.local\.base: no model in .*config\.json"):
        vllm_server.make_command(server)


def test_server_without_a_port_cannot_be_started() -> None:
    with pytest.raises(ConfigError, match=r"servers\.local\.port: 0 has to be resolved"):
        vllm_server.make_command(ServerSettings())
