"""What the bench says of its paces, and where it puts processes."""

from pathlib import Path

import pytest

from deltawheel.contracts.errors import DeltawheelError
from deltawheel.infra.processes import Command
from deltawheel.ops.bench.serving.client import Pace, pace_of
from deltawheel.ops.bench.serving.measures import Figures
from deltawheel.ops.bench.serving.pinning import pinned, pinned_plan
from deltawheel.ops.bench.serving.prefix import PrefixReuse
from deltawheel.ops.bench.serving.report import summary
from deltawheel.ops.bench.serving.saturation import Saturation
from deltawheel.ops.bench.serving.world import sandbox
from deltawheel.ops.supervisor.plan import ProcessKind, ProcessPlan


def a_pace(tokens_per_s: float) -> Pace:
    return Pace(output_tokens=round(10 * tokens_per_s), seconds=10)


def a_plan(kind: ProcessKind) -> ProcessPlan:
    return ProcessPlan(
        name="it",
        kind=kind,
        make_command=lambda: Command(argv=("run", "it"), env={"A": "1"}),
        is_ready=lambda: True,
        ready_timeout_s=1,
        log_file=Path("log"),
        stop_order=0,
    )


def test_ratio_is_the_median_of_the_runs_ratios_and_not_the_ratio_of_medians() -> None:
    found = Saturation(
        wheel=[a_pace(90), a_pace(50), a_pace(200)], client=[a_pace(100), a_pace(100), a_pace(100)]
    )
    assert found.ratio == pytest.approx(0.9)
    assert summary(Figures(smollm2=found))["saturation_smollm2"] == 0.9


def test_what_was_not_measured_is_null_and_every_wanted_key_is_there() -> None:
    said = summary(Figures())
    wanted = ("saturation_sandbox", "saturation_smollm2", "judge_prefix_hit_rate")
    assert [said[key] for key in (*wanted, "cpu_ms_per_request")] == [None] * 4


def test_more_shared_tokens_than_the_rubric_has_are_no_more_than_all_of_it() -> None:
    reuse = PrefixReuse(judgements=10, requests=10, rubric_tokens=100, hit_tokens=1_200)
    assert reuse.hit_rate == 1
    half = PrefixReuse(judgements=10, requests=20, rubric_tokens=100, hit_tokens=1_000)
    assert (half.hit_rate, half.requests_per_trace) == (0.5, 2)


def test_client_that_completed_less_than_it_was_given_has_no_pace() -> None:
    said = {"completed": 9, "total_output_tokens": 90, "duration": 3.0}
    assert pace_of(said, 9).tokens_per_s == 30
    with pytest.raises(DeltawheelError, match="completed 9 of 10"):
        pace_of(said, 10)


def test_server_and_everybody_else_are_on_cores_of_their_own() -> None:
    server = pinned_plan(a_plan(ProcessKind.SERVER), (0, 1)).make_command()
    service = pinned_plan(a_plan(ProcessKind.SERVICE), (0, 1)).make_command()
    assert server.argv == ("taskset", "--cpu-list", "0", "run", "it")
    assert server.env == {"A": "1", "VLLM_CPU_OMP_THREADS_BIND": "0"}
    assert (service.argv[2], service.env) == ("1", {"A": "1"})
    assert pinned(("run",), None) == ("run",)


def test_no_two_prompts_of_the_sandbox_are_alike() -> None:
    text = sandbox(num_prompts=1).text
    assert len({text(number) for number in range(5_000)}) == 5_000
