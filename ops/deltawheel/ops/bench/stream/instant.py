"""Adapters that the bench puts behind the ports: models and a judge that cost no time.

What is measured is the stream around them, so they do as little as their ports allow.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from deltawheel.contracts.generator import Generator
from deltawheel.contracts.judgement import Score
from deltawheel.contracts.ports import Assessment, Completion
from deltawheel.contracts.prompt import Message, Prompt
from deltawheel.contracts.rubric import Rubric
from deltawheel.contracts.trace import FinishReason, Trace

__all__ = [
    "JUDGE_REVISION",
    "LARGE",
    "SMALL",
    "TEXTS",
    "InstantJudge",
    "InstantModels",
    "scores_of",
]

LARGE: Final = "large"
SMALL: Final = "small"
JUDGE_REVISION: Final = "bench@1"

_STEP: Final = "Step by step: first add the tens, then the ones, then carry what is left over. "
TEXTS: Final[Mapping[str, str]] = {LARGE: 4 * _STEP + "A:42", SMALL: 3 * _STEP + "A:41"}
"""What each generator writes: a paragraph, about 300 characters. Both sides of the bench use it."""

_MEANS: Final[Mapping[str, float]] = {LARGE: 4.5, SMALL: 2.0}


@dataclass(slots=True)
class InstantModels:
    """A `ChatModel` that answers at once."""

    _answers: dict[str, Completion] = field(default_factory=dict)

    async def complete(
        self, generator: Generator, messages: Sequence[Message], *, seed: int
    ) -> Completion:
        """Answer with the generator's own text."""
        if generator.name not in self._answers:
            self._answers[generator.name] = _completion(generator)
        return self._answers[generator.name]

    async def load(self, generator: Generator) -> None:
        """Be there already."""

    async def aclose(self) -> None:
        """Hold nothing."""


def _completion(generator: Generator) -> Completion:
    return Completion(
        reasoning="",
        answer=TEXTS[generator.name],
        served_model=generator.model,
        prompt_tokens=16,
        completion_tokens=64,
        finish_reason=FinishReason.STOP,
    )


@dataclass(frozen=True, slots=True)
class InstantJudge:
    """A `Judge` that prefers one generator, at once; no two traces tie."""

    name: str = "bench"
    revision: str = JUDGE_REVISION

    async def assess(self, prompt: Prompt, trace: Trace, rubric: Rubric) -> Assessment:
        """Score by who wrote."""
        return Assessment(scores=scores_of(trace.generator, rubric))


def scores_of(generator: str, rubric: Rubric) -> dict[str, Score]:
    """Return the scores that a generator's traces get on every dimension."""
    return dict.fromkeys(rubric.dimensions, Score(mean=_MEANS[generator]))
