"""The run file, and what a killed run has left."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deltawheel.contracts.errors import ConfigError
from deltawheel.contracts.settings import (
    BrokerSettings,
    GatewaySettings,
    RegistrySettings,
    ServerSettings,
    Settings,
    StoreSettings,
)
from deltawheel.infra.processes import GuardedProcess, ProcessId, is_alive, spawn_guarded
from deltawheel.ops.supervisor.lifecycle import Phase
from deltawheel.ops.supervisor.plan import ProcessKind
from deltawheel.ops.supervisor.runfile import ProcessState, RunFile, RunRecord, read_run
from tests.ops.supervisor.wheels import RealClock, eventually, some_settings

SLEEPER = "import threading; threading.Event().wait(60)"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return some_settings(tmp_path)


@pytest.fixture
def leftover(tmp_path: Path) -> Iterator[GuardedProcess]:
    argv = [sys.executable, "-c", SLEEPER]
    with spawn_guarded(argv, env=None, log_file=tmp_path / "log") as process:
        eventually(lambda: len(process.members()) == 2)
        yield process


def a_state(process: GuardedProcess, **changes: object) -> ProcessState:
    state = ProcessState(
        name="judging",
        kind=ProcessKind.SERVICE,
        phase=Phase.READY,
        guard=process.id,
        members=process.members(),
        host="127.0.0.1",
        ports=(),
        num_restarts=0,
        last_status=None,
        log_file=Path("judging.log"),
    )
    return state.model_copy(update=changes)


def leave_record(settings: Settings, *states: ProcessState) -> None:
    """Leave the file of a run whose supervisor is dead."""
    record = RunRecord.begin(settings, started_at=RealClock().now())
    dead = ProcessId(pid=record.supervisor.pid, started=record.supervisor.started - 1)
    record = record.model_copy(update={"supervisor": dead, "processes": states})
    path = RunFile(settings, RealClock()).path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(record.model_dump_json())


def test_running_wheel_can_be_read_by_others(settings: Settings, leftover: GuardedProcess) -> None:
    run_file = RunFile(settings, RealClock())
    run_file.claim()
    run_file.begin(settings)
    run_file.publish([a_state(leftover)])
    run = read_run(settings)
    assert run is not None
    assert run.processes == (a_state(leftover),)
    run_file.release()
    assert read_run(settings) is None


def test_second_wheel_on_the_same_state_is_refused(settings: Settings) -> None:
    first = RunFile(settings, RealClock())
    first.claim()
    first.begin(settings)
    with pytest.raises(ConfigError, match=r"home: a wheel is already running on .*state \(pid "):
        RunFile(settings, RealClock()).claim()
    first.release()
    second = RunFile(settings, RealClock())
    second.claim()
    second.release()


def test_wheel_in_another_process_is_seen_until_it_is_killed(settings: Settings) -> None:
    script = (
        "import sys, threading\n"
        "from pathlib import Path\n"
        "from tests.ops.supervisor.wheels import RealClock, some_settings\n"
        "from deltawheel.ops.supervisor.runfile import RunFile\n"
        "settings = some_settings(Path(sys.argv[1]))\n"
        "run_file = RunFile(settings, RealClock())\n"
        "run_file.claim(); run_file.begin(settings)\n"
        "threading.Event().wait(60)\n"
    )
    root = Path(__file__).parents[3]
    with subprocess.Popen([sys.executable, "-c", script, str(settings.home)], cwd=root) as other:
        eventually(lambda: read_run(settings) is not None)
        with pytest.raises(ConfigError, match=rf"already running .*pid {other.pid}"):
            RunFile(settings, RealClock()).claim()
        other.kill()
    assert read_run(settings) is None
    mine = RunFile(settings, RealClock())
    assert mine.claim() == ()
    mine.release()


def test_leftovers_of_a_killed_run_are_reaped(settings: Settings, leftover: GuardedProcess) -> None:
    members = leftover.members()
    leave_record(settings, a_state(leftover))
    leftover.close()
    run_file = RunFile(settings, RealClock())
    run_file.claim()
    run_file.release()
    assert not any(map(is_alive, members))


def test_member_whose_guard_was_killed_too_is_reaped_and_reported(
    settings: Settings, leftover: GuardedProcess
) -> None:
    dead_guard = ProcessId(pid=leftover.pid, started=leftover.id.started - 1)
    members = tuple(member for member in leftover.members() if member != leftover.id)
    leave_record(settings, a_state(leftover, guard=dead_guard, members=members))
    run_file = RunFile(settings, RealClock())
    (note,) = run_file.claim()
    run_file.release()
    assert note.startswith("judging: killed what an earlier run had left (pid ")
    assert not any(map(is_alive, members))


def test_process_that_only_has_a_recorded_pid_is_left_alone(
    settings: Settings, leftover: GuardedProcess
) -> None:
    recycled = ProcessId(pid=leftover.pid, started=leftover.id.started - 1)
    leave_record(settings, a_state(leftover, guard=recycled, members=()))
    run_file = RunFile(settings, RealClock())
    assert run_file.claim() == ()
    run_file.release()
    assert leftover.poll() is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"wheel": 1}'])
def test_unreadable_file_is_set_aside_with_a_sentence(settings: Settings, content: bytes) -> None:
    run_file = RunFile(settings, RealClock())
    run_file.path.parent.mkdir(parents=True)
    run_file.path.write_bytes(content)
    assert read_run(settings) is None
    (note,) = run_file.claim()
    run_file.release()
    assert "could not be read and was set aside as wheel.json.unreadable" in note
    assert run_file.path.with_name("wheel.json.unreadable").read_bytes() == content


def test_state_that_is_no_folder_is_a_sentence(settings: Settings) -> None:
    settings.state.write_text("not a folder")
    with pytest.raises(ConfigError, match=r"home: .* cannot be used: .*; give a folder"):
        RunFile(settings, RealClock()).claim()


def test_addresses_with_colons_stand_in_brackets(settings: Settings) -> None:
    ipv6 = settings.model_copy(
        update={
            "gateway": GatewaySettings(host="::1", port=8600),
            "broker": BrokerSettings(host="::1", port=9092),
            "servers": (ServerSettings(host="::1", port=8000),),
        }
    )
    record = RunRecord.begin(ipv6, started_at=RealClock().now())
    assert record.gateway_url == "http://[::1]:8600"
    assert record.broker == "[::1]:9092"
    assert record.servers == {"local": "http://[::1]:8000/v1"}


def test_run_file_shows_no_password_of_store_or_registry(settings: Settings) -> None:
    secret = settings.model_copy(
        update={
            "store": StoreSettings(url="postgresql://u:secret@h/d"),
            "registry": RegistrySettings(uri="http://u:secret@mlflow"),
        }
    )
    record = RunRecord.begin(secret, started_at=RealClock().now())
    assert "secret" not in record.model_dump_json()
