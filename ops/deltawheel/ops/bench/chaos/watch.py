"""What is watched while blows fall: that `up` runs, how far the store is, who has recovered."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from deltawheel.contracts.clock import Clock
from deltawheel.contracts.store import Progress, Store
from deltawheel.ops.bench.chaos.feeder import Feeder
from deltawheel.ops.bench.chaos.recovery import Recovery
from deltawheel.ops.bench.chaos.schedule import SUPERVISOR
from deltawheel.ops.bench.chaos.wheel import ChaosWheel, Victim
from deltawheel.ops.bench.chaos.witness import Redeliveries, StoreView
from deltawheel.ops.supervisor.child import read_last_lines

__all__ = ["Watch"]

_LOOK_EVERY_S: Final = 0.5
_READ_EVERY_S: Final = 1.0
_SAY_EVERY_S: Final = 15.0


@dataclass(slots=True, kw_only=True)
class Watch:
    """Looks at the wheel from outside, and keeps the figures of the run.

    Attributes:
        kills: SIGKILLs so far, by process: a service, its guard, or the supervisor.
        outages: Kills of broker, database and model server.
        recoveries: Every kill of a process of the wheel, and how long it was felt.
        num_given_up: How often `up` ended though nobody had killed it.
        progress: The store's counts when it last answered.
        progress_at_s: When it was asked for these, seconds of the clock.
    """

    wheel: ChaosWheel
    feeder: Feeder
    view: StoreView
    redeliveries: Redeliveries
    clock: Clock
    say: Callable[[str], None]
    kills: Counter[str] = field(default_factory=Counter)
    outages: Counter[str] = field(default_factory=Counter)
    recoveries: list[Recovery] = field(default_factory=list)
    num_given_up: int = 0
    progress: Progress | None = None
    progress_at_s: float = 0.0
    _next_look_at_s: float = 0.0
    _next_read_at_s: float = 0.0
    _next_say_at_s: float = 0.0

    @property
    def is_felt(self) -> bool:
        """Whether somebody has not recovered yet."""
        return any(not one.is_over for one in self.recoveries)

    def store(self) -> Store | None:
        """Return the store of the run that is on, or None while it is away."""
        return self.view.store(self.wheel.run())

    def tick(self) -> None:
        """Look at everything whose time has come.

        Raises:
            DeltawheelError: the gateway has refused what is valid.
        """
        if self.feeder.has_failed:
            self.feeder.stop()
        now_s = self.clock.monotonic()
        self._keep_up()
        self._look(now_s)
        if now_s >= self._next_read_at_s:
            self._next_read_at_s = now_s + _READ_EVERY_S
            self.redeliveries.read()
            self.wheel.look()
        if now_s >= self._next_say_at_s:
            self._next_say_at_s = now_s + _SAY_EVERY_S
            self.say(self.describe())

    def kill(self, name: str, *, is_guard: bool = False, where: str = "") -> bool:
        """Kill a service, its guard, or the supervisor, which is started again at once.

        Returns false where there is no such process at the moment.
        """
        self.redeliveries.read()
        victim = self.wheel.kill_guard(name) if is_guard else self.wheel.kill(name)
        if victim is None:
            return False
        cause = f"guard of {name}" if is_guard else name
        self.kills[cause] += 1
        self.say(f"kill {self.kills.total()}: {cause}{where}")
        self.follow(victim, cause)
        if name == SUPERVISOR:
            self.wheel.start()
        return True

    def follow(self, victim: Victim, cause: str) -> None:
        """Follow a kill until it is no longer felt."""
        now_s = self.clock.monotonic()
        self.recoveries.append(Recovery(cause=cause, victim=victim, killed_at_s=now_s))

    def describe(self) -> str:
        """Say in one line how things stand."""
        if (progress := self.progress) is None:
            return "the store has not answered yet"
        felt = sorted({one.victim.name for one in self.recoveries if not one.is_over})
        waiting = f"; recovering: {', '.join(felt)}" if felt else ""
        return (
            f"{self.kills.total()} kills; {progress.prompts} prompts → {progress.traces} traces → "
            f"{progress.judgements} judgements → {progress.pairs} pairs, "
            f"{progress.prompts - progress.closed} open, "
            f"{progress.dead_letters} dead letters{waiting}"
        )

    def _keep_up(self) -> None:
        """Start `up` again if it has ended by itself, which it should not."""
        if not self.wheel.has_ended:
            return
        self.num_given_up += 1
        said = read_last_lines(self.wheel.log_file)
        self.say(f"up has ended by itself and is started again; it said: {said}")
        self.wheel.start()

    def _look(self, now_s: float) -> None:
        run, fresh = self.wheel.run(), None
        if now_s >= self._next_look_at_s:
            self._next_look_at_s = now_s + _LOOK_EVERY_S
            fresh = self.view.progress(run)
        if fresh is not None:
            self.progress, self.progress_at_s = fresh, now_s
            self.feeder.num_open = fresh.prompts - fresh.closed
        for recovery in self.recoveries:
            recovery.look(now_s, run, fresh)
