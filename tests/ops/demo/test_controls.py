"""The demo's controls: a stage process beside the wheel, here one that does as a test says."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from deltawheel.contracts.errors import DeltawheelError
from deltawheel.contracts.settings import Settings
from deltawheel.infra.clock import SystemRandom
from deltawheel.ops.demo.controls import ControlsRun, start_controls
from tests.waiting import wait_for

CYCLE = "cycle_1"
ROWS = [{"arm": "champion", "num_pairs": 0}, {"arm": "random", "num_pairs": 320}]

STAGE = """
import sys

for line in sys.stdin:
    command, _, text = line.rstrip("\\n").partition(" ")
    if command == "exit":
        sys.exit(int(text))
    if command == "result":
        open(sys.argv[1], "w").write(text)
    if command == "print":
        print(text, flush=True)
    if command == "write":
        print(text, end="", flush=True)
"""
"""What the fake stage runs: it does what its standard input says, line by line."""


@dataclass
class FakeStage:
    """A real process in the stage's place, led by the test."""

    argv: Sequence[str]
    popen: "subprocess.Popen[bytes]"
    folder: Path

    def poll(self) -> int | None:
        return self.popen.poll()

    def kill(self) -> None:
        self.popen.kill()
        self.popen.communicate()

    def tell(self, *commands: str) -> None:
        assert self.popen.stdin is not None
        for command in commands:
            self.popen.stdin.write(f"{command}\n".encode())
        self.popen.stdin.flush()


@dataclass
class FakeStages:
    """Starts fake stages, as `spawn_guarded` starts real ones."""

    begun: list[FakeStage] = field(default_factory=list)

    def __call__(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None, log_file: Path
    ) -> FakeStage:
        assert env is None, "a stage has this process's environment"
        folder = log_file.parent / "controls"
        folder.mkdir(parents=True)
        with log_file.open("ab") as log:
            popen = subprocess.Popen(
                [sys.executable, "-c", STAGE, str(folder / "result.json")],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        stage = FakeStage(argv, popen, folder)
        self.begun.append(stage)
        return stage


@dataclass
class Bench:
    """Controls that run in a fake stage, and what they have said."""

    run: ControlsRun
    stage: FakeStage
    said: list[str]

    def ends(self, *commands: str) -> None:
        """Tell the stage these, and look at the run until it has ended."""
        self.stage.tell(*commands)
        wait_for(self.run.has_ended, what="the stage ends")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    stages, said = FakeStages(), list[str]()
    settings = Settings(home=tmp_path)
    run = start_controls(settings, CYCLE, random=SystemRandom(0), say=said.append, spawn=stages)
    [stage] = stages.begun
    yield Bench(run=run, stage=stage, said=said)
    stage.kill()


def after(argv: Sequence[str], option: str) -> str:
    return argv[argv.index(option) + 1]


def test_stage_is_told_the_cycle_and_the_running_wheels_settings(
    bench: Bench, tmp_path: Path
) -> None:
    argv = bench.stage.argv
    assert argv[: argv.index("--step")] == [sys.executable, "-P", "-m", "deltawheel.pipelines"]
    assert (after(argv, "--step"), after(argv, "--cycle")) == ("controls", CYCLE)
    assert after(argv, "--settings") == str(tmp_path / "state" / "run" / "settings.yaml")
    assert len(after(argv, "--token")) == 32


def test_log_and_result_lie_in_the_cycles_folder(bench: Bench, tmp_path: Path) -> None:
    cycle = tmp_path / "state" / "cycles" / CYCLE
    assert bench.run.log_file == cycle / "controls.log"
    assert bench.run.folder == bench.stage.folder == cycle / "controls"


def test_controls_that_end_well_give_their_rows(bench: Bench) -> None:
    assert not bench.run.has_ended()
    bench.ends(f"result {json.dumps({'rows': ROWS})}", "exit 0")
    assert bench.run.rows() == ROWS


def test_controls_that_fail_give_the_end_of_their_log(bench: Bench) -> None:
    lines = [f"print line {number}" for number in range(100)]
    bench.ends(*lines, "print ValueError: no slice", "exit 3")
    with pytest.raises(DeltawheelError) as caught:
        bench.run.rows()
    first, *tail = str(caught.value).splitlines()
    assert first == f"the controls ended with status 3; {bench.run.log_file} ends with:"
    assert tail[-2:] == ["line 99", "ValueError: no slice"]
    assert "line 0" not in tail


def test_result_of_controls_that_failed_counts_for_nothing(bench: Bench) -> None:
    bench.ends(f"result {json.dumps({'rows': ROWS})}", "exit 1")
    with pytest.raises(DeltawheelError, match="ended with status 1"):
        bench.run.rows()


def logged(bench: Bench, text: str) -> Any:
    return wait_for(lambda: bench.run.log_file.read_text().endswith(text), what=text)


def test_each_control_is_said_once_when_it_begins(bench: Bench) -> None:
    bench.stage.tell("print loading", "print control random", "print epoch 1 of control random")
    logged(bench, "epoch 1 of control random\n")
    for _ in range(3):
        assert not bench.run.has_ended()
    assert bench.said == ["control random"]
    bench.stage.tell("print control sft")
    logged(bench, "control sft\n")
    for _ in range(3):
        assert not bench.run.has_ended()
    assert bench.said == ["control random", "control sft"]


def test_line_is_said_when_it_is_whole(bench: Bench) -> None:
    bench.stage.tell("write control shuffled-")
    logged(bench, "control shuffled-")
    assert not bench.run.has_ended()
    assert bench.said == []
    bench.stage.tell("print labels")
    logged(bench, "labels\n")
    assert not bench.run.has_ended()
    assert bench.said == ["control shuffled-labels"]


def test_control_that_begins_just_before_the_end_is_said_too(bench: Bench) -> None:
    bench.ends("print control sft", "exit 0")
    assert bench.said == ["control sft"]
