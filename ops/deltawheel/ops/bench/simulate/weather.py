"""Who decides that something goes wrong now: rates, outages, and one exact place to die."""

from dataclasses import dataclass, field

from deltawheel.contracts.clock import Random
from deltawheel.ops.bench.simulate.plan import Fault, Plan, Side

__all__ = ["Weather"]


@dataclass(slots=True)
class Weather:
    """All chance of a run that is not a model's or a client's comes from here."""

    plan: Plan
    random: Random
    is_rough: bool = True
    """False once the run settles: then nothing goes wrong any more."""
    is_store_down: bool = False
    are_models_down: bool = False
    judge_shift: float = 0.0
    """By how much the judge has grown milder than it is by nature, in points."""
    num_effects: int = field(default=0, init=False)

    def next_effect(self) -> int:
        """Number the effects of the run, from 0."""
        self.num_effects += 1
        return self.num_effects - 1

    def crashes(self, effect: int, side: Side) -> bool:
        """Decide whether the process that has this effect dies on this side of it."""
        if (point := self.plan.crash_at) is not None:
            return point.effect == effect and point.side is side
        share = self.plan.crash_share
        return bool(share) and self.is_rough and self.random.random() < share / 2

    def strikes(self, fault: Fault, *, weight: float = 1.0) -> bool:
        """Decide whether a call fails in this way."""
        if not self.is_rough or fault not in self.plan.faults:
            return False
        return self.random.random() < self.plan.flaky_share * weight

    def calm(self) -> None:
        """End everything that goes wrong."""
        self.is_rough = self.is_store_down = self.are_models_down = False
