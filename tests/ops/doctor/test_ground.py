"""What a wheel stands on: settings, files, folders, ports, and what ran before."""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from deltawheel.contracts.settings import Settings
from deltawheel.infra import wiring
from deltawheel.infra.credentials import TOKEN_VARIABLE
from deltawheel.infra.listening import find_free_port
from deltawheel.infra.processes import ProcessId, current_process, spawn_guarded
from deltawheel.ops.doctor.examine import site_of
from deltawheel.ops.doctor.findings import Level
from deltawheel.ops.doctor.ground import (
    check_files,
    check_home,
    check_ports,
    check_run,
    check_settings,
    check_token,
    judge_space,
)
from deltawheel.ops.supervisor.lifecycle import Phase
from deltawheel.ops.supervisor.plan import ProcessKind
from deltawheel.ops.supervisor.runfile import ProcessState, RunFile, RunRecord, run_file
from tests.ops.doctor.sites import a_site, examined, listed, only

ELSEWHERE: dict[str, Any] = {
    "servers": [],
    "training": {"is_enabled": False},
    "generators": [
        {"name": "a", "endpoint": "http://127.0.0.1:9/v1", "model": "m", "revision": "r1"},
        {"name": "b", "endpoint": "http://127.0.0.1:9/v1", "model": "m"},
    ],
}


def a_state(**changes: object) -> ProcessState:
    state = ProcessState(
        name="gateway",
        kind=ProcessKind.SERVICE,
        phase=Phase.READY,
        guard=current_process(),
        members=(),
        host="127.0.0.1",
        ports=(),
        num_restarts=0,
        last_status=None,
        log_file=Path("gateway.log"),
    )
    return state.model_copy(update=changes)


@contextmanager
def a_run(settings: Settings, *states: ProcessState) -> Iterator[None]:
    """Write down that this process runs the wheel."""
    running = RunFile(settings, wiring.system_clock())
    running.claim()
    running.begin(settings)
    running.publish(states)
    try:
        yield
    finally:
        running.release()


def leave_record(settings: Settings, *states: ProcessState) -> None:
    """Leave the file of a run whose supervisor is dead."""
    record = RunRecord.begin(settings, started_at=wiring.system_clock().now())
    dead = ProcessId(pid=record.supervisor.pid, started=record.supervisor.started - 1)
    path = run_file(settings)
    path.parent.mkdir(parents=True)
    changed = record.model_copy(update={"supervisor": dead, "processes": states})
    path.write_text(changed.model_dump_json())


@contextmanager
def a_listener() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


# Settings


def test_settings_without_a_file_are_the_defaults(tmp_path: Path) -> None:
    assert only(check_settings, a_site(tmp_path)).found == "no file: the defaults are in force"


def test_member_without_revision_is_a_warning_as_in_config_check(tmp_path: Path) -> None:
    valid, unpinned = examined(check_settings, a_site(tmp_path, **ELSEWHERE))
    assert valid.level is Level.OK
    assert unpinned.level is Level.WARNING
    assert unpinned.found.startswith("generators.b.revision: none is given")
    assert unpinned.todo == "give its exact revision"


def test_gateway_that_others_reach_needs_a_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    assert only(check_token, a_site(tmp_path)).level is Level.OK
    open_to_all = a_site(tmp_path, gateway={"host": "0.0.0.0", "port": 0})
    found = only(check_token, open_to_all)
    assert found.level is Level.FAILURE
    assert found.found == "gateway.host is 0.0.0.0, which others can reach"
    assert found.todo == f"set {TOKEN_VARIABLE}, or gateway.host: 127.0.0.1"
    monkeypatch.setenv(TOKEN_VARIABLE, "secret")
    assert only(check_token, open_to_all).found == (
        "the gateway asks for the token, and others can reach it"
    )


def test_each_base_and_adapter_that_is_not_there_is_a_failure(tmp_path: Path) -> None:
    same = {"base": str(tmp_path / "base")}
    members = [
        {"name": "a", "server": "local", "adapter": str(tmp_path / "adapter")},
        {"name": "b", "server": "local", "adapter": "sandbox:weak"},
    ]
    found = examined(
        check_files, a_site(tmp_path, servers=[same], training=same, generators=members)
    )
    assert [one.level for one in found] == [Level.FAILURE, Level.FAILURE]
    assert found[0].found.startswith("servers.local.base: no model in")
    assert str(found[0].todo).startswith("give the folder of a model")
    assert found[1].found.startswith("generators.a.adapter: ")


def test_what_ships_is_where_the_settings_say(tmp_path: Path) -> None:
    found = only(check_files, a_site(tmp_path))
    assert found.level is Level.OK
    assert found.found.endswith("1 base, 3 adapters, 4 suites")


# Folders


def test_home_that_is_a_file_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = only(check_home, a_site(tmp_path / "file" / "home"))
    assert found.level is Level.FAILURE
    assert found.found == f"{tmp_path / 'file'} is no folder"
    assert found.todo == "move it away, or set home to another folder"


@pytest.mark.parametrize(
    ("free_gb", "level"), [(0.4, Level.FAILURE), (4.9, Level.WARNING), (5.1, Level.OK)]
)
def test_disk_that_is_nearly_full_is_told(free_gb: float, level: Level) -> None:
    found = judge_space("home", "/x can be written", free_gb)
    assert found.level is level
    assert found.found == f"/x can be written, {free_gb} GB are free there"


# Runs


def test_home_where_nothing_ran_is_fine(tmp_path: Path) -> None:
    assert only(check_run, a_site(tmp_path)).found == "no wheel runs here, and none was killed"


def test_running_wheel_is_told_with_what_is_not_ready(tmp_path: Path) -> None:
    settings = a_site(tmp_path).settings
    with a_run(settings, a_state()):
        found = only(check_run, site_of(settings, None))
    assert found.level is Level.OK
    assert f"(pid {os.getpid()}), and its 1 processes are ready" in found.found
    with a_run(settings):
        found = only(check_run, site_of(settings, None))
    assert found.level is Level.WARNING
    assert found.found.endswith("but none of its processes has begun")
    with a_run(settings, a_state(), a_state(name="judging", phase=Phase.BACKING_OFF)):
        found = only(check_run, site_of(settings, None))
    assert found.level is Level.WARNING
    assert found.found.endswith("but not ready: judging (backing off)")


def test_killed_wheel_is_told_with_the_processes_that_it_has_left(tmp_path: Path) -> None:
    settings = a_site(tmp_path / "home").settings
    argv = [sys.executable, "-c", "import threading; threading.Event().wait(60)"]
    with spawn_guarded(argv, env=None, log_file=tmp_path / "log") as process:
        leave_record(settings, a_state(name="judging", guard=process.id))
        before = listed(settings.home)
        found = only(check_run, site_of(settings, None))
        assert listed(settings.home) == before
        assert process.poll() is None, "looking killed it"
    assert found.level is Level.WARNING
    assert found.found.endswith("was killed, and has left judging")
    assert only(check_run, site_of(settings, None)).found.endswith("has left no process")


def test_run_file_that_cannot_be_read_is_a_warning(tmp_path: Path) -> None:
    settings = a_site(tmp_path).settings
    run_file(settings).parent.mkdir(parents=True)
    run_file(settings).write_text("{")
    found = only(check_run, site_of(settings, None))
    assert found.level is Level.WARNING
    assert found.found == f"{run_file(settings)} cannot be read"


# Ports


def test_ports_that_are_free_are_named(tmp_path: Path) -> None:
    with a_listener() as port:
        pass
    found = only(check_ports, a_site(tmp_path, gateway={"port": port}))
    assert found.found == f"free: gateway.port {port}"


def test_every_port_in_use_is_a_failure_with_its_holder(tmp_path: Path) -> None:
    with a_listener() as first, a_listener() as second:
        site = a_site(tmp_path, gateway={"port": first}, broker={"port": second})
        found = examined(check_ports, site)
    assert [one.level for one in found] == [Level.FAILURE, Level.FAILURE]
    assert found[0].found.startswith(f"gateway.port: port {first} on 127.0.0.1 is in use by ")
    assert f"(pid {os.getpid()})" in found[0].found
    assert str(found[0].todo).startswith("stop that process, or set gateway.port")
    assert found[1].found.startswith(f"broker.port: port {second}")


def test_ports_of_the_wheel_that_runs_here_are_its_own(tmp_path: Path) -> None:
    with a_listener() as port:
        settings = a_site(tmp_path, gateway={"port": port}).settings
        with a_run(settings, a_state(ports=(port,))):
            found = only(check_ports, site_of(settings, None))
    assert found.level is Level.OK
    assert found.found == f"held by the wheel that runs here: gateway {port}"


def test_port_on_which_the_running_wheel_does_not_listen_is_a_warning(tmp_path: Path) -> None:
    with a_listener() as port:
        pass
    settings = a_site(tmp_path, gateway={"port": port}).settings
    with a_run(settings, a_state(ports=(port,))):
        found = only(check_ports, site_of(settings, None))
    assert found.level is Level.WARNING
    assert found.found.startswith(f"nothing listens for gateway on 127.0.0.1:{port}")


def test_port_that_a_killed_wheel_has_left_needs_only_the_next_up(tmp_path: Path) -> None:
    with a_listener() as left, a_listener() as other:
        site = a_site(tmp_path, gateway={"port": left}, broker={"port": other})
        leave_record(site.settings, a_state(ports=(left,)))
        foreign, own = examined(check_ports, site_of(site.settings, None))
    assert own.level is Level.WARNING
    assert own.found == f"held by what a killed wheel has left: gateway.port {left}"
    assert foreign.level is Level.FAILURE
    assert foreign.found.startswith(f"broker.port: port {other}")


def test_one_port_for_two_is_no_matter_of_who_was_killed(tmp_path: Path) -> None:
    port = find_free_port()
    site = a_site(tmp_path, gateway={"port": port}, broker={"port": port})
    leave_record(site.settings, a_state())
    found = only(check_ports, site_of(site.settings, None))
    assert found.level is Level.FAILURE
    assert found.found == f"broker.port: port {port} is also gateway.port"


def test_address_of_another_machine_is_a_failure(tmp_path: Path) -> None:
    gateway = {"host": "203.0.113.1", "port": find_free_port()}
    found = only(check_ports, a_site(tmp_path, gateway=gateway))
    assert found.level is Level.FAILURE
    assert found.found.startswith("gateway.port: cannot listen on 203.0.113.1:")
