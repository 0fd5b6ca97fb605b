"""The storm: one blow after another falls on a wheel at work."""

import signal
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from deltawheel.contracts.clock import Random
from deltawheel.contracts.cycle import Trigger
from deltawheel.contracts.errors import DeltawheelError
from deltawheel.contracts.failpoints import Failpoint
from deltawheel.ops.bench.chaos.garbage import make_garbage, publish_garbage
from deltawheel.ops.bench.chaos.members import MemberStorm
from deltawheel.ops.bench.chaos.models import ModelServer
from deltawheel.ops.bench.chaos.schedule import Blow, BlowKind, HeldAt
from deltawheel.ops.bench.chaos.traps import Traps
from deltawheel.ops.bench.chaos.watch import Watch
from deltawheel.ops.bench.chaos.world import FAILPOINTS
from deltawheel.ops.cycles import request_cycle

__all__ = ["Storm"]

_MODELS_AWAY_S: Final = 3.0
_ENOUGH_PAIRS: Final = 20
"""To begin a training cycle with."""


@dataclass(slots=True, kw_only=True)
class Storm:
    """Carries out a schedule: `tick` it until it is over.

    Args:
        watch: Sees to the wheel, and keeps the figures.
        models: The model server, which is struck too.
        schedule: What is done, in this order.
        random: Of the members that come and go.
        garbage_size: Messages of each blow of garbage.
        members_size: Members of each rebalance storm.

    Attributes:
        num_garbage: Messages published that nobody can decode.
        num_members: Further members of consumer groups that came and went.
    """

    watch: Watch
    models: ModelServer
    schedule: Sequence[Blow]
    random: Random
    garbage_size: int
    members_size: int
    num_garbage: int = 0
    num_members: int = 0
    traps: Traps = field(init=False)
    _blows: deque[Blow] = field(init=False)
    _executor: ThreadPoolExecutor = field(init=False)
    _garbage: Future[None] | None = field(default=None, init=False)
    _members: MemberStorm | None = field(default=None, init=False)
    _models_back_at_s: float | None = field(default=None, init=False)
    _next_blow_at_s: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._blows = deque(self.schedule)
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="garbage")
        self.traps = Traps(
            folder=self.watch.wheel.settings.home / FAILPOINTS,
            prepare=self._prepare,
            kill=self._kill_held,
            clock=self.watch.clock,
        )

    @property
    def is_over(self) -> bool:
        """Whether everything was done, and every kill recovered from."""
        others = (self._garbage, self._members, self._models_back_at_s)
        is_busy = any(other is not None for other in others)
        return not (self._blows or is_busy or self.watch.is_felt) and self.traps.is_empty

    @property
    def num_left(self) -> int:
        """How much is still to be done or to be recovered from."""
        felt = sum(not one.is_over for one in self.watch.recoveries)
        return len(self._blows) + felt

    def tick(self) -> None:
        """Do what is due."""
        now_s = self.watch.clock.monotonic()
        self.traps.tick()
        self._tend(now_s)
        if not self._blows or now_s < self._next_blow_at_s or not self._strike(self._blows[0]):
            return
        self._blows.popleft()
        if self._blows:
            self._next_blow_at_s = now_s + self._blows[0].pause_s

    def stop(self) -> None:
        """End what the storm itself has started."""
        if self._members is not None:
            self._members.stop()
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _strike(self, blow: Blow) -> bool:
        """Strike, if that can be done now."""
        if blow.at is not None:
            return self.traps.arm(blow.at)
        strike: dict[BlowKind, Callable[[], bool]] = {
            BlowKind.PROCESS: lambda: self.watch.kill(blow.target),
            BlowKind.GUARD: lambda: self.watch.kill(blow.target, is_guard=True),
            BlowKind.BROKER: lambda: self._kill_source("broker"),
            BlowKind.DATABASE: lambda: self._kill_source("postgres"),
            BlowKind.MODELS: self._kill_models,
            BlowKind.GARBAGE: self._begin_garbage,
            BlowKind.MEMBERS: self._begin_members,
        }
        return strike[blow.kind]()

    def _kill_source(self, name: str) -> bool:
        """Kill broker or database; the database every other time by an immediate stop instead."""
        is_stop = name == "postgres" and self.watch.outages[name] % 2 == 1
        signum = signal.SIGQUIT if is_stop else signal.SIGKILL
        victim = self.watch.wheel.kill(name, signum=signum)
        if victim is None:
            return False
        self.watch.outages[name] += 1
        self.watch.say(f"{name} is {'stopped at once' if is_stop else 'killed'}")
        self.watch.follow(victim, name)
        return True

    def _kill_models(self) -> bool:
        self.models.kill()
        self.watch.outages["models"] += 1
        self.watch.say("the model server is killed")
        self._models_back_at_s = self.watch.clock.monotonic() + _MODELS_AWAY_S
        return True

    def _begin_garbage(self) -> bool:
        wheel = self.watch.wheel
        if self._garbage is not None or not wheel.is_ready:
            return False
        self.watch.say(f"{self.garbage_size} messages of garbage on the topic of traces")
        messages = make_garbage(self.num_garbage, self.garbage_size, wheel=wheel.settings.wheel)
        self.num_garbage += self.garbage_size
        self._garbage = self._executor.submit(
            publish_garbage, wheel.resolved, messages, self.watch.clock
        )
        return True

    def _begin_members(self) -> bool:
        wheel = self.watch.wheel
        if self._members is not None or not wheel.is_ready:
            return False
        self.watch.say(f"{self.members_size} further members of the consumer groups come and go")
        self.num_members += self.members_size
        self._members = MemberStorm(
            wheel.resolved(),
            num_members=self.members_size,
            clock=self.watch.clock,
            random=self.random,
        )
        return True

    def _tend(self, now_s: float) -> None:
        """See to what takes longer than one moment."""
        if self._members is not None:
            self._members.tick()
            if self._members.is_over:
                self._members = None
        if self._garbage is not None and self._garbage.done():
            self._garbage.result()
            self._garbage = None
        if self._models_back_at_s is not None and now_s >= self._models_back_at_s:
            self._models_back_at_s = None
            self.models.start(is_faulty=True)

    def _prepare(self, at: HeldAt) -> bool:
        """Ask for a cycle where one is needed; what comes of it is not the point here."""
        watch = self.watch
        if at.point is not Failpoint.TRAINING_STEP:
            return True
        if watch.progress is None or watch.progress.pairs < _ENOUGH_PAIRS:
            return False
        try:
            if (store := watch.store()) is None:
                return False
            if not store.open_cycles():
                request_cycle(store, watch.wheel.settings, watch.clock, Trigger.OPERATOR)
        except DeltawheelError:
            return False
        return True

    def _kill_held(self, at: HeldAt) -> bool:
        return self.watch.kill(at.service, where=f" at {at.point}")
