"""TRL's trainers as this wheel uses them: LoRA on a frozen base, starting from the champion.

The candidate starts from the champion; the reference is the base. Without a champion adapter that
is TRL's default for a fresh `peft_config`. With one, the trainer must be given a second copy of the
base: handed an already wrapped model alone, TRL takes *that adapter* as the reference, which moves
with every promotion and decays within five cycles (out-of-domain .83 → .71 in trials).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from deltawheel.contracts.errors import CycleError
from deltawheel.contracts.settings import TrainingSettings
from deltawheel.pipelines.guards import (
    check_finite,
    check_reference,
    num_trainable,
    trainable_digest,
)
from deltawheel.pipelines.selection import SliceRow

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["SFT_LEARNING_RATE", "TrainingInputs", "TrainingReport", "fitting_rows", "train_adapter"]

SFT_LEARNING_RATE: Final = 1e-3
"""Supervised fine-tuning at DPO's rate learns too little to be a fair control (sandbox trials)."""

_LOGGED: Final = ("loss", "rewards/accuracies", "rewards/margins", "logps/chosen", "learning_rate")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingInputs:
    """What one training run hangs on, and nothing else."""

    rows: Sequence[SliceRow]
    base: Path
    champion: Path | None
    method: Literal["dpo", "sft"]
    settings: TrainingSettings
    scratch: Path
    progress: Callable[[str], None]

    @property
    def learning_rate(self) -> float:
        """The peak rate of this method."""
        return self.settings.learning_rate if self.method == "dpo" else SFT_LEARNING_RATE


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingReport:
    """What a run did: numbers for the registry, and the log line by line."""

    num_pairs: int
    num_too_long: int
    num_steps: int
    num_trainable: int
    final: Mapping[str, float]
    log: Sequence[Mapping[str, float]]


def train_adapter(inputs: TrainingInputs, folder: Path) -> TrainingReport:
    """Train an adapter and save it with its tokenizer.

    Raises:
        CycleError: nothing fits into `max_length`, or a guard found that nothing was trained, or
            against another reference than the base.
    """
    import torch
    from transformers import AutoTokenizer, PrinterCallback, set_seed

    torch.set_num_threads(inputs.settings.threads)
    set_seed(inputs.settings.seed)
    tokenizer = AutoTokenizer.from_pretrained(inputs.base)
    rows = fitting_rows(inputs.rows, tokenizer, inputs.settings.max_length)
    trainer = _make_trainer(inputs, rows, tokenizer)
    trainer.remove_callback(PrinterCallback)
    trainable = num_trainable(trainer.model)
    before = trainable_digest(trainer.model)
    if inputs.method == "dpo":
        check_reference(trainer, inputs.base)
    inputs.progress(f"{inputs.method} on {len(rows)} pairs, {trainable} trainable parameters")
    trainer.train()
    log = _training_log(trainer.state.log_history)
    check_finite(trainer.model, log)
    if trainable_digest(trainer.model) == before:
        raise CycleError("training left every weight as it was; training.learning_rate is too low")
    # Embeddings are never trained; left to find out, peft asks the hub about a model named "base".
    trainer.model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
    tokenizer.save_pretrained(folder)
    return TrainingReport(
        num_pairs=len(rows),
        num_too_long=len(inputs.rows) - len(rows),
        num_steps=int(trainer.state.global_step),
        num_trainable=trainable,
        final=log[-1] if log else {},
        log=log,
    )


def fitting_rows(
    rows: Sequence[SliceRow], tokenizer: "PreTrainedTokenizerBase", max_length: int
) -> list[SliceRow]:
    """Return the rows whose both sides fit; cutting would train on half a thought.

    Raises:
        CycleError: no row fits, or the chat template renders a prompt alone otherwise than before
            its answer, so that training would see another context than serving.
    """
    fitting = [row for row in rows if _longest_side(row, tokenizer) <= max_length]
    if not fitting:
        raise CycleError(
            f"all {len(rows)} pairs are longer than training.max_length ({max_length} tokens)"
        )
    return fitting


def _longest_side(row: SliceRow, tokenizer: "PreTrainedTokenizerBase") -> int:
    messages = json.loads(row.prompt)
    prompt = _token_ids(tokenizer, messages, is_prompt=True)
    longest = 0
    for answer in (row.chosen, row.rejected):
        turn = {"role": "assistant", "content": answer}
        whole = _token_ids(tokenizer, [*messages, turn], is_prompt=False)
        if whole[: len(prompt)] != prompt:
            raise CycleError(
                f"the tokenized prompt of pair {row.pair_id} is not a prefix of prompt and answer; "
                "give the base a chat template that renders the prompt the same way in both cases"
            )
        longest = max(longest, len(whole))
    return longest


def _token_ids(
    tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Mapping[str, str]], *, is_prompt: bool
) -> list[int]:
    ids: list[int] = tokenizer.apply_chat_template(
        list(messages), add_generation_prompt=is_prompt, tokenize=True, return_dict=True
    )["input_ids"]
    return ids


def _make_trainer(
    inputs: TrainingInputs, rows: Sequence[SliceRow], tokenizer: "PreTrainedTokenizerBase"
) -> Any:  # noqa: ANN401
    from datasets import Dataset
    from peft import LoraConfig, PeftModel
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    is_dpo = inputs.method == "dpo"
    rank = inputs.settings.lora_rank
    fresh = LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    model, given = load_base(inputs.base), {"peft_config": fresh}
    if inputs.champion is not None:
        model = PeftModel.from_pretrained(model, inputs.champion, is_trainable=True)
        given = {"ref_model": load_base(inputs.base)} if is_dpo else {}
    shared = {
        "model": model,
        "train_dataset": Dataset.from_list([_dataset_row(row, is_dpo=is_dpo) for row in rows]),
        "processing_class": tokenizer,
        "callbacks": [_progress_callback(inputs.progress)],
        **given,
    }
    arguments = _arguments(inputs)
    if is_dpo:
        loss = {"loss_type": ["sigmoid_norm"], "beta": inputs.settings.beta}
        return DPOTrainer(args=DPOConfig(**arguments, **loss), **shared)
    return SFTTrainer(args=SFTConfig(**arguments, packing=False), **shared)


def load_base(folder: Path) -> Any:  # noqa: ANN401
    """Load the base in float32: its own copy for whoever calls."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def _arguments(inputs: TrainingInputs) -> dict[str, Any]:
    """Set what TRL's defaults would get wrong: it cuts at 1,024 tokens and wants bfloat16."""
    import torch

    settings, has_gpu = inputs.settings, torch.cuda.is_available()
    return {
        "output_dir": str(inputs.scratch),
        "learning_rate": inputs.learning_rate,
        "lr_scheduler_type": "linear",
        "warmup_steps": settings.warmup_steps,
        "per_device_train_batch_size": settings.batch_size,
        "num_train_epochs": settings.passes,
        "max_length": settings.max_length,
        "seed": settings.seed,
        "use_cpu": not has_gpu,
        "dataloader_pin_memory": has_gpu,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "disable_tqdm": True,
    }


def _dataset_row(row: SliceRow, *, is_dpo: bool) -> dict[str, Any]:
    prompt = json.loads(row.prompt)
    chosen = [{"role": "assistant", "content": row.chosen}]
    if not is_dpo:
        return {"prompt": prompt, "completion": chosen}
    return {
        "prompt": prompt,
        "chosen": chosen,
        "rejected": [{"role": "assistant", "content": row.rejected}],
    }


def _progress_callback(progress: Callable[[str], None]) -> Any:  # noqa: ANN401
    from transformers import TrainerCallback

    class Report(TrainerCallback):  # type: ignore[misc]
        """Says every step in a line."""

        def on_log(
            self,
            args: Any,  # noqa: ANN401
            state: Any,  # noqa: ANN401
            control: Any,  # noqa: ANN401
            logs: Mapping[str, float] | None = None,
            **kwargs: Any,  # noqa: ANN401
        ) -> None:
            if logs and "loss" in logs:
                said = ", ".join(
                    f"{name} {float(logs[name]):.4g}" for name in _LOGGED if name in logs
                )
                progress(f"step {state.global_step}/{state.max_steps}: {said}")

    return Report()


def _training_log(history: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    return [
        {name: float(value) for name, value in row.items() if isinstance(value, int | float)}
        for row in history
        if "loss" in row
    ]
