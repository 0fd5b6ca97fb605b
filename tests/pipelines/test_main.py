"""`python -m deltawheel.pipelines`: what its exit status and its last line say."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deltawheel.contracts.cycle import Cycle, StepName, Trigger
from deltawheel.contracts.evaluation import Evaluation, ItemResult, SuiteRole
from deltawheel.contracts.settings import Settings
from deltawheel.infra import wiring
from deltawheel.infra.settings_file import save_settings
from deltawheel.pipelines.__main__ import RETRY_STATUS, main
from deltawheel.pipelines.evaluation import EVALUATION_FILE
from deltawheel.pipelines.files import read_json
from deltawheel.pipelines.stages import STAGES, final_folder
from tests.pipelines.fakes import AT, small_settings


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """Put back what the command sets for its own process."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = small_settings(tmp_path / "home")
    save_settings(settings, tmp_path / "wheel.yaml")
    return settings


def arguments(tmp_path: Path, step: str, *more: str, cycle: str = "cycle_none") -> list[str]:
    file = tmp_path / "wheel.yaml"
    return ["--settings", str(file), "--cycle", cycle, "--step", step, "--token", "t", *more]


def a_stored_cycle(settings: Settings) -> str:
    store = wiring.open_store(settings)
    cycle = Cycle.request(wheel=settings.wheel, trigger=Trigger.OPERATOR, cause="test", at=AT)
    store.add_cycle(cycle)
    store.close()
    return cycle.cycle_id


def the_only_line(capsys: pytest.CaptureFixture[str]) -> str:
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    return line


@pytest.mark.parametrize("step", sorted(STAGES))
def test_an_unknown_cycle_is_a_failure_in_one_sentence(
    tmp_path: Path, settings: Settings, capsys: pytest.CaptureFixture[str], step: str
) -> None:
    assert main(arguments(tmp_path, step)) == 1
    assert the_only_line(capsys) == (
        "the store holds no cycle cycle_none; `deltawheel cycle list` names them"
    )
    assert not (settings.state / "cycles").exists()


def test_wrong_settings_are_a_usage_error_that_names_every_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wheel.yaml").write_text("gatewya: {}\ntraining: {min_pairs: 1}\n")
    assert main(arguments(tmp_path, "select")) == 2
    line = the_only_line(capsys)
    assert "gatewya: unknown key; did you mean 'gateway'?" in line
    assert "training.min_pairs" in line


def test_a_missing_settings_file_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(tmp_path, "select")) == 2
    assert "there is no such file" in the_only_line(capsys)


@pytest.mark.parametrize("step", ["register", "gate", "controls"])
def test_only_the_candidate_is_decided_on_and_registered(
    tmp_path: Path, settings: Settings, capsys: pytest.CaptureFixture[str], step: str
) -> None:
    assert main(arguments(tmp_path, step, "--arm", "random")) == 2
    assert the_only_line(capsys).startswith("--arm random goes with --step evaluate, select, train")
    assert not settings.state.exists()


@pytest.mark.parametrize("more", [["--step", "adopt"], ["--step", "gate", "--arm", "best"], []])
def test_words_that_are_no_step_or_arm_are_usage_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--settings", str(tmp_path / "wheel.yaml"), "--cycle", "c", "--token", "t", *more])
    assert caught.value.code == 2
    assert "usage: python -m deltawheel.pipelines" in capsys.readouterr().err


def write_evaluation(settings: Settings, cycle_id: str) -> None:
    folder = final_folder(settings, cycle_id, StepName.EVALUATE.value)
    folder.mkdir(parents=True)
    items = tuple(
        ItemResult(
            suite="times",
            role=SuiteRole.OUT_OF_DOMAIN,
            item_id=str(number),
            champion_correct=False,
            candidate_correct=number < 40,
        )
        for number in range(100)
    )
    evaluation = Evaluation(
        cycle_id=cycle_id, champion="base", candidate="c", seed=1, temperature=0.0, items=items
    )
    (folder / EVALUATION_FILE).write_text(evaluation.model_dump_json(), encoding="utf-8")


def test_a_stage_that_ends_well_is_status_0_and_is_not_run_again(
    tmp_path: Path, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    cycle_id = a_stored_cycle(settings)
    write_evaluation(settings, cycle_id)
    assert main(arguments(tmp_path, "gate", cycle=cycle_id)) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.startswith("promote: the out-of-domain gain is at least")
    folder = final_folder(settings, cycle_id, "gate")
    assert read_json(folder / "result.json")["verdict"] == "promote"

    assert main(arguments(tmp_path, "gate", cycle=cycle_id)) == 0
    assert capsys.readouterr().out == ""
    assert sorted(path.name for path in folder.parent.iterdir()) == ["evaluate", "gate"]


def test_a_step_that_comes_too_early_says_which_file_it_misses(
    tmp_path: Path, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    cycle_id = a_stored_cycle(settings)
    assert main(arguments(tmp_path, "train", cycle=cycle_id)) == 1
    assert "select/result.json cannot be read" in the_only_line(capsys)


def run_command(
    tmp_path: Path, *words: str, **environment: Any
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-P", "-m", "deltawheel.pipelines", *words],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, **environment},
        check=False,
        timeout=120,
    )


def test_the_processs_exit_status_is_the_commands(tmp_path: Path, settings: Settings) -> None:
    done = run_command(tmp_path, *arguments(tmp_path, "gate"))
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "the store holds no cycle cycle_none; `deltawheel cycle list` names them"
    ]


@pytest.mark.integration
def test_a_slice_that_is_too_small_is_a_failure_of_the_cycle(
    tmp_path: Path, settings: Settings
) -> None:
    done = run_command(tmp_path, *arguments(tmp_path, "select", cycle=a_stored_cycle(settings)))
    assert done.returncode == 1
    assert "of 0 pairs is 0, but training.min_pairs is 4" in done.stderr.splitlines()[-1]


@pytest.mark.integration
def test_a_registry_that_is_away_is_the_status_for_later(tmp_path: Path) -> None:
    settings = small_settings(tmp_path / "home", registry={"uri": "http://127.0.0.1:9"})
    save_settings(settings, tmp_path / "wheel.yaml")
    words = arguments(tmp_path, "select", cycle=a_stored_cycle(settings))
    done = run_command(tmp_path, *words, MLFLOW_HTTP_REQUEST_MAX_RETRIES="0")
    assert done.returncode == RETRY_STATUS == 75
    assert done.stderr.splitlines()[-1].startswith("MLflow at http://127.0.0.1:9: ")
