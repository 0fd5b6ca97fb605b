"""One attempt at a stage becomes its finished folder, whole or not at all."""

import asyncio
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deltawheel.contracts.cycle import StepName
from deltawheel.contracts.errors import ConfigError, CycleError, RetryLaterError
from deltawheel.pipelines.context import Result, StageContext, TrainingArm
from deltawheel.pipelines.stages import (
    CONTROLS,
    RESULT_FILE,
    STAGES,
    attempt_folder,
    final_folder,
    run_stage,
)
from tests.pipelines.fakes import KilledError, a_context, small_settings


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture
def context(tmp_path: Path, runner: asyncio.Runner) -> StageContext:
    return a_context(small_settings(tmp_path), runner, pairs=())


def final_of(context: StageContext, name: str = "select") -> Path:
    return final_folder(context.settings, context.cycle_id, name)


def attempt(context: StageContext, token: str, stage: Callable[[StageContext], Result]) -> Result:
    final = final_of(context)
    own = context.within(attempt_folder(final, token))
    return run_stage("select", own, final, stages={"select": stage})


def writing(text: str) -> Callable[[StageContext], Result]:
    def stage(context: StageContext) -> Result:
        inner = context.folder / "inner"
        inner.mkdir()
        (inner / "file").write_text(text)
        return {"said": text}

    return stage


def names_beside(final: Path) -> list[str]:
    return sorted(path.name for path in final.parent.iterdir())


def test_a_finished_attempt_takes_the_final_name_with_all_its_files(context: StageContext) -> None:
    assert attempt(context, "one", writing("one")) == {"said": "one"}
    final = final_of(context)
    assert names_beside(final) == ["select"]
    assert (final / "inner" / "file").read_text() == "one"
    assert json.loads((final / RESULT_FILE).read_text()) == {"said": "one"}


def test_nothing_has_the_final_name_while_a_stage_works(context: StageContext) -> None:
    seen: list[str] = []

    def stage(own: StageContext) -> Result:
        (own.folder / "half").write_text("half")
        seen.extend(names_beside(final_of(context)))
        return {}

    attempt(context, "one", stage)
    assert seen == ["select.one"]


@pytest.mark.parametrize(
    "error", [CycleError("no"), RetryLaterError("later"), ValueError("bug"), KilledError("gone")]
)
def test_a_failed_attempt_leaves_nothing_and_the_next_one_starts_afresh(
    context: StageContext, error: BaseException
) -> None:
    def fail(own: StageContext) -> Result:
        (own.folder / "half").write_text("half")
        raise error

    with pytest.raises(type(error)) as caught:
        attempt(context, "one", fail)
    assert caught.value is error
    assert names_beside(final_of(context)) == []
    assert attempt(context, "two", writing("two")) == {"said": "two"}


def test_what_a_killed_process_left_is_swept_and_never_read(context: StageContext) -> None:
    final = final_of(context)
    left = attempt_folder(final, "killed")
    left.mkdir(parents=True)
    (left / RESULT_FILE).write_text('{"said": "killed"}')
    other_arm = attempt_folder(final.with_name("select-random"), "busy")
    other_arm.mkdir()
    (final.parent / "select.log").write_text("a log is no attempt")
    assert attempt(context, "two", writing("two")) == {"said": "two"}
    assert names_beside(final) == ["select", "select-random.busy", "select.log"]


def test_a_folder_without_a_result_is_not_taken_for_a_finished_stage(
    context: StageContext,
) -> None:
    final = final_of(context)
    final.mkdir(parents=True)
    (final / "stray").write_text("x")
    with pytest.raises(OSError, match="not empty"):
        attempt(context, "one", writing("one"))
    assert names_beside(final) == ["select"]


def test_a_finished_stage_is_not_run_again(context: StageContext) -> None:
    attempt(context, "one", writing("one"))
    ran: list[str] = []

    def stage(own: StageContext) -> Result:
        ran.append("again")
        return {}

    assert attempt(context, "two", stage) == {"said": "one"}
    assert ran == []
    assert names_beside(final_of(context)) == ["select"]


def test_the_first_to_finish_stands_and_the_late_one_returns_its_result(
    context: StageContext,
) -> None:
    final = final_of(context)

    def overtaken(own: StageContext) -> Result:
        (final / "inner").mkdir(parents=True)
        (final / "inner" / "file").write_text("fast")
        (final / RESULT_FILE).write_text('{"said": "fast"}')
        return writing("slow")(own)

    assert attempt(context, "slow", overtaken) == {"said": "fast"}
    assert names_beside(final) == ["select"]
    assert (final / "inner" / "file").read_text() == "fast"


def test_a_stage_that_fails_after_another_finished_still_fails(context: StageContext) -> None:
    """Its error says what it saw; the runner reads the finished folder on the next try."""

    def overtaken(own: StageContext) -> Result:
        attempt(context, "fast", writing("fast"))
        raise RetryLaterError("server local does not answer")

    with pytest.raises(RetryLaterError):
        attempt(context, "slow", overtaken)
    assert attempt(context, "next", writing("next")) == {"said": "fast"}


def test_a_disk_that_fills_during_a_stage_is_a_cycle_error(context: StageContext) -> None:
    def stage(own: StageContext) -> Result:
        (own.folder / "half").write_text("half")
        with open("/dev/full", "w") as full:
            full.write("x")
        return {}

    with pytest.raises(CycleError, match=r"the disk is full: .* needs about 16\.0 MB") as caught:
        attempt(context, "one", stage)
    assert str(final_of(context).parent) in str(caught.value)
    assert names_beside(final_of(context)) == []


def test_a_disk_without_room_for_the_base_is_told_before_training_begins(
    tmp_path: Path, runner: asyncio.Runner
) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text("{}")
    with (base / "model.safetensors").open("wb") as hole:
        hole.truncate(shutil.disk_usage(tmp_path).free + 10**11)
    same = {"base": str(base)}
    settings = small_settings(tmp_path, training=same, servers=(same,))
    context = a_context(settings, runner, pairs=())
    final = final_of(context, "train")
    ran: list[str] = []

    def stage(own: StageContext) -> Result:
        ran.append("train")
        return {}

    own = context.within(attempt_folder(final, "one"))
    with pytest.raises(CycleError, match="the disk is full"):
        run_stage("train", own, final, stages={"train": stage})
    assert ran == []
    assert names_beside(final) == []


def test_a_base_that_is_no_model_names_the_setting(tmp_path: Path, runner: asyncio.Runner) -> None:
    nowhere = {"base": str(tmp_path / "nowhere")}
    settings = small_settings(tmp_path, training=nowhere, servers=(nowhere,))
    context = a_context(settings, runner, pairs=())
    final = final_of(context, "train")
    own = context.within(attempt_folder(final, "one"))
    with pytest.raises(ConfigError, match=r"training\.base: no model in .*nowhere"):
        run_stage("train", own, final, stages={"train": writing("x")})


def test_every_step_of_a_cycle_but_adoption_is_a_stage() -> None:
    steps = {name.value for name in StepName} - {StepName.ADOPT.value}
    assert STAGES.keys() == steps | {CONTROLS}


def test_an_arm_finishes_beside_the_candidate_and_an_attempt_beside_both(tmp_path: Path) -> None:
    settings = small_settings(tmp_path)
    cycle = (tmp_path / "state" / "cycles" / "cycle_1").resolve()
    candidate = final_folder(settings, "cycle_1", "train")
    arm = final_folder(settings, "cycle_1", "train", TrainingArm.SFT_RANDOM)
    assert candidate == cycle / "train"
    assert arm == cycle / "train-sft-random"
    assert attempt_folder(arm, "token") == cycle / "train-sft-random.token"


def test_a_cycle_that_the_store_does_not_know_is_named(context: StageContext) -> None:
    stranger = context.within(context.folder, cycle_id="cycle_none")
    with pytest.raises(CycleError, match="the store holds no cycle cycle_none"):
        stranger.cycle()


def test_a_server_that_no_setting_names_is_a_config_error(
    tmp_path: Path, runner: asyncio.Runner
) -> None:
    settings = small_settings(tmp_path, training={"is_enabled": False, "server": "gone"})
    context = a_context(settings, runner, pairs=())
    with pytest.raises(ConfigError, match=r"training\.server: unknown server 'gone'"):
        _ = context.server
