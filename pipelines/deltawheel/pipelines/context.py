"""What a stage is given, and where its files lie."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

from deltawheel.contracts.clock import Clock, Random
from deltawheel.contracts.cycle import Cycle, StepName
from deltawheel.contracts.errors import ConfigError, CycleError, RetryLaterError
from deltawheel.contracts.failpoints import Failpoint
from deltawheel.contracts.ports import ChatModel, Registry
from deltawheel.contracts.settings import ServerSettings, Settings
from deltawheel.contracts.slices import Selector
from deltawheel.contracts.store import Store

__all__ = ["Result", "Stage", "StageContext", "TrainingArm"]

T = TypeVar("T")
Result: TypeAlias = Mapping[str, Any]


class TrainingArm(StrEnum):
    """What a model is trained on: the candidate, or one of the controls it is compared with."""

    TOP_DELTA = "top-delta"
    RANDOM = "random"
    SHUFFLED_LABELS = "shuffled-labels"
    EXCHANGED_SIDES = "exchanged-sides"
    SFT = "sft"
    SFT_RANDOM = "sft-random"

    @property
    def selector(self) -> Selector:
        """Which pairs this arm reads, and how their labels are treated."""
        match self:
            case TrainingArm.SFT:
                return Selector.TOP_DELTA
            case TrainingArm.SFT_RANDOM:
                return Selector.RANDOM
        return Selector(self.value)

    @property
    def method(self) -> Literal["dpo", "sft"]:
        """How it is trained; supervised fine-tuning reads the chosen side only."""
        return "sft" if self in {TrainingArm.SFT, TrainingArm.SFT_RANDOM} else "dpo"


@dataclass(frozen=True, slots=True, kw_only=True)
class StageContext:
    """Everything that a stage may use.

    `folder` belongs to this attempt alone and is renamed when the stage has ended well, so nothing
    in a result may name a path below it; `done` gives the finished folder of an earlier step.
    `token` is the attempt's, by which it holds its step; `judge_revision` that of the judge of now.
    `reach` marks a failpoint. `runner` is the one event loop of the process: a model client's
    connections belong to the loop that opened them.
    """

    settings: Settings
    store: Store
    registry: Registry
    models: ChatModel
    clock: Clock
    random: Random
    cycle_id: str
    token: str
    judge_revision: str
    folder: Path
    done: Callable[[StepName], Path]
    progress: Callable[[str], None]
    reach: Callable[[Failpoint, str], None]
    runner: asyncio.Runner
    arm: TrainingArm = TrainingArm.TOP_DELTA

    def await_(self, work: Coroutine[Any, Any, T]) -> T:
        """Run asynchronous work to its end on the process's event loop."""
        return self.runner.run(work)

    def cycle(self) -> Cycle:
        """Return the cycle's row.

        Raises:
            CycleError: the store does not know it.
        """
        cycle = self.store.cycle(self.cycle_id)
        if cycle is None:
            raise CycleError(
                f"the store holds no cycle {self.cycle_id}; `deltawheel cycle list` names them"
            )
        return cycle

    def require_lease(self, name: StepName, *, needed_s: float) -> None:
        """Make sure that this attempt still holds its step, for as long as a call outside takes.

        Raises:
            RetryLaterError: another attempt has taken the step over, or may before the call ends.
        """
        step = self.cycle().step(name)
        until = self.clock.now() + timedelta(seconds=needed_s)
        if step.token != self.token or step.lease_until is None or step.lease_until < until:
            raise RetryLaterError(f"this attempt no longer holds the step {name.value}")

    @property
    def server(self) -> ServerSettings:
        """The server that evaluates and that serves what is promoted.

        Raises:
            ConfigError: there is none, which settings allow where no cycle starts by itself.
        """
        name = self.settings.training.server
        for server in self.settings.servers:
            if server.name == name:
                return server
        raise ConfigError(
            f"training.server: unknown server {name!r}; servers are "
            f"{[server.name for server in self.settings.servers]}"
        )

    def within(self, folder: Path, **changes: Any) -> "StageContext":  # noqa: ANN401
        """Return the same context writing elsewhere."""
        return replace(self, folder=folder, **changes)


Stage: TypeAlias = Callable[[StageContext], Result]
