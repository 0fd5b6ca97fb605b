"""Failpoints armed in the running wheel: somebody is held there, and is killed there."""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from deltawheel.contracts.clock import Clock
from deltawheel.contracts.failpoints import Failpoint
from deltawheel.infra.guard import read_stat
from deltawheel.ops.bench.chaos.schedule import HeldAt

__all__ = ["Traps"]

_PATIENCE_S: Final = 90.0
"""Longest wait for somebody to come by; a wheel that boots anew takes half of that."""

_MOST: Final = 2
_MOST_TRIES: Final = 3
_SHARED: Final = frozenset(
    {Failpoint.RUNTIME_STORED, Failpoint.RUNTIME_PUBLISHED, Failpoint.RUNTIME_BURIED}
)
"""Points that several services pass: their subject begins with the service's name."""


@dataclass(frozen=True, slots=True)
class _Trap:
    at: HeldAt
    folder: Path
    armed_at_s: float

    @property
    def armed(self) -> Path:
        return self.folder / f"{self.at.point}.armed"

    @property
    def reached(self) -> Path:
        return self.folder / f"{self.at.point}.reached"

    def arm(self) -> None:
        """Arm it, in one step; `infra.failpoints` says which files mean what."""
        self.reached.unlink(missing_ok=True)
        draft = self.folder / f"{self.at.point}.draft"
        draft.write_text(f"{self.at.service} " if self.at.point in _SHARED else "")
        draft.rename(self.armed)

    def holds(self) -> bool:
        """Whether somebody is held, and alive."""
        try:
            pid = int(self.reached.read_text().split()[0])
        except FileNotFoundError:
            return False
        found = read_stat(pid)
        return found is not None and found.is_alive

    def is_vain(self, now_s: float) -> bool:
        """Whether nobody comes, or who was held has died of something else."""
        is_late = now_s - self.armed_at_s > _PATIENCE_S
        return not self.holds() and (is_late or self.reached.exists())


@dataclass(slots=True, kw_only=True)
class Traps:
    """Arms failpoints, a few at a time, and kills whoever is held.

    Args:
        folder: Where the wheel's processes look for armed points.
        prepare: Sees to it that somebody will come by; false where that cannot be done now.
        kill: Kills a service that is held at a point; false likewise.
        clock: Time.

    Attributes:
        held: Kills, by point and service.
        missed: Points at which nobody could be killed, after several tries.
    """

    folder: Path
    prepare: Callable[[HeldAt], bool]
    kill: Callable[[HeldAt], bool]
    clock: Clock
    held: Counter[HeldAt] = field(default_factory=Counter)
    missed: list[HeldAt] = field(default_factory=list)
    _armed: list[_Trap] = field(default_factory=list, init=False)
    _again: deque[HeldAt] = field(default_factory=deque, init=False)
    _failures: Counter[HeldAt] = field(default_factory=Counter, init=False)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is armed or to be armed again."""
        return not (self._armed or self._again)

    def arm(self, at: HeldAt) -> bool:
        """Arm a point; false while too many are, or this one is, or nobody would come."""
        is_taken = any(trap.at.point is at.point for trap in self._armed)
        if is_taken or len(self._armed) >= _MOST or not self.prepare(at):
            return False
        trap = _Trap(at, self.folder, self.clock.monotonic())
        trap.arm()
        self._armed.append(trap)
        return True

    def tick(self) -> None:
        """Kill whoever is held; what nobody has come to is armed again later."""
        now_s = self.clock.monotonic()
        for trap in list(self._armed):
            if trap.holds():
                self._spring(trap)
            elif trap.is_vain(now_s):
                self._give_up(trap)
        if self._again and self.arm(self._again[0]):
            self._again.popleft()

    def disarm(self) -> None:
        """Let everybody pass at every point."""
        for path in self.folder.glob("*.armed"):
            path.unlink(missing_ok=True)

    def _spring(self, trap: _Trap) -> None:
        if self.kill(trap.at):
            self._armed.remove(trap)
            self.held[trap.at] += 1

    def _give_up(self, trap: _Trap) -> None:
        trap.armed.unlink(missing_ok=True)
        self._armed.remove(trap)
        self._failures[trap.at] += 1
        if self._failures[trap.at] < _MOST_TRIES:
            self._again.append(trap.at)
        else:
            self.missed.append(trap.at)
