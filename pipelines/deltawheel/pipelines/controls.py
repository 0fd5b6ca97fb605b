"""Controls: the same pairs, the same budget, other choices of what to learn from.

Without them a gain says only that training did something. Shuffled labels and exchanged sides must
give nothing, a random slice shows what selecting by delta added, and plain supervised fine-tuning
on the chosen side learns the flaw that both sides share.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from deltawheel.contracts.cycle import StepName
from deltawheel.contracts.errors import CycleError
from deltawheel.contracts.evaluation import Evaluation, SuiteRole
from deltawheel.contracts.gate import GateDecision
from deltawheel.pipelines.adapters import evaluation_sampling, keep_adapter, on_server
from deltawheel.pipelines.context import StageContext, TrainingArm
from deltawheel.pipelines.evaluation import EVALUATION_FILE, Answers, ask, cycle_suites
from deltawheel.pipelines.gate import GATE_FILE, decide
from deltawheel.pipelines.selection import SLICE_FILE, manifest_of, take_slice
from deltawheel.pipelines.training import MODEL_FOLDER, train_slice

__all__ = ["CONTROL_ARMS", "run_controls"]

CONTROL_ARMS: Final = (
    TrainingArm.RANDOM,
    TrainingArm.SHUFFLED_LABELS,
    TrainingArm.EXCHANGED_SIDES,
    TrainingArm.SFT_RANDOM,
    TrainingArm.SFT,
)


def run_controls(
    context: StageContext, arms: Sequence[TrainingArm] = CONTROL_ARMS
) -> list[dict[str, Any]]:
    """Train and evaluate every control of a cycle that has been decided.

    Items, seeds and server are those of the cycle's own evaluation, whose marks of champion and
    candidate are read and not asked again. Returns one row per arm, champion and candidate first:
    `arm`, `num_pairs`, `accuracy` by suite, the out-of-domain `difference` from the champion with
    its one-sided `lower` and `upper` bounds, and the same by suite under `suites`.

    Raises:
        CycleError: the cycle's evaluation is of other items than these settings draw.
        RetryLaterError: the server was lost.
    """
    done = context.done(StepName.EVALUATE) / EVALUATION_FILE
    evaluation = Evaluation.model_validate_json(done.read_text(encoding="utf-8"))
    decided = context.done(StepName.GATE) / GATE_FILE
    decision = GateDecision.model_validate_json(decided.read_text(encoding="utf-8"))
    num_pairs = manifest_of(context.done(StepName.SELECT)).num_pairs
    rows = [_champion_row(decision), _row(TrainingArm.TOP_DELTA.value, num_pairs, decision)]
    for arm in arms:
        own = context.within(context.folder / arm.value, arm=arm)
        own.folder.mkdir()
        rows.append(_control(own, evaluation, decision))
    return rows


def _control(
    context: StageContext, evaluation: Evaluation, decision: GateDecision
) -> dict[str, Any]:
    arm = context.arm.value
    context.progress(f"control {arm}")
    manifest = take_slice(context, context.folder)
    train_slice(context, context.folder / SLICE_FILE, context.folder)
    kept = keep_adapter(context.settings, context.folder / MODEL_FOLDER)
    generator = on_server(context, f"control-{arm}", kept, evaluation_sampling(context.settings))
    answers = ask(context, generator, cycle_suites(context), arm=arm)
    compared = _against_champion(evaluation, answers, generator.model)
    return _row(arm, manifest.num_pairs, decide(compared, decision.thresholds))


def _against_champion(evaluation: Evaluation, answers: Answers, model: str) -> Evaluation:
    marks = {
        (suite, answer.item_id): answer.is_correct
        for suite, given in answers.items()
        for answer in given
    }
    if marks.keys() != {(item.suite, item.item_id) for item in evaluation.items}:
        raise CycleError(
            "the cycle was evaluated on other items than these settings draw; run the controls "
            "with the settings of the cycle"
        )
    items = tuple(
        item.model_copy(update={"candidate_correct": marks[item.suite, item.item_id]})
        for item in evaluation.items
    )
    return evaluation.model_copy(update={"candidate": model, "items": items})


def _row(arm: str, num_pairs: int, decision: GateDecision) -> dict[str, Any]:
    transfer = decision.overall(SuiteRole.OUT_OF_DOMAIN)
    suites = [row for row in decision.comparisons if row.suite is not None]
    return {
        "arm": arm,
        "num_pairs": num_pairs,
        "accuracy": {str(row.suite): row.candidate_accuracy for row in suites},
        "difference": transfer.difference,
        "lower": transfer.lower,
        "upper": transfer.upper,
        "suites": {
            str(row.suite): {"difference": row.difference, "lower": row.lower, "upper": row.upper}
            for row in suites
        },
    }


def _champion_row(decision: GateDecision) -> dict[str, Any]:
    suites = [row for row in decision.comparisons if row.suite is not None]
    nothing: Mapping[str, float] = {"difference": 0.0, "lower": 0.0, "upper": 0.0}
    return {
        "arm": "champion",
        "num_pairs": 0,
        "accuracy": {str(row.suite): row.champion_accuracy for row in suites},
        **nothing,
        "suites": {str(row.suite): dict(nothing) for row in suites},
    }
