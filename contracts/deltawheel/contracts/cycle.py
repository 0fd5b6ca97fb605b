"""Training cycles: a row of idempotent, leased steps."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from pydantic import Field

from deltawheel.contracts.gate import Verdict
from deltawheel.contracts.ids import content_id
from deltawheel.contracts.record import Name, Record, UtcTime

__all__ = ["Cycle", "CycleState", "CycleStep", "StepName", "StepState", "Trigger"]


class Trigger(StrEnum):
    """What asked for a cycle."""

    CRON = "cron"
    VOLUME = "volume"
    OPERATOR = "operator"


class StepName(StrEnum):
    """The steps of a cycle, in order."""

    SELECT = "select"
    TRAIN = "train"
    EVALUATE = "evaluate"
    GATE = "gate"
    REGISTER = "register"
    ADOPT = "adopt"


class CycleState(StrEnum):
    """Where a cycle is. A refused candidate is no failure: the cycle ended, with its verdict."""

    REQUESTED = "requested"
    RUNNING = "running"
    ENDED = "ended"
    FAILED = "failed"


class StepState(StrEnum):
    """Where a step is; `skipped` when the verdict left nothing to do."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    SKIPPED = "skipped"
    FAILED = "failed"


class CycleStep(Record):
    """One step: how often it was begun, what came of it, and under which lease token."""

    name: StepName
    state: StepState = StepState.WAITING
    attempt: int = Field(default=0, ge=0)
    token: str | None = Field(default=None, description="Fences the holder's folder and rows.")
    lease_until: UtcTime | None = None
    started_at: UtcTime | None = None
    ended_at: UtcTime | None = None
    result: Mapping[str, Any] = Field(default_factory=dict)
    error: str | None = None


class Cycle(Record):
    """One turn of training; one at a time per wheel."""

    cycle_id: str
    wheel: Name
    trigger: Trigger
    state: CycleState = CycleState.REQUESTED
    requested_at: UtcTime
    ended_at: UtcTime | None = None
    verdict: Verdict | None = None
    error: str | None = None
    steps: tuple[CycleStep, ...] = Field(
        default_factory=lambda: tuple(CycleStep(name=name) for name in StepName)
    )

    def step(self, name: StepName) -> CycleStep:
        """Return the step of that name; a cycle always has all of them."""
        return next(step for step in self.steps if step.name is name)

    @classmethod
    def request(cls, *, wheel: str, trigger: Trigger, cause: str, at: UtcTime) -> "Cycle":
        """Ask for a cycle; the same wheel and cause name the same one."""
        return cls(
            cycle_id=content_id("cycle", 1, wheel, trigger.value, cause),
            wheel=wheel,
            trigger=trigger,
            requested_at=at,
        )
