"""Guards: each notices the run that looks healthy and is not, and lets the right one pass."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from deltawheel.contracts.errors import CycleError
from deltawheel.contracts.settings import TrainingSettings
from deltawheel.infra.sandbox.paths import base_path, generator_path
from deltawheel.pipelines import trainers
from deltawheel.pipelines.guards import (
    check_finite,
    check_reference,
    num_trainable,
    trainable_digest,
)
from deltawheel.pipelines.selection import SliceRow
from deltawheel.pipelines.trainers import TrainingInputs, load_base

pytestmark = pytest.mark.integration


def a_layer(*, is_trainable: bool = True) -> Any:
    import torch

    layer = torch.nn.Linear(3, 2)
    torch.nn.init.constant_(layer.weight, 0.5)
    torch.nn.init.zeros_(layer.bias)
    return layer.requires_grad_(is_trainable)


def some_rows() -> list[SliceRow]:
    """Pairs of unlike lengths, so that the batch is padded."""
    answers = {"17+8+3=": "17+8=25;25+3=28;A:28", "1+1+1+1=": "1+1=2;2+1=3;3+1=4;A:4"}
    return [
        SliceRow(
            pair_id=prompt,
            prompt=json.dumps([{"role": "user", "content": prompt}]),
            chosen=chosen,
            rejected="A:7",
            delta=1.0,
            chosen_generator="strong@1",
            rejected_generator="weak@1",
            generator_delta=1.0,
        )
        for prompt, chosen in answers.items()
    ]


def inputs_of(scratch: Path, champion: Path | None) -> TrainingInputs:
    return TrainingInputs(
        rows=some_rows(),
        base=base_path(),
        champion=champion,
        method="dpo",
        settings=TrainingSettings(batch_size=2),
        scratch=scratch,
        progress=lambda text: None,
    )


def our_trainer(scratch: Path, champion: Path | None) -> Any:
    from transformers import AutoTokenizer

    inputs = inputs_of(scratch, champion)
    return trainers._make_trainer(inputs, inputs.rows, AutoTokenizer.from_pretrained(base_path()))


def a_wrong_trainer(scratch: Path, *, ref_model: Any = None) -> Any:
    """Hand TRL the wrapped champion, and another reference than the base, or none."""
    from datasets import Dataset
    from peft import PeftModel
    from transformers import AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    inputs = inputs_of(scratch, None)
    model = PeftModel.from_pretrained(
        load_base(base_path()), generator_path("strong"), is_trainable=True
    )
    return DPOTrainer(
        model=model,
        ref_model=ref_model,
        args=DPOConfig(**trainers._arguments(inputs)),
        train_dataset=Dataset.from_list(
            [trainers._dataset_row(row, is_dpo=True) for row in inputs.rows]
        ),
        processing_class=AutoTokenizer.from_pretrained(base_path()),
    )


def test_trainable_parameters_are_counted() -> None:
    assert num_trainable(a_layer()) == 8


def test_a_model_of_which_nothing_is_trainable_is_found_out() -> None:
    with pytest.raises(CycleError, match="no parameter is trainable"):
        num_trainable(a_layer(is_trainable=False))


def test_a_champion_loaded_without_is_trainable_is_found_out() -> None:
    from peft import PeftModel

    model = PeftModel.from_pretrained(load_base(base_path()), generator_path("strong"))
    with pytest.raises(CycleError, match="loaded without is_trainable"):
        num_trainable(model)


def test_the_digest_follows_trainable_weights_and_nothing_else() -> None:
    import torch

    layer = a_layer()
    before = trainable_digest(layer)
    assert trainable_digest(a_layer()) == before
    with torch.no_grad():
        layer.weight[1, 2] += 1e-6
    assert trainable_digest(layer) != before

    frozen = a_layer()
    frozen.bias.requires_grad_(False)
    half = trainable_digest(frozen)
    with torch.no_grad():
        frozen.bias += 1
    assert trainable_digest(frozen) == half != before


@pytest.mark.parametrize("champion", [None, "strong"])
def test_our_own_trainers_reference_is_the_base(tmp_path: Path, champion: str | None) -> None:
    trainer = our_trainer(tmp_path, None if champion is None else generator_path(champion))
    assert num_trainable(trainer.model) > 0
    check_reference(trainer, base_path())


def test_a_wrapped_champion_without_a_reference_trains_against_itself_and_is_found_out(
    tmp_path: Path,
) -> None:
    with pytest.raises(CycleError, match=r"reference is not the base in .*weights/base"):
        check_reference(a_wrong_trainer(tmp_path), base_path())


def test_a_reference_that_is_another_model_is_found_out(tmp_path: Path) -> None:
    from peft import PeftModel

    other = PeftModel.from_pretrained(load_base(base_path()), generator_path("weak"))
    trainer = a_wrong_trainer(tmp_path, ref_model=other.merge_and_unload())
    with pytest.raises(CycleError, match="differ by up to"):
        check_reference(trainer, base_path())


def test_the_right_reference_for_another_base_is_found_out(tmp_path: Path) -> None:
    """The guard believes neither the trainer nor its name for the base: it loads the folder."""
    import torch

    changed = load_base(base_path())
    with torch.no_grad():
        for weight in changed.parameters():
            weight *= 1.01
    changed.save_pretrained(tmp_path / "changed")
    trainer = our_trainer(tmp_path / "scratch", generator_path("strong"))
    with pytest.raises(CycleError, match="changed: their log-probabilities"):
        check_reference(trainer, tmp_path / "changed")


def test_finite_numbers_and_weights_pass() -> None:
    check_finite(a_layer(), [{"loss": 0.6}, {"loss": 0.0}])


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_in_the_log_that_is_not_finite_is_named_with_its_step(number: float) -> None:
    log: list[Mapping[str, float]] = [{"loss": 0.6}, {"loss": 0.5, "rewards/margins": number}]
    with pytest.raises(CycleError, match=r"rewards/margins was -?(nan|inf) at training step 2"):
        check_finite(a_layer(), log)


def test_a_weight_that_is_not_finite_is_named_if_it_is_trained() -> None:
    import torch

    layer = a_layer()
    with torch.no_grad():
        layer.bias[0] = float("nan")
    with pytest.raises(CycleError, match="weight bias is not finite"):
        check_finite(layer, [{"loss": 0.6}])
    layer.bias.requires_grad_(False)
    check_finite(layer, [{"loss": 0.6}])
