"""The batch stages of a cycle, and how one attempt at a stage becomes its finished folder."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from deltawheel.contracts.cycle import StepName
from deltawheel.contracts.settings import Settings
from deltawheel.pipelines.adapters import base_folder
from deltawheel.pipelines.context import Result, Stage, StageContext, TrainingArm
from deltawheel.pipelines.controls import CONTROL_ARMS, run_controls
from deltawheel.pipelines.evaluation import evaluate
from deltawheel.pipelines.files import (
    flush_tree,
    folder_bytes,
    no_space_is_a_cycle_error,
    read_json,
    require_space,
    write_json,
)
from deltawheel.pipelines.gate import gate
from deltawheel.pipelines.registration import register
from deltawheel.pipelines.selection import select
from deltawheel.pipelines.training import train

__all__ = ["CONTROLS", "RESULT_FILE", "STAGES", "attempt_folder", "final_folder", "run_stage"]

RESULT_FILE: Final = "result.json"
CONTROLS: Final = "controls"
_HEADROOM_BYTES: Final = 16_000_000
_BASE_COPIES: Final[Mapping[str, int]] = MappingProxyType(
    {StepName.TRAIN: 1, StepName.REGISTER: 2, CONTROLS: len(CONTROL_ARMS)}
)

STAGES: Final[Mapping[str, Stage]] = MappingProxyType(
    {
        StepName.SELECT: select,
        StepName.TRAIN: train,
        StepName.EVALUATE: evaluate,
        StepName.GATE: gate,
        StepName.REGISTER: register,
        CONTROLS: lambda context: {"rows": run_controls(context)},
    }
)
"""By name. `controls` is no step of a cycle: it compares a decided one with its control arms."""


def final_folder(
    settings: Settings, cycle_id: str, name: str, arm: TrainingArm = TrainingArm.TOP_DELTA
) -> Path:
    """Return where a finished stage lies; another arm's lies beside the candidate's."""
    suffix = "" if arm is TrainingArm.TOP_DELTA else f"-{arm.value}"
    return (settings.state / "cycles" / cycle_id / f"{name}{suffix}").resolve()


def attempt_folder(final: Path, token: str) -> Path:
    """Return where one attempt works: nothing reads it, and its token is nobody else's."""
    return final.with_name(f"{final.name}.{token}")


def run_stage(
    name: str, context: StageContext, final: Path, *, stages: Mapping[str, Stage] = STAGES
) -> Result:
    """Run a stage in its attempt's folder and give that folder its final name, whole or not at all.

    Where another attempt has finished first, its folder and its result stand and ours are dropped.

    Raises:
        CycleError: the stage says so, or the disk is full.
        RetryLaterError: the stage says so.
    """
    if (final / RESULT_FILE).is_file():
        return read_json(final / RESULT_FILE)
    context.folder.mkdir(parents=True)
    _sweep(context.folder, final)
    needed = _needed_bytes(name, context.settings)
    try:
        require_space(context.folder, needed)
        with no_space_is_a_cycle_error(final.parent, needed):
            write_json(context.folder / RESULT_FILE, stages[name](context))
            flush_tree(context.folder)
            _give_name(context.folder, final)
    finally:
        shutil.rmtree(context.folder, ignore_errors=True)
    return read_json(final / RESULT_FILE)


def _sweep(own: Path, final: Path) -> None:
    """Remove what killed attempts at this stage have left: their tokens hold nothing any more."""
    for left in final.parent.glob(f"{final.name}.*"):
        if left.is_dir() and left != own:
            shutil.rmtree(left, ignore_errors=True)


def _give_name(folder: Path, final: Path) -> None:
    try:
        folder.rename(final)
    except OSError:
        if not (final / RESULT_FILE).is_file():
            raise
        return
    descriptor = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _needed_bytes(name: str, settings: Settings) -> int:
    copies = _BASE_COPIES.get(name, 0)
    base_bytes = folder_bytes(base_folder(settings)) if copies else 0
    return copies * base_bytes + _HEADROOM_BYTES
