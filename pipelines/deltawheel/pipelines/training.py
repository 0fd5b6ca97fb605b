"""Train: from a slice to one folder that holds adapter, tokenizer and base, and loads anywhere."""

import shutil
from pathlib import Path
from typing import Final

from deltawheel.contracts.cycle import StepName
from deltawheel.contracts.failpoints import Failpoint
from deltawheel.pipelines.adapters import adapter_digest, base_folder, make_portable
from deltawheel.pipelines.context import Result, StageContext
from deltawheel.pipelines.files import write_json_lines
from deltawheel.pipelines.selection import SLICE_FILE, champion_of, read_slice
from deltawheel.pipelines.trainers import TrainingInputs, TrainingReport, train_adapter

__all__ = ["LOG_FILE", "MODEL_FOLDER", "train", "train_slice"]

MODEL_FOLDER: Final = "model"
LOG_FILE: Final = "training_log.jsonl"


def train(context: StageContext) -> Result:
    """Train the cycle's candidate on its slice."""
    context.reach(Failpoint.TRAINING_STEP, context.cycle_id)
    return train_slice(context, context.done(StepName.SELECT) / SLICE_FILE, context.folder)


def train_slice(context: StageContext, slice_file: Path, folder: Path) -> Result:
    """Train on a slice by the method of the context's arm; controls come here too."""
    settings, champion = context.settings, champion_of(context)
    base = base_folder(settings)
    scratch = folder / "scratch"
    inputs = TrainingInputs(
        rows=read_slice(slice_file),
        base=base,
        champion=Path(champion.adapter_path) if champion.adapter_path else None,
        method=context.arm.method,
        settings=settings.training,
        scratch=scratch,
        progress=context.progress,
    )
    started_s = context.clock.monotonic()
    report = train_adapter(inputs, folder / MODEL_FOLDER)
    shutil.rmtree(scratch, ignore_errors=True)
    make_portable(folder / MODEL_FOLDER, base)
    write_json_lines(folder / LOG_FILE, report.log)
    return {
        **_figures(report),
        "method": inputs.method,
        "learning_rate": inputs.learning_rate,
        "adapter_digest": adapter_digest(folder / MODEL_FOLDER),
        "started_from": champion.version or "base",
        "train_seconds": round(context.clock.monotonic() - started_s, 1),
    }


def _figures(report: TrainingReport) -> Result:
    return {
        "num_pairs": report.num_pairs,
        "num_too_long": report.num_too_long,
        "num_steps": report.num_steps,
        "num_trainable": report.num_trainable,
        "final_loss": report.final.get("loss"),
        "final_reward_accuracy": report.final.get("rewards/accuracies"),
        "final_margin": report.final.get("rewards/margins"),
    }
