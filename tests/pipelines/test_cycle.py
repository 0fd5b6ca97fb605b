"""Whole cycles on the sandbox's real base, with a real registry and models run by transformers."""

import asyncio
import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from deltawheel.contracts.cycle import StepName
from deltawheel.contracts.errors import CycleError
from deltawheel.contracts.gate import GateDecision
from deltawheel.contracts.settings import Settings
from deltawheel.infra.mlflow_registry import MlflowRegistry
from deltawheel.infra.sandbox.grammar import suite_problems
from deltawheel.infra.sandbox.paths import base_path
from deltawheel.pipelines.context import Result, StageContext, TrainingArm
from deltawheel.pipelines.controls import run_controls
from deltawheel.pipelines.gate import replay
from deltawheel.pipelines.sandbox.accuracy import answer_greedily
from deltawheel.pipelines.stages import attempt_folder, final_folder, run_stage
from deltawheel.pipelines.trainers import load_base
from tests.pipelines.fakes import (
    Shelf,
    TransformersModels,
    a_context,
    sandbox_pairs,
    small_settings,
)

pytestmark = pytest.mark.integration


def run_step(context: StageContext, name: StepName) -> Result:
    final = final_folder(context.settings, context.cycle_id, name.value)
    return run_stage(name.value, context.within(attempt_folder(final, "token")), final)


def run_cycle(context: StageContext) -> dict[StepName, Result]:
    return {name: run_step(context, name) for name in StepName if name is not StepName.ADOPT}


def make_context(
    settings: Settings, runner: asyncio.Runner, shelf: Shelf, *, cause: str
) -> StageContext:
    return a_context(
        settings,
        runner,
        pairs=(),
        store=shelf,
        models=TransformersModels(base_path()),
        registry=MlflowRegistry(settings),
        cause=cause,
    )


def test_a_cycle_on_good_pairs_promotes_and_the_next_one_starts_from_its_model(
    tmp_path: Path,
) -> None:
    settings = small_settings(tmp_path)
    shelf = Shelf(sandbox_pairs(1_200, settings.make_rubric()))
    with asyncio.Runner() as runner:
        first = make_context(settings, runner, shelf, cause="first")
        results = run_cycle(first)

        assert results[StepName.SELECT]["num_pairs"] == 600
        assert results[StepName.GATE]["verdict"] == "promote"
        registered = results[StepName.REGISTER]
        assert registered["version"] == "1"
        (promotion,) = shelf.promoted
        assert promotion.generator.name == "deltawheel-default-v1"
        assert promotion.generator.lineage_depth == 1
        assert Path(promotion.generator.adapter_path or "").is_relative_to(
            (settings.state / "adapters").resolve()
        )

        shutil.rmtree(first.done(StepName.REGISTER))
        assert run_step(first, StepName.REGISTER) == registered
        assert len(shelf.promoted) == 1

        gated = first.done(StepName.GATE)
        decided = GateDecision.model_validate_json((gated / "gate.json").read_text())
        assert replay(gated) == decided

        second = make_context(settings, runner, shelf, cause="second")
        selected = run_step(second, StepName.SELECT)
        assert selected["champion"]["version"] == "1"
        trained = run_step(second, StepName.TRAIN)
        assert trained["started_from"] == "1"
        assert trained["adapter_digest"] != promotion.generator.revision
    assert_loads_anywhere(tmp_path, settings, Path(promotion.generator.adapter_path or ""))


def what_training_taught(adapter: Path) -> tuple[str, str]:
    """Return a prompt to which the adapter answers otherwise than the base, and its answer."""
    from peft import PeftModel
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base_path())
    prompts = [problem.text for problem in suite_problems("in_domain", 50, seed=1)]
    base = load_base(base_path())
    before = answer_greedily(base.eval(), tokenizer, prompts)
    trained = PeftModel.from_pretrained(base, adapter)
    after = answer_greedily(trained.eval(), tokenizer, prompts)
    return next(
        (prompt, new) for prompt, old, new in zip(prompts, before, after, strict=True) if new != old
    )


def assert_loads_anywhere(tmp_path: Path, settings: Settings, adapter: Path) -> None:
    """With the state gone, a fresh process needs the registry's address and nothing else."""
    prompt, answer = what_training_taught(adapter)
    shutil.rmtree(settings.state)
    script = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        import mlflow
        from peft import PeftModel
        from transformers import AutoModelForCausalLM, AutoTokenizer
        mlflow.set_tracking_uri(sys.argv[1])
        folder = Path(mlflow.artifacts.download_artifacts("models:/deltawheel-default@champion"))
        suffixes = {path.suffix for path in folder.rglob("*") if path.is_file()}
        assert suffixes <= {".json", ".safetensors", ".jinja"}, suffixes
        base = AutoModelForCausalLM.from_pretrained(folder / "base")
        model = PeftModel.from_pretrained(base, folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        chat = [{"role": "user", "content": sys.argv[2]}]
        ids = tokenizer.apply_chat_template(chat, return_tensors="pt", return_dict=True)
        out = model.generate(**ids, max_new_tokens=40, do_sample=False)
        print("ANSWER", tokenizer.decode(out[0], skip_special_tokens=True))
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script, settings.registry_uri, prompt],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"ANSWER {prompt}{answer}" in done.stdout.splitlines()


def test_controls_stand_beside_champion_and_candidate_on_the_same_items(tmp_path: Path) -> None:
    settings = small_settings(tmp_path)
    shelf = Shelf(sandbox_pairs(300, settings.make_rubric()))
    with asyncio.Runner() as runner:
        context = make_context(settings, runner, shelf, cause="controls")
        for name in (StepName.SELECT, StepName.TRAIN, StepName.EVALUATE, StepName.GATE):
            run_step(context, name)
        final = final_folder(settings, context.cycle_id, "controls")
        own = context.within(attempt_folder(final, "token"))
        own.folder.mkdir()
        rows = run_controls(own, arms=(TrainingArm.EXCHANGED_SIDES, TrainingArm.SFT))

    assert [row["arm"] for row in rows] == ["champion", "top-delta", "exchanged-sides", "sft"]
    assert [row["num_pairs"] for row in rows] == [0, 150, 150, 150]
    for row in rows:
        assert row["accuracy"].keys() == {"in-domain", "times", "mixed", "max-min"}
        assert row["lower"] <= row["difference"] <= row["upper"]
    assert json.loads(json.dumps(rows)) == rows


def test_a_champion_moved_by_hand_stops_the_cycle_that_did_not_see_it(tmp_path: Path) -> None:
    settings = small_settings(tmp_path)
    shelf = Shelf(sandbox_pairs(1_200, settings.make_rubric()))
    with asyncio.Runner() as runner:
        first = make_context(settings, runner, shelf, cause="first")
        run_cycle(first)
        registry = MlflowRegistry(settings)
        with pytest.raises(CycleError, match="moved by hand"):
            registry.move_champion("7", replaces=None)
