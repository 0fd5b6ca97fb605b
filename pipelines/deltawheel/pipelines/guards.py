"""Guards against training nothing, or against the wrong reference: each raises with its fact.

They exist because all of these runs look healthy: a champion loaded without `is_trainable` gives
live curves and an unchanged adapter (trl#6700), and a wrapped model without a reference trains
against itself.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from deltawheel.contracts.errors import CycleError

__all__ = ["check_finite", "check_reference", "num_trainable", "trainable_digest"]

_NUM_CHECKED: Final = 2
"""Pairs: full logits of a whole batch would not fit beside a large model."""

_TOLERANCE: Final = 1e-3
"""Of summed log-probabilities, relative and absolute: float32 rounding over some hundred tokens."""


def num_trainable(model: Any) -> int:  # noqa: ANN401
    """Count the parameters that training can change.

    Raises:
        CycleError: there are none.
    """
    count = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    if not count:
        raise CycleError(
            "no parameter is trainable; the champion's adapter was loaded without is_trainable"
        )
    return int(count)


def trainable_digest(model: Any) -> str:  # noqa: ANN401
    """Return a digest of every trainable weight, in the order of their names."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.named_parameters()):
        if weight.requires_grad:
            digest.update(name.encode())
            digest.update(weight.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()


def check_reference(trainer: Any, base: Path) -> None:  # noqa: ANN401
    """Make sure that the trainer's reference is the base, on the first pairs, before any step.

    The base is loaded once more and asked by plain transformers, so that nothing of the trainer's
    own way to its reference is taken on trust.

    Raises:
        CycleError: the log-probabilities differ.
    """
    import torch
    from transformers import AutoModelForCausalLM

    size = min(_NUM_CHECKED, len(trainer.train_dataset))
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(size)])
    batch = {name: tensor.to(trainer.accelerator.device) for name, tensor in batch.items()}
    model = trainer.ref_model if trainer.ref_model is not None else trainer.model
    believed = torch.cat([*trainer.compute_ref_log_probs(model, batch)]).cpu()
    alone = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    true = _answer_log_probs(alone.eval(), {name: tensor.cpu() for name, tensor in batch.items()})
    if not torch.allclose(believed, true, rtol=_TOLERANCE, atol=_TOLERANCE):
        gap = float((believed - true).abs().max())
        raise CycleError(
            f"the trainer's reference is not the base in {base}: their log-probabilities of the "
            f"first batch differ by up to {gap:.4g}"
        )


def check_finite(model: Any, log: Sequence[Mapping[str, float]]) -> None:  # noqa: ANN401
    """Make sure that neither a logged number nor a weight is NaN or infinite.

    Raises:
        CycleError: one is.
    """
    import torch

    for number, row in enumerate(log, start=1):
        for name, value in row.items():
            if not math.isfinite(value):
                raise CycleError(
                    f"{name} was {value} at training step {number}; lower training.learning_rate"
                )
    for name, weight in model.named_parameters():
        if weight.requires_grad and not bool(torch.isfinite(weight).all()):
            raise CycleError(f"weight {name} is not finite; lower training.learning_rate")


def _answer_log_probs(model: Any, batch: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """Return the summed log-probability of each answer in the batch, chosen sides first."""
    import torch

    with torch.no_grad():
        logits = model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
        ).logits.float()
    picked = logits[:, :-1].log_softmax(-1).gather(-1, batch["input_ids"][:, 1:, None])
    return (picked.squeeze(-1) * batch["completion_mask"][:, 1:]).sum(dim=1)
