"""The sandbox's judge: reads a solution as text and checks every step of it by calculation.

It scores text, not intent, and it is total: whatever a model writes gets a verification, in time
linear in the text's length.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from deltawheel.infra.sandbox.grammar import Problem, apply_operation

DIMENSIONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "factuality": "the final answer is right",
        "strategy_coherence": "share of the operations taken in the prompt's order",
        "step_coherence": "share of the operations shown as a properly chained step",
        "computational_precision": "share of the shown steps that are arithmetically right",
        "signal_to_noise": "share of the characters that belong to a step or the answer",
    }
)
"""What a solution is scored on, each a share of 0 to 1, in the order of `Verification`'s fields."""

# Models slip into too many digits at times; four are read, longer numbers are noise. The bound
# also keeps the reading linear.
_STEP: Final = re.compile(r"([0-9]{1,4})([-+*Mm])([0-9]{1,4})=([0-9]{1,4})")
_ANSWER: Final = re.compile(r"A:([0-9]{1,4})")


@dataclass(frozen=True, slots=True)
class Step:
    """One shown calculation, right or wrong."""

    left: int
    operation: str
    right: int
    result: int

    @property
    def is_right(self) -> bool:
        """Whether the result follows from the operands, whatever the problem was."""
        return apply_operation(self.left, self.operation, self.right) == self.result


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """A solution's shares, 0 to 1, on each of `DIMENSIONS`.

    Args:
        factuality: 1 when the answer is right, else 0.
        strategy_coherence: Share of operations in the prompt's order.
        step_coherence: Share of operations shown as a properly chained step.
        computational_precision: Share of shown steps that are right; 0 when none is shown.
        signal_to_noise: Share of characters that belong to a step or the answer; 0 for no text.
        answer: The last answer given, or None.
    """

    factuality: float
    strategy_coherence: float
    step_coherence: float
    computational_precision: float
    signal_to_noise: float
    answer: int | None

    @property
    def is_correct(self) -> bool:
        """Whether the final answer is right."""
        return self.factuality == 1.0

    @property
    def shares(self) -> dict[str, float]:
        """The shares by dimension, in the order of `DIMENSIONS`."""
        return {dimension: getattr(self, dimension) for dimension in DIMENSIONS}


@dataclass(frozen=True, slots=True)
class _Reading:
    """What a solution's text says."""

    steps: tuple[Step, ...]
    answer: int | None
    num_signal_chars: int


def verify(problem_text: str, solution_text: str) -> Verification:
    """Judge a solution by checking it.

    Surplus steps count against both kinds of coherence and as noise, so padding a solution never
    pays. Text that is no problem of the sandbox has no right solution: every share that depends
    on the problem is 0; call `Problem.parse` first where such a prompt must be refused.

    Args:
        problem_text: The prompt, such as ``17+8*3=``.
        solution_text: What a model answered; space around it is ignored.
    """
    problem: Problem | None
    try:
        problem = Problem.parse(problem_text)
    except ValueError:
        problem = None
    text = solution_text.strip()
    operations = problem.steps if problem else ()
    reading = _read(text, max_steps=len(operations))
    is_right = problem is not None and reading.answer == problem.answer
    num_places = max(len(operations), len(reading.steps))
    num_in_order = _longest_common_order(operations, reading.steps)
    num_chained = _count_chained(problem, reading.steps)
    num_right = sum(step.is_right for step in reading.steps)
    return Verification(
        factuality=float(is_right),
        strategy_coherence=_share(num_in_order, num_places),
        step_coherence=_share(num_chained, num_places),
        computational_precision=_share(num_right, len(reading.steps)),
        signal_to_noise=_share(reading.num_signal_chars, len(text)),
        answer=reading.answer,
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _read(text: str, *, max_steps: int) -> _Reading:
    """Read the steps and the answer; whatever else stands there is noise.

    Each part's separator belongs to it. Steps past `max_steps` are read but are no signal, nor
    is any answer but the last, which is the one that counts.
    """
    steps: list[Step] = []
    answer: int | None = None
    step_chars = answer_chars = 0
    for part in text.split(";"):
        if found := _STEP.fullmatch(part):
            left, operation, right, result = found.groups()
            steps.append(Step(int(left), operation, int(right), int(result)))
            if len(steps) <= max_steps:
                step_chars += len(part) + 1
        elif found := _ANSWER.fullmatch(part):
            answer = int(found[1])
            answer_chars = len(part) + 1
    return _Reading(tuple(steps), answer, min(step_chars + answer_chars, len(text)))


def _longest_common_order(operations: Sequence[tuple[str, int]], steps: Sequence[Step]) -> int:
    """Count the operations that the steps take in the prompt's order, gaps allowed.

    The longest common subsequence; with at most three operations it is linear in the steps.
    """
    longest = [0] * (len(operations) + 1)
    for step in steps:
        diagonal = 0
        for place, operation in enumerate(operations, start=1):
            above = longest[place]
            if operation == (step.operation, step.right):
                longest[place] = diagonal + 1
            longest[place] = max(longest[place], longest[place - 1], above)
            diagonal = above
    return longest[-1]


def _count_chained(problem: Problem | None, steps: Sequence[Step]) -> int:
    """Count the steps that stand in their place and go on from the result shown before them."""
    if problem is None:
        return 0
    lefts = (problem.first, *(step.result for step in steps))
    return sum(
        (step.left, step.operation, step.right) == (left, *operation)
        for left, operation, step in zip(lefts, problem.steps, steps, strict=False)
    )
