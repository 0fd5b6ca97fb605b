"""When a process is started again, and when to give up on it: decisions without input or output.

The caller tells what happened and what time it is, in seconds of a monotonic clock, and asks what
to do; so every course of events can be played in a test.
"""

from dataclasses import dataclass, field
from enum import StrEnum

__all__ = ["GiveUp", "Lifecycle", "Phase", "RestartRules"]


class Phase(StrEnum):
    """Where a process stands."""

    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    BACKING_OFF = "backing off"
    FAILED = "failed"
    STOPPED = "stopped"


class GiveUp(StrEnum):
    """Why a process is not tried again."""

    ENDS_WHILE_STARTING = "ends while starting"
    NEVER_ANSWERS = "never answers"
    REFUSES_SETTINGS = "refuses its settings"


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartRules:
    """Pauses double from `base_s` to `cap_s`, half of each at random; all times in seconds.

    Giving up is for a process that was never ready in this run: a wheel that once turned goes on
    trying, because what broke it may pass. It is for one that ends by itself, too: being killed
    says nothing of it.
    """

    base_s: float
    cap_s: float
    stable_after_s: float
    ready_timeout_s: float
    max_boot_failures: int

    def pause_s(self, num_failures: int, jitter: float) -> float:
        """Return the pause after so many failures in a row, at least one; `jitter` in [0, 1)."""
        longest = min(self.cap_s, self.base_s * 2.0 ** min(num_failures - 1, 60))
        return longest * (0.5 + 0.5 * jitter)


@dataclass(slots=True)
class Lifecycle:
    """One process through its starts and ends."""

    rules: RestartRules
    phase: Phase = Phase.WAITING
    num_starts: int = 0
    give_up: GiveUp | None = None
    _num_failures: int = field(default=0, init=False)
    _num_own_ends: int = field(default=0, init=False)
    _was_ready: bool = field(default=False, init=False)
    _changed_at_s: float = field(default=0.0, init=False)
    _due_at_s: float = field(default=0.0, init=False)

    @property
    def num_restarts(self) -> int:
        """Return how often it was started again in this run, for whatever reason."""
        return max(0, self.num_starts - 1)

    @property
    def is_running(self) -> bool:
        """Whether there is a process."""
        return self.phase in (Phase.STARTING, Phase.READY)

    def is_due(self, now_s: float) -> bool:
        """Whether it may be started now."""
        if self.phase is Phase.BACKING_OFF:
            return now_s >= self._due_at_s
        return self.phase is Phase.WAITING

    def start(self, now_s: float) -> None:
        """It has been started."""
        self.phase = Phase.STARTING
        self.num_starts += 1
        self._changed_at_s = now_s

    def become_ready(self, now_s: float) -> None:
        """It answers for the first time since its start."""
        self.phase = Phase.READY
        self._was_ready = True
        self._changed_at_s = now_s

    def is_overdue(self, now_s: float) -> bool:
        """Whether it has been starting for too long, and is to be killed."""
        waited_s = now_s - self._changed_at_s
        return self.phase is Phase.STARTING and waited_s > self.rules.ready_timeout_s

    def end(
        self,
        now_s: float,
        *,
        jitter: float,
        is_overdue: bool = False,
        is_refusal: bool = False,
        is_killed: bool = False,
    ) -> None:
        """It has ended by itself, or was killed because it was overdue.

        `is_refusal` says that its exit status stands for wrong settings: no start can heal that.
        `is_killed` says that somebody else has ended it.
        """
        was_stable = (
            self.phase is Phase.READY and now_s - self._changed_at_s >= self.rules.stable_after_s
        )
        self._num_failures = 1 if was_stable else self._num_failures + 1
        self._num_own_ends += not is_killed
        self.give_up = None if self._was_ready else self._judge(is_overdue, is_refusal)
        if self.give_up is not None:
            self.phase = Phase.FAILED
            return
        self.phase = Phase.BACKING_OFF
        self._due_at_s = now_s + self.rules.pause_s(self._num_failures, jitter)

    def halt(self) -> None:
        """It has ended because we stopped it, to be started again as soon as it may."""
        self.phase = Phase.WAITING

    def stop(self) -> None:
        """It has ended for good."""
        self.phase = Phase.STOPPED

    def _judge(self, is_overdue: bool, is_refusal: bool) -> GiveUp | None:
        if is_overdue:
            return GiveUp.NEVER_ANSWERS
        if is_refusal:
            return GiveUp.REFUSES_SETTINGS
        if self._num_own_ends >= self.rules.max_boot_failures:
            return GiveUp.ENDS_WHILE_STARTING
        return None
