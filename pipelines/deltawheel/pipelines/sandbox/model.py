"""The sandbox's models: a Llama of 0.64M parameters, its training, and LoRA generators on it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from deltawheel.pipelines.sandbox.corpus import TrainingText
from deltawheel.pipelines.sandbox.tokenizer import MAX_TOKENS, VOCABULARY

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

BASE_NAME: Final = "sandbox-base"
LORA_RANK: Final = 16
LORA_MODULES: Final = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
IGNORED_LABEL: Final = -100
PROGRESS_EVERY: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How long and how fast to train: AdamW under a one-cycle learning rate.

    Args:
        num_steps: Optimizer steps.
        learning_rate: The rate at the cycle's peak.
        batch_size: Texts per step.
    """

    num_steps: int
    learning_rate: float
    batch_size: int = 192


BASE_SCHEDULE: Final = Schedule(num_steps=1200, learning_rate=2e-3)
"""About 8 minutes on 2 cores."""

GENERATOR_SCHEDULE: Final = Schedule(num_steps=120, learning_rate=2e-3)
"""50 to 80 seconds for each generator on 2 cores."""


def new_base(tokenizer: "PreTrainedTokenizerFast") -> "LlamaForCausalLM":
    """Make the untrained base, in float32: hidden 128, 3 layers of 4 heads, tied embeddings.

    Heads are 32 wide because vLLM on CPU takes only multiples of 32.
    """
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=32,
        max_position_embeddings=MAX_TOKENS,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype=torch.float32,
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        max_new_tokens=MAX_TOKENS // 2,
    )
    return model


def new_generator(base: "LlamaForCausalLM") -> "PeftModel":
    """Wrap the base in a fresh LoRA adapter of rank 16 on every linear layer.

    The adapter names the base by the name it is served under, never by a path of this machine.
    """
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=LORA_RANK,
        lora_alpha=2 * LORA_RANK,
        lora_dropout=0.0,
        target_modules=list(LORA_MODULES),
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(base, config)
    model.peft_config["default"].base_model_name_or_path = BASE_NAME
    return model


def encode(
    tokenizer: "PreTrainedTokenizerFast", texts: Sequence[TrainingText]
) -> tuple["Tensor", "Tensor"]:
    """Turn texts into token ids and labels; only solutions and their end token are learned.

    Returns:
        Ids and labels, both of shape (texts, longest text), padded on the right.
    """
    import torch

    rows = []
    for text in texts:
        prompt = tokenizer.encode(text.problem.text)
        rows.append((prompt, [*tokenizer.encode(text.solution), tokenizer.eos_token_id]))
    width = max(len(prompt) + len(solution) for prompt, solution in rows)
    ids = torch.full((len(rows), width), tokenizer.pad_token_id)
    labels = torch.full((len(rows), width), IGNORED_LABEL)
    for row, (prompt, solution) in enumerate(rows):
        end = len(prompt) + len(solution)
        ids[row, :end] = torch.tensor(prompt + solution)
        labels[row, len(prompt) : end] = torch.tensor(solution)
    return ids, labels


def train(
    model: "LlamaForCausalLM | PeftModel",
    tokenizer: "PreTrainedTokenizerFast",
    corpus: Iterable[Sequence[TrainingText]],
    schedule: Schedule,
    progress: Callable[[str], None],
) -> None:
    """Train the model's trainable parameters in place, by cross-entropy on the solutions."""
    import torch

    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=schedule.learning_rate)
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=schedule.learning_rate, total_steps=schedule.num_steps
    )
    model.train()
    for step, texts in enumerate(corpus, start=1):
        ids, labels = encode(tokenizer, texts)
        # Padding is on the right, where causal attention never looks back from: no mask needed.
        logits = model(input_ids=ids).logits
        loss = torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED_LABEL
        )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        cycle.step()
        if step % PROGRESS_EVERY == 0 or step == schedule.num_steps:
            progress(f"step {step} of {schedule.num_steps}, loss {loss.item():.4f}")
    model.eval()
