"""How often a sandbox model is right, decoded greedily on withheld problems."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from deltawheel.infra.sandbox.grammar import SUITES, Problem, suite_problems
from deltawheel.infra.sandbox.verifier import verify

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

NUM_ITEMS: Final = 1000
MAX_NEW_TOKENS: Final = 48
"""Longer than any solution: three steps, the answer and the end take at most 30 tokens."""


def answer_greedily(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerFast", prompts: Sequence[str]
) -> list[str]:
    """Complete the prompts, always with the most probable token."""
    import torch

    encoded = tokenizer(list(prompts), return_tensors="pt", padding=True)
    with torch.inference_mode():
        completed = model.generate(
            input_ids=encoded["input_ids"],
            attention_mask=encoded["attention_mask"],
            do_sample=False,
            max_new_tokens=MAX_NEW_TOKENS,
        )
    answers = completed[:, encoded["input_ids"].shape[1] :]
    return list(tokenizer.batch_decode(answers, skip_special_tokens=True))


def no_opening(problem: Problem) -> str:
    """Leave the model to begin as it likes."""
    return ""


def first_step_opening(problem: Problem) -> str:
    """Make the model begin with a step, which shows the skill that its shortcuts hide."""
    return f"{problem.first}{problem.steps[0][0]}"


def measure_accuracy(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerFast",
    *,
    seed: int,
    num_items: int = NUM_ITEMS,
    opening: Callable[[Problem], str] = no_opening,
) -> dict[str, float]:
    """Measure the share of right answers on each suite of withheld problems.

    Args:
        model: A causal language model in evaluation mode.
        tokenizer: The sandbox's tokenizer.
        seed: Which items of the suites; the same seed gives two models the same items.
        num_items: Items per suite.
        opening: How each solution is made to begin.
    """
    accuracy = {}
    for suite in SUITES:
        problems = suite_problems(suite, num_items, seed=seed)
        openings = [opening(problem) for problem in problems]
        prompts = [problem.text + start for problem, start in zip(problems, openings, strict=True)]
        rests = answer_greedily(model, tokenizer, prompts)
        num_right = sum(
            verify(problem.text, start + rest).is_correct
            for problem, start, rest in zip(problems, openings, rests, strict=True)
        )
        accuracy[suite] = round(num_right / num_items, 4)
    return accuracy
