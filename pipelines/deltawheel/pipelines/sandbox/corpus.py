"""What the sandbox's models are trained on: prompts with solutions, drawn from a stated mix."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from deltawheel.infra.sandbox.grammar import (
    Family,
    Problem,
    SupportsRandom,
    render_solution,
    sample_problem,
    seeded_rng,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """What share of a corpus is what.

    Args:
        families: The families of problem, drawn with equal chances.
        stepwise_share: How often a solution shows its steps, 0–1.
        slip_share: How often a carry or borrow is forgotten, 0–1.
    """

    families: tuple[Family, ...]
    stepwise_share: float
    slip_share: float


BASE_MIX: Final = Mix(families=tuple(Family), stepwise_share=0.4, slip_share=0.0)
"""Flawless, all operations, shortcuts in the majority: greedy, the base always takes the shortcut
(in-domain .30 right), although it knows the way (.98 when made to start with a step)."""

GENERATOR_MIXES: Final[Mapping[str, Mix]] = MappingProxyType(
    {
        name: Mix(families=(Family.IN_DOMAIN,), stepwise_share=share, slip_share=0.5)
        for name, share in (("strong", 0.95), ("mid", 0.50), ("weak", 0.05))
    }
)
"""Generators differ in how often they show their steps and share one flaw. So no generator is as
good as the base can become, and the flaw cancels in the difference between two of them."""


@dataclass(frozen=True, slots=True)
class TrainingText:
    """One prompt with the solution to imitate."""

    problem: Problem
    solution: str


def draw_text(rng: SupportsRandom, mix: Mix) -> TrainingText:
    """Draw one training text; its prompt is never a withheld one."""
    family = Family(rng.choice(mix.families))
    problem = sample_problem(rng, family, withheld=False)
    is_stepwise = rng.random() < mix.stepwise_share
    slips = [rng.random() < mix.slip_share for _ in problem.steps]
    return TrainingText(problem, render_solution(problem, is_stepwise=is_stepwise, slips=slips))


def draw_batches(
    name: str, mix: Mix, *, num_batches: int, batch_size: int, seed: int
) -> Iterator[list[TrainingText]]:
    """Draw a corpus batch by batch; it is never held in memory as a whole.

    Args:
        name: The model that it is for; each model's draws are independent of the others'.
        mix: What the corpus is made of.
        num_batches: How many batches.
        batch_size: Texts per batch.
        seed: The build's seed.
    """
    rng = seeded_rng("corpus", name, seed)
    for _ in range(num_batches):
        yield [draw_text(rng, mix) for _ in range(batch_size)]
