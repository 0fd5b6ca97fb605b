"""A kill is felt until another process answers and the store shows progress."""

from pathlib import Path

import pytest

from deltawheel.contracts.store import Progress
from deltawheel.infra.processes import ProcessId
from deltawheel.ops.bench.chaos.recovery import Recovery, percentile
from deltawheel.ops.bench.chaos.schedule import SUPERVISOR
from deltawheel.ops.bench.chaos.wheel import Victim
from deltawheel.ops.supervisor.lifecycle import Phase
from deltawheel.ops.supervisor.plan import SERVICES, ProcessKind
from deltawheel.ops.supervisor.runfile import ProcessState, RunRecord
from tests.records import T0

OLD, NEW = ProcessId(pid=10, started=1), ProcessId(pid=20, started=2)
EVERYBODY = (*SERVICES, "broker", "postgres")


def a_state(name: str, *, guard: ProcessId = NEW, phase: Phase = Phase.READY) -> ProcessState:
    return ProcessState(
        name=name,
        kind=ProcessKind.SERVICE,
        phase=phase,
        guard=guard,
        members=(),
        host="127.0.0.1",
        ports=(),
        num_restarts=0,
        last_status=None,
        log_file=Path("log"),
    )


def a_run(*states: ProcessState, supervisor: ProcessId = OLD) -> RunRecord:
    return RunRecord(
        wheel="test",
        boot_id="boot",
        supervisor=supervisor,
        started_at=T0,
        gateway_url="",
        broker="",
        servers={},
        processes=states,
    )


def progress(judgements: int) -> Progress:
    return Progress(
        prompts=9,
        assigned=9,
        traces=9,
        judgements=judgements,
        slot_failures=0,
        pairs=0,
        dead_letters=0,
        completion_tokens=0,
        outcomes={},
    )


def killed(name: str) -> Recovery:
    return Recovery(cause=name, victim=Victim(name=name, old=OLD), killed_at_s=100.0)


def test_service_has_recovered_when_another_answers_and_has_added_to_the_store() -> None:
    one, back = killed("judging"), a_run(a_state("judging"))
    one.look(101, a_run(a_state("judging", guard=OLD)), progress(5))
    one.look(102, a_run(a_state("judging", phase=Phase.STARTING)), progress(6))
    one.look(103, back, None)
    one.look(104, back, progress(7))
    assert (one.ready_at_s, one.is_over) == (104, False)
    one.look(105, back, progress(7))
    one.look(106, back, None)
    assert not one.is_over
    one.look(107, back, progress(8))
    assert one.took_s == 7
    one.look(200, back, progress(9))
    assert one.took_s == 7


@pytest.mark.parametrize("name", ["training", "monitoring"])
def test_service_that_adds_nothing_has_recovered_when_it_answers(name: str) -> None:
    one = killed(name)
    one.look(103, a_run(a_state(name)), None)
    assert one.took_s == 3


def test_supervisor_has_recovered_when_all_that_it_runs_answers() -> None:
    victim = Victim(name=SUPERVISOR, old=OLD)
    everybody = [a_state(name) for name in EVERYBODY]
    assert not victim.is_replaced(None)
    assert not victim.is_replaced(a_run(*everybody, supervisor=OLD))
    assert not victim.is_replaced(a_run(a_state("postgres"), supervisor=NEW))
    late = a_state("curation", phase=Phase.STARTING)
    others = [state for state in everybody if state.name != "curation"]
    assert not victim.is_replaced(a_run(*others, late, supervisor=NEW))
    assert victim.is_replaced(a_run(*everybody, supervisor=NEW))


def test_recovery_that_is_not_over_has_no_length() -> None:
    with pytest.raises(ValueError, match="judging has not recovered"):
        _ = killed("judging").took_s


@pytest.mark.parametrize(
    ("share", "value"), [(0.0, 1.0), (0.5, 50.0), (0.99, 99.0), (0.995, 100.0), (1.0, 100.0)]
)
def test_percentile_is_a_value_that_was_measured(share: float, value: float) -> None:
    assert percentile([float(number) for number in range(100, 0, -1)], share) == value


def test_percentile_of_nothing_is_zero() -> None:
    assert percentile([], 0.5) == 0.0
