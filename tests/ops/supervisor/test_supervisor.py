"""The supervisor, with small real processes."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from deltawheel.contracts.errors import ConfigError, DeltawheelError
from deltawheel.contracts.settings import SupervisorSettings
from deltawheel.infra.processes import Command, is_alive, living_descendants
from deltawheel.ops.supervisor.lifecycle import Phase
from deltawheel.ops.supervisor.plan import ProcessKind, ProcessPlan
from deltawheel.ops.supervisor.runfile import ProcessState
from deltawheel.ops.supervisor.supervisor import Supervisor
from tests.ops.supervisor.wheels import DEAF, OBEDIENT, QUICK, Halves, RealClock, eventually, plan

pytestmark = pytest.mark.integration
Run = Callable[..., Supervisor]


@pytest.fixture
def run() -> Iterator[Run]:
    running: list[Supervisor] = []

    def run(
        *plans: ProcessPlan, settings: SupervisorSettings = QUICK, **rest: object
    ) -> Supervisor:
        supervisor = Supervisor(
            plans,
            settings=settings,
            clock=RealClock(),
            random=Halves(),
            **rest,  # type: ignore[arg-type]
        )
        running.append(supervisor)
        return supervisor

    yield run
    for supervisor in running:
        supervisor.hurry()
        supervisor.stop()


def state(supervisor: Supervisor, name: str) -> ProcessState:
    return next(state for state in supervisor.states() if state.name == name)


def kill_child(supervisor: Supervisor, name: str) -> None:
    """Kill the process itself, not its guard."""
    guard = state(supervisor, name).guard
    assert guard is not None
    (child,) = (below for below in living_descendants(guard.pid) if below.parent == guard.pid)
    os.kill(child.pid, signal.SIGKILL)


def is_back(supervisor: Supervisor, name: str, num_restarts: int = 1) -> bool:
    current = state(supervisor, name)
    return current.num_restarts >= num_restarts and current.phase is Phase.READY


def wait_until(supervisor: Supervisor, condition: Callable[[], bool]) -> None:
    deadline = RealClock().monotonic() + 20
    supervisor.run_until(lambda: condition() or RealClock().monotonic() > deadline)
    assert condition()


def test_services_start_after_the_broker_is_ready_and_prepared(tmp_path: Path, run: Run) -> None:
    events: list[str] = []

    def prepare() -> None:
        events.append(f"broker ready: {(tmp_path / 'broker.ready').exists()}")
        events.append(f"judging ready: {(tmp_path / 'judging.ready').exists()}")

    broker = plan(tmp_path, "broker", kind=ProcessKind.BROKER)
    supervisor = run(plan(tmp_path, "judging"), broker, prepare_broker=prepare)
    assert supervisor.wait_ready(20)
    assert events == ["broker ready: True", "judging ready: False"]


def test_killed_service_comes_back_and_is_counted(tmp_path: Path, run: Run) -> None:
    supervisor = run(plan(tmp_path, "judging"))
    supervisor.wait_ready(20)
    kill_child(supervisor, "judging")
    wait_until(supervisor, lambda: is_back(supervisor, "judging"))
    assert state(supervisor, "judging").last_status == 128 + signal.SIGKILL


def test_killed_guard_leaves_nothing_and_comes_back(tmp_path: Path, run: Run) -> None:
    supervisor = run(plan(tmp_path, "judging"))
    supervisor.wait_ready(20)
    before = state(supervisor, "judging")
    assert before.guard is not None
    os.kill(before.guard.pid, signal.SIGKILL)
    wait_until(supervisor, lambda: is_back(supervisor, "judging"))
    eventually(lambda: not any(map(is_alive, before.members)))


def test_stop_goes_in_order_and_leaves_nothing(tmp_path: Path, run: Run) -> None:
    broker = plan(tmp_path, "broker", kind=ProcessKind.BROKER, stop_order=9)
    services = [plan(tmp_path, name, stop_order=order) for order, name in enumerate("cab")]
    supervisor = run(broker, *reversed(services))
    supervisor.wait_ready(20)
    members = [member for state in supervisor.states() for member in state.members]
    supervisor.stop()
    assert (tmp_path / "journal").read_text().split() == ["c", "a", "b", "broker"]
    assert len(members) >= 8
    assert not any(map(is_alive, members))
    assert {state.phase for state in supervisor.states()} == {Phase.STOPPED}


def test_process_that_does_not_stop_is_killed(tmp_path: Path, run: Run) -> None:
    settings = QUICK.model_copy(update={"stop_timeout_s": 0.1})
    supervisor = run(plan(tmp_path, "deaf", script=DEAF), settings=settings)
    supervisor.wait_ready(20)
    supervisor.stop()
    assert state(supervisor, "deaf").last_status == 128 + signal.SIGKILL


def test_second_signal_hurries_a_stop_along(tmp_path: Path, run: Run) -> None:
    settings = QUICK.model_copy(update={"stop_timeout_s": 60.0})
    supervisor = run(plan(tmp_path, "deaf", script=DEAF), settings=settings)
    supervisor.wait_ready(20)
    started_s = RealClock().monotonic()
    hurry = threading.Timer(0.1, supervisor.hurry)
    hurry.start()
    supervisor.stop()
    hurry.join()
    assert RealClock().monotonic() - started_s < 20


def test_server_that_never_answers_ends_the_run_with_its_log(tmp_path: Path, run: Run) -> None:
    script = "import threading; print('loading', flush=True); threading.Event().wait(60)"
    key = "servers.local.boot_timeout_s"
    server = plan(tmp_path, "vllm-local", script=script, ready_timeout_s=0.5, timeout_key=key)
    supervisor = run(server)
    with pytest.raises(DeltawheelError) as failure:
        supervisor.wait_ready(20)
    assert str(failure.value) == (
        f"vllm-local did not answer within 0.5 s ({key}); "
        f"its log {tmp_path / 'vllm-local.log'} ends with:\nloading"
    )


def test_server_that_keeps_ending_ends_the_run_with_its_log(tmp_path: Path, run: Run) -> None:
    script = "print('first'); print('no memory'); raise SystemExit(3)"
    supervisor = run(plan(tmp_path, "vllm-local", script=script, max_boot_failures=2))
    with pytest.raises(DeltawheelError, match="ended 2 times while starting, last with status 3"):
        supervisor.wait_ready(20)


def test_refused_settings_are_not_tried_again(tmp_path: Path, run: Run) -> None:
    supervisor = run(plan(tmp_path, "judging", script="raise SystemExit(2)"))
    with pytest.raises(ConfigError, match="judging refuses its settings or arguments"):
        supervisor.wait_ready(20)
    assert state(supervisor, "judging").num_restarts == 0


def test_refused_settings_end_the_run_with_the_services_own_sentence(
    tmp_path: Path, run: Run
) -> None:
    script = """
import json
print(json.dumps({"level": "info", "message": "judging begins"}))
print(json.dumps({"level": "critical", "message": "judging stops: judge.kind: " + "no " * 9_000}))
print("Exception ignored in: <function>")
raise SystemExit(2)
"""
    (tmp_path / "judging.log").write_text('{"message": "said by an earlier start"}\n')
    supervisor = run(plan(tmp_path, "judging", script=script))
    with pytest.raises(ConfigError) as failure:
        supervisor.wait_ready(20)
    assert failure.value.exit_code == 2
    assert str(failure.value) == "judging stops: judge.kind: " + "no " * 9_000


def test_what_an_earlier_start_said_is_not_repeated(tmp_path: Path, run: Run) -> None:
    (tmp_path / "judging.log").write_text('{"message": "said by an earlier start"}\n')
    supervisor = run(plan(tmp_path, "judging", script="raise SystemExit(2)"))
    with pytest.raises(ConfigError, match=r"judging refuses its settings.* says nothing"):
        supervisor.wait_ready(20)


def test_server_that_refuses_its_arguments_ends_the_run_with_its_log(
    tmp_path: Path, run: Run
) -> None:
    script = "print('error: unrecognized arguments: --x'); raise SystemExit(2)"
    supervisor = run(plan(tmp_path, "vllm-local", kind=ProcessKind.SERVER, script=script))
    with pytest.raises(ConfigError, match=r"(?s)vllm-local refuses .*unrecognized arguments: --x"):
        supervisor.wait_ready(20)


def test_other_ends_are_failures_and_no_refusals(tmp_path: Path, run: Run) -> None:
    script = """print('{"message": "judging stops: the disk is full"}'); raise SystemExit(1)"""
    supervisor = run(plan(tmp_path, "judging", script=script, max_boot_failures=1))
    with pytest.raises(DeltawheelError, match="judging ended 1 times while starting") as failure:
        supervisor.wait_ready(20)
    assert failure.value.exit_code == 1


def test_service_that_is_killed_while_starting_does_not_end_the_run(
    tmp_path: Path, run: Run
) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    script = (
        "import os, pathlib, signal, tempfile\n"
        f"tempfile.mkstemp(dir={str(marks)!r})\n"
        f"killed = len(list(pathlib.Path({str(marks)!r}).iterdir())) <= 2\n"
        "os.kill(os.getpid(), signal.SIGKILL) if killed else signal.pause()"
    )
    service = plan(tmp_path, "judging", script=script, max_boot_failures=1)
    waits = replace(service, is_ready=lambda: len(list(marks.iterdir())) > 2)
    assert run(waits).wait_ready(60)


def test_not_being_ready_in_time_names_what_is_missing(tmp_path: Path, run: Run) -> None:
    never = plan(tmp_path, "slow", script="import threading; threading.Event().wait(60)")
    supervisor = run(never, plan(tmp_path, "judging"))
    with pytest.raises(DeltawheelError, match=r"not ready after 1 s: slow \(starting, .*slow\.log"):
        supervisor.wait_ready(1)


def test_waiting_ends_when_told_to_stop(tmp_path: Path, run: Run) -> None:
    never = plan(tmp_path, "slow", script="import threading; threading.Event().wait(60)")
    calls = count()
    assert run(never).wait_ready(20, should_stop=lambda: next(calls) > 3) is False


def test_lost_memory_broker_restarts_all_consumers_after_preparing_it(
    tmp_path: Path, run: Run
) -> None:
    num_prepared = count(1)
    prepared: list[int] = []
    broker = plan(tmp_path, "broker", kind=ProcessKind.BROKER, is_memory_only=True)
    supervisor = run(
        broker,
        plan(tmp_path, "vllm-local", kind=ProcessKind.SERVER),
        plan(tmp_path, "gateway"),
        plan(tmp_path, "judging", is_consumer=True),
        plan(tmp_path, "deaf", script=DEAF, is_consumer=True),
        settings=QUICK.model_copy(update={"stop_timeout_s": 0.5}),
        prepare_broker=lambda: prepared.append(next(num_prepared)),
    )
    supervisor.wait_ready(20)
    kill_child(supervisor, "broker")
    names = ("broker", "judging", "deaf")
    wait_until(supervisor, lambda: all(is_back(supervisor, name) for name in names))
    assert prepared == [1, 2]
    assert state(supervisor, "vllm-local").num_restarts == 0
    assert state(supervisor, "gateway").num_restarts == 0, "it takes prompts all the while"
    assert (tmp_path / "journal").read_text().split() == ["judging"]


def test_memory_broker_that_outgrows_its_memory_starts_afresh_once_nobody_reads_it(
    tmp_path: Path, run: Run
) -> None:
    prepared: list[str] = []
    grows = OBEDIENT.replace(
        "threading.Event().wait(60)",
        "(folder / 'grown').exists() or (kept := bytearray(b'x' * 300_000_000))\n"
        "(folder / 'grown').touch(); threading.Event().wait(60)",
    )
    supervisor = run(
        plan(
            tmp_path,
            "broker",
            kind=ProcessKind.BROKER,
            script=grows,
            is_memory_only=True,
            max_memory_bytes=200_000_000,
        ),
        plan(tmp_path, "judging", is_consumer=True),
        prepare_broker=lambda: prepared.append("prepared"),
    )
    wait_until(supervisor, lambda: all(is_back(supervisor, n) for n in ("broker", "judging")))
    assert (tmp_path / "journal").read_text().split() == ["judging", "broker"]
    assert len(prepared) == 2
    assert state(supervisor, "broker").num_restarts == 1


def test_broker_that_keeps_its_data_is_only_restarted(tmp_path: Path, run: Run) -> None:
    broker = plan(tmp_path, "broker", kind=ProcessKind.BROKER)
    supervisor = run(broker, plan(tmp_path, "judging"))
    supervisor.wait_ready(20)
    kill_child(supervisor, "broker")
    wait_until(supervisor, lambda: is_back(supervisor, "broker"))
    assert state(supervisor, "judging").num_restarts == 0


def test_each_start_gets_a_command_of_its_own(tmp_path: Path, run: Run) -> None:
    base = plan(tmp_path, "broker", kind=ProcessKind.BROKER)
    numbers = count()
    clusters = tmp_path / "clusters"

    def make_command() -> Command:
        with clusters.open("a") as file:
            file.write(f"{next(numbers)} ")
        return base.make_command()

    fields = {name: getattr(base, name) for name in ProcessPlan.__dataclass_fields__}
    supervisor = run(ProcessPlan(**{**fields, "make_command": make_command}))
    supervisor.wait_ready(20)
    kill_child(supervisor, "broker")
    wait_until(supervisor, lambda: is_back(supervisor, "broker"))
    assert clusters.read_text().split() == ["0", "1"]


def test_full_disk_under_the_run_file_does_not_end_the_wheel(tmp_path: Path, run: Run) -> None:
    def publish(states: object) -> None:
        raise OSError(28, "No space left on device")

    assert run(plan(tmp_path, "judging"), publish=publish).wait_ready(20)


def test_command_that_does_not_exist_ends_the_run_with_its_log(tmp_path: Path, run: Run) -> None:
    base = plan(tmp_path, "broker", kind=ProcessKind.BROKER, max_boot_failures=1)
    fields = {name: getattr(base, name) for name in ProcessPlan.__dataclass_fields__}
    command = Command(argv=("no-such-broker",), env={})
    supervisor = run(ProcessPlan(**{**fields, "make_command": lambda: command}))
    with pytest.raises(DeltawheelError, match="cannot start 'no-such-broker'"):
        supervisor.wait_ready(20)


def test_signals_ask_for_a_stop_and_then_for_haste() -> None:
    from deltawheel.ops.supervisor.signals import stop_on_signals

    hurried = threading.Event()
    before = signal.getsignal(signal.SIGTERM)
    with stop_on_signals(hurried.set) as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        eventually(stop.is_set)
        assert not hurried.is_set()
        os.kill(os.getpid(), signal.SIGINT)
        eventually(hurried.is_set)
    assert signal.getsignal(signal.SIGTERM) is before
