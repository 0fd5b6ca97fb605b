"""Register: every cycle leaves a run; only a promoted candidate becomes a version and champion.

The order is version → adapter warm in its server → decision row → alias. Killed between any two of
them, a second attempt finds what is done and goes on; the alias, which others read as the truth,
comes last. Adoption into the pool is a step of its own.
"""

import shutil
from pathlib import Path
from typing import Final

from deltawheel.contracts.cycle import StepName
from deltawheel.contracts.evaluation import SuiteRole
from deltawheel.contracts.gate import GateDecision, Verdict
from deltawheel.contracts.generator import Generator
from deltawheel.contracts.pool import Pool
from deltawheel.contracts.promotion import Champion, Promotion
from deltawheel.pipelines.adapters import (
    BASE_FOLDER,
    adapter_digest,
    keep_adapter,
    load_with_patience,
    on_server,
)
from deltawheel.pipelines.context import Result, StageContext
from deltawheel.pipelines.evaluation import EVALUATION_FILE, ITEMS_FILE
from deltawheel.pipelines.files import read_json
from deltawheel.pipelines.gate import GATE_FILE
from deltawheel.pipelines.selection import MANIFEST_FILE, champion_of, manifest_of
from deltawheel.pipelines.training import LOG_FILE, MODEL_FOLDER

__all__ = ["register"]

_CALL_S: Final = 10.0
"""Longest that a call to the registry takes: its client gives up after eight seconds."""

_MOST_OF_LEASE: Final = 0.8

_NAME_CHARS: Final = 52
"""Of the registered model's name in a generator's, which may have 64 with its version."""


def register(context: StageContext) -> Result:
    """Record the cycle, and promote its candidate if the gate says so."""
    gate_file = context.done(StepName.GATE) / GATE_FILE
    decision = GateDecision.model_validate_json(gate_file.read_text(encoding="utf-8"))
    run_id = _record(context, decision)
    if decision.verdict is not Verdict.PROMOTE:
        context.progress(f"recorded run {run_id}; no version, for the gate said {decision.verdict}")
        return {"run_id": run_id, "verdict": decision.verdict.value}
    champion = champion_of(context)
    _require_lease(context)
    version = context.registry.add_version(
        context.cycle_id, run_id, tags=_version_tags(context, champion)
    )
    promotion = _promote(context, decision, champion, version)
    _require_lease(context)
    context.registry.move_champion(promotion.version, replaces=promotion.replaces)
    context.progress(f"version {promotion.version} is champion as {promotion.generator.name}")
    return {
        "run_id": run_id,
        "verdict": decision.verdict.value,
        "version": promotion.version,
        "alias": "champion",
        "replaces": promotion.replaces,
        "model_name": promotion.model_name,
        "generator": promotion.generator.name,
    }


def _require_lease(context: StageContext) -> None:
    """Begin nothing that changes the registry unless one call can end under this lease.

    A lease shorter than a call may take is asked for nearly whole, which is the most it can give.
    """
    longest_s = _MOST_OF_LEASE * context.settings.training.lease_s
    context.require_lease(StepName.REGISTER, needed_s=min(_CALL_S, longest_s))


def _record(context: StageContext, decision: GateDecision) -> str:
    artifacts = context.folder / "artifacts"
    _gather(context, artifacts, with_model=decision.verdict is Verdict.PROMOTE)
    try:
        return context.registry.record_run(
            context.cycle_id,
            parameters=_parameters(context),
            metrics=_metrics(context, decision),
            manifest=manifest_of(context.done(StepName.SELECT)),
            decision=decision,
            artifacts=artifacts,
        )
    finally:
        shutil.rmtree(artifacts, ignore_errors=True)


def _gather(context: StageContext, artifacts: Path, *, with_model: bool) -> None:
    """Lay out what the run keeps. The verdict also lies in the model folder: it travels with it."""
    trained, gated = context.done(StepName.TRAIN), context.done(StepName.GATE)
    gate_folder = artifacts / "gate"
    gate_folder.mkdir(parents=True)
    for name in (GATE_FILE, EVALUATION_FILE):
        shutil.copyfile(gated / name, gate_folder / name)
    shutil.copyfile(context.done(StepName.EVALUATE) / ITEMS_FILE, artifacts / ITEMS_FILE)
    shutil.copyfile(context.done(StepName.SELECT) / MANIFEST_FILE, artifacts / "slice.json")
    shutil.copyfile(trained / LOG_FILE, artifacts / LOG_FILE)
    if with_model:
        shutil.copytree(trained / MODEL_FOLDER, artifacts / MODEL_FOLDER)
        shutil.copytree(gate_folder, artifacts / MODEL_FOLDER / "gate")


def _parameters(context: StageContext) -> dict[str, str]:
    settings = context.settings
    manifest, champion = manifest_of(context.done(StepName.SELECT)), champion_of(context)
    training = settings.training.model_dump(
        mode="json",
        include={
            "learning_rate",
            "beta",
            "batch_size",
            "passes",
            "warmup_steps",
            "lora_rank",
            "max_length",
            "seed",
            "threads",
        },
    )
    return {
        "wheel": settings.wheel,
        "loss_type": "sigmoid_norm",
        "started_from": champion.version or BASE_FOLDER,
        "slice_id": manifest.slice_id,
        "selector": manifest.spec.selector.value,
        "dimension": manifest.spec.dimension,
        "share": str(manifest.spec.share),
        "rubric_digest": manifest.spec.rubric_digest,
        **{name: str(value) for name, value in training.items()},
    }


def _metrics(context: StageContext, decision: GateDecision) -> dict[str, float]:
    trained = read_json(context.done(StepName.TRAIN) / "result.json")
    manifest = manifest_of(context.done(StepName.SELECT))
    metrics = {
        "slice/num_pairs": float(manifest.num_pairs),
        "slice/mean_delta": manifest.mean_delta,
        "gate/smallest_visible_gain": decision.smallest_visible_gain,
    }
    for name in ("final_loss", "final_reward_accuracy", "final_margin", "num_too_long"):
        if trained.get(name) is not None:
            metrics[f"training/{name}"] = float(trained[name])
    for row in decision.comparisons:
        where = row.suite or f"all-{row.role.value}"
        metrics[f"{where}/champion_accuracy"] = row.champion_accuracy
        metrics[f"{where}/candidate_accuracy"] = row.candidate_accuracy
        metrics[f"{where}/difference"] = row.difference
        metrics[f"{where}/lower"] = row.lower
        metrics[f"{where}/upper"] = row.upper
    return metrics


def _version_tags(context: StageContext, champion: Champion) -> dict[str, str]:
    return {
        "deltawheel.adapter_digest": adapter_digest(context.done(StepName.TRAIN) / MODEL_FOLDER),
        "deltawheel.lineage_depth": str(champion.lineage_depth + 1),
    }


def _promote(
    context: StageContext, decision: GateDecision, champion: Champion, version: str
) -> Promotion:
    """Warm the adapter up and store the decision; an earlier attempt's decision stands."""
    generator = _generator(context, decision, champion, version)
    load_with_patience(context, generator)
    return context.store.add_promotion(
        Promotion(
            cycle_id=context.cycle_id,
            model_name=context.settings.registered_model,
            version=version,
            replaces=champion.version,
            generator=generator,
            promoted_at=context.clock.now(),
        )
    )


def _generator(
    context: StageContext, decision: GateDecision, champion: Champion, version: str
) -> Generator:
    """Describe the promoted model as a member of the pool.

    Its capability is that of the best member plus the measured out-of-domain gain, as a share: the
    gate has shown that it is better than the champion, and the ladder's unit is whatever the
    operator's priors mean by 1, so more than the measured gain would be made up.
    """
    kept = keep_adapter(context.settings, context.done(StepName.TRAIN) / MODEL_FOLDER)
    name = f"{context.settings.registered_model[:_NAME_CHARS]}-v{version}"
    served = on_server(context, name, kept, context.settings.training.sampling)
    others = [
        member.capability
        for member in Pool.from_log(context.store.pool_log()).members.values()
        if member.name != name
    ]
    gain = decision.overall(SuiteRole.OUT_OF_DOMAIN).difference
    return served.model_copy(
        update={
            "capability": max(others, default=0.0) + gain,
            "lineage_depth": champion.lineage_depth + 1,
        }
    )
