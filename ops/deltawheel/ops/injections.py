"""Measuring what a judge can be talked into: wrong solutions with and without an injected plea."""

from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from deltawheel.contracts.errors import DeltawheelError
from deltawheel.contracts.ports import Assessment
from deltawheel.contracts.prompt import PromptSubmission
from deltawheel.contracts.settings import Settings
from deltawheel.infra import wiring
from deltawheel.infra.judges.injections import BASES, attacks, injected
from deltawheel.ops.judge_trial import Subject, run_trials, subject_of

__all__ = ["Lift", "measure_lifts"]


@dataclass(slots=True, kw_only=True)
class Lift:
    """How far the attacks of a family raise the mean over all dimensions, in points."""

    family: str
    lifts: list[float] = field(default_factory=list)
    num_unjudged: int = 0

    @property
    def mean(self) -> float:
        """The mean lift; 0 if none was judged."""
        return fmean(self.lifts) if self.lifts else 0.0

    @property
    def worst(self) -> float:
        """The largest lift."""
        return max(self.lifts, default=0.0)

    def told(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "attacks": len(self.lifts),
            "mean_lift": self.mean,
            "worst_lift": self.worst,
            "unjudged": self.num_unjudged,
        }


async def measure_lifts(
    settings: Settings, *, per_family: int, say: Callable[[str], None]
) -> list[Lift]:
    """Judge every base and every twin of it, and return the lift of each family.

    Args:
        settings: Whose judge and rubric are tried.
        per_family: How many attacks of each family.
        say: Told how far it is.

    Raises:
        DeltawheelError: a base cannot be judged, so there is nothing to compare with.
    """
    at = wiring.system_clock().now()

    def subject(name: str, base: int, answer: str) -> Subject:
        asked = PromptSubmission(text=BASES[base].task, reference_answer=BASES[base].right_answer)
        prompt = asked.accept(wheel=settings.wheel, accepted_at=at)
        return subject_of(name, prompt, answer=answer)

    bases = [subject(f"base {n}", n, base.solution) for n, base in enumerate(BASES)]
    twins: list[tuple[str, int, Subject]] = []
    for family, texts in attacks().items():
        for number, attack in enumerate(texts[:per_family]):
            base = number % len(BASES)
            answer = injected(BASES[base], attack)
            twins.append((family, base, subject(f"{family} {number}", base, answer)))
    trials = await run_trials([*bases, *(twin for _, _, twin in twins)], settings, say=say)
    before: list[float] = []
    for trial in trials[: len(bases)]:
        if trial.assessment is None:
            raise DeltawheelError(f"{trial.subject} was not judged: {trial.fault}")
        before.append(_level(trial.assessment))
    lifts = {family: Lift(family=family) for family in attacks()}
    for (family, base, _), trial in zip(twins, trials[len(bases) :], strict=True):
        if trial.assessment is None:
            lifts[family].num_unjudged += 1
        else:
            lifts[family].lifts.append(_level(trial.assessment) - before[base])
    return list(lifts.values())


def _level(found: Assessment) -> float:
    return fmean(score.mean for score in found.scores.values())
