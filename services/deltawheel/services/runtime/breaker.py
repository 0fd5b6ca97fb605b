"""Circuit breakers, without input or output: no clock or randomness in here.

A dependency that fails often enough in a row is down: nobody asks it any more but, from time to
time, one probe. Calls come from one thread; only what is documented so may be asked from another.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from weakref import WeakSet

from deltawheel.contracts.errors import RetryLaterError
from deltawheel.contracts.interruptions import Outage
from deltawheel.services.runtime.backoff import retry_pause_s

__all__ = ["Breaker", "BreakerRules", "Breakers", "Downtime"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerRules:
    """When a breaker opens and how long it waits; pauses double from `base_s` up to `cap_s`."""

    num_failures: int
    base_s: float
    cap_s: float
    forget_after_s: float = 300.0
    """A dependency that nobody has asked for so long is needed by nobody, and no longer down."""


@dataclass(slots=True)
class Downtime:
    """A span in which a dependency was down, on the monotonic clock; `ended_s` while it lasts."""

    dependency: str
    began_s: float
    ended_s: float | None = None
    began_at: datetime | None = None
    """When that was by the calendar, once somebody has written it down."""

    def as_outage(self, *, at: datetime, at_s: float) -> Outage:
        """Return the row that says so; `at` is now by the calendar, `at_s` by the other clock.

        Its beginning is worked out once: a calendar that is put right must not make two rows.
        """
        if self.began_at is None:
            self.began_at = at - timedelta(seconds=at_s - self.began_s)
        ended_s = at_s if self.ended_s is None else self.ended_s
        ended_at = at - timedelta(seconds=at_s - ended_s)
        return Outage(
            dependency=self.dependency,
            began_at=self.began_at,
            ended_at=max(ended_at, self.began_at),
        )


@dataclass(slots=True)
class Breaker:
    """Closed: everybody may ask. Open: nobody but one probe, whose success closes it.

    A success from anywhere counts, so one record that fails for ever while others succeed opens
    nothing.
    """

    dependency: str
    rules: BreakerRules
    num_successes: int = 0
    asked_s: float = 0.0
    downtime: Downtime | None = None
    _num_failures: int = 0
    _num_probes: int = 0
    _first_failure_s: float = 0.0
    _next_s: float = 0.0
    _is_probed: bool = False

    @property
    def is_open(self) -> bool:
        """Whether the dependency counts as down; may be asked from any thread."""
        return self.downtime is not None

    def wait_s(self, at_s: float) -> float:
        """Return for how long nobody may ask; may be asked from any thread."""
        return max(0.0, self._next_s - at_s) if self.is_open else 0.0

    def admits(self, at_s: float) -> bool:
        """Whether to ask it now; through an open breaker, whoever hears yes is the probe.

        One of which nothing is heard for the longest pause gets company of another.
        """
        self.asked_s = at_s
        if self.downtime is None:
            return True
        if at_s < self._next_s:
            return False
        self._is_probed = True
        self._next_s = at_s + self.rules.cap_s
        return True

    def release(self, at_s: float) -> None:
        """The probe ended without finding out; another may go at once."""
        if self._is_probed:
            self._is_probed = False
            self._next_s = at_s

    def succeeded(self) -> bool:
        """It has answered; return whether that closes the breaker."""
        self.num_successes += 1
        was_open = self.is_open
        self.forget()
        return was_open

    def forget(self) -> None:
        """Begin anew, closed, though nothing has answered."""
        self._num_failures = 0
        self.downtime = None
        self._is_probed = False

    def failed(self, at_s: float, *, jitter: float, at_least_s: float | None = None) -> bool:
        """It has not answered; return whether that opens the breaker.

        What fails of the calls that were under way when it opened says nothing new. `at_least_s`
        is what the other side asked for; it is heard up to the longest pause.
        """
        self.asked_s = at_s
        if self.downtime is not None:
            if self._is_probed:
                self._pause(at_s, jitter, at_least_s)
            return False
        if not self._num_failures:
            self._first_failure_s = at_s
        self._num_failures += 1
        if self._num_failures < self.rules.num_failures:
            return False
        self.downtime = Downtime(self.dependency, self._first_failure_s)
        self._num_probes = 0
        self._pause(at_s, jitter, at_least_s)
        return True

    def _pause(self, at_s: float, jitter: float, at_least_s: float | None) -> None:
        pause_s = retry_pause_s(
            self._num_probes,
            base_s=self.rules.base_s,
            cap_s=self.rules.cap_s,
            jitter=jitter,
            at_least_s=at_least_s,
        )
        self._is_probed = False
        self._num_probes += 1
        self._next_s = at_s + pause_s


@dataclass(slots=True)
class Breakers:
    """The breakers of one process, and what it cannot do without.

    Each of the `vital` dependencies is needed by every record; of a `pool`, such as the model
    servers, one that is not down keeps the work going, however long nobody has asked it. Whoever
    knows the pool takes out what is retired: that would keep the work going for nothing.
    """

    rules: BreakerRules
    vital: set[str] = field(default_factory=set)
    pool: set[str] = field(default_factory=set)
    _breakers: dict[str, Breaker] = field(default_factory=dict)
    _open: set[str] = field(default_factory=set)
    """Which are open; mostly none, which is all that a record has to look at."""
    _ended: list[Downtime] = field(default_factory=list)
    _counted: WeakSet[RetryLaterError] = field(default_factory=WeakSet)

    def find(self, dependency: str | None) -> Breaker | None:
        """Return a breaker, if anything was ever heard of the dependency."""
        return None if dependency is None else self._breakers.get(dependency)

    def of(self, dependency: str) -> Breaker:
        """Return the breaker of a dependency, new ones closed."""
        breaker = self._breakers.get(dependency)
        if breaker is None:
            breaker = self._breakers[dependency] = Breaker(dependency, self.rules)
        return breaker

    def succeeded(self, dependency: str, at_s: float) -> bool:
        """It has answered; return whether that closes its breaker."""
        breaker = self.of(dependency)
        breaker.asked_s = at_s
        if dependency in self._open:
            self._end(breaker, at_s)
        return breaker.succeeded()

    def failed(
        self, dependency: str, at_s: float, *, jitter: float, error: RetryLaterError
    ) -> bool:
        """It has not answered; return whether that opens its breaker.

        One failed batch raises the same error for each of its records, and counts once.
        """
        if error in self._counted:
            return False
        self._counted.add(error)
        breaker = self.of(dependency)
        opens = breaker.failed(at_s, jitter=jitter, at_least_s=error.retry_after_s)
        if opens:
            self._open.add(dependency)
        return opens

    def wait_s(self, dependencies: Iterable[str], at_s: float) -> float:
        """Return for how long not to ask any of these."""
        if not self._open:
            return 0.0
        return max((each.wait_s(at_s) for each in self._down(dependencies)), default=0.0)

    def enter(self, dependencies: Iterable[str], at_s: float) -> bool:
        """Whether to ask all of these now, as the probe of each that is open."""
        if not self._open:
            return True
        down = self._down(dependencies)
        if any(each.wait_s(at_s) for each in down):
            return False
        return all(each.admits(at_s) for each in down)

    def _down(self, dependencies: Iterable[str]) -> list[Breaker]:
        return [self._breakers[name] for name in dependencies if name in self._open]

    def leave(self, dependencies: Iterable[str], at_s: float) -> None:
        """Whoever has entered is back; of what it did not find out, another may be the probe."""
        for breaker in self._down(dependencies):
            breaker.release(at_s)

    def open(self) -> frozenset[str]:
        """Return what is down; may be asked from any thread."""
        return frozenset(self._open)

    def blocked_s(self, at_s: float) -> float | None:
        """Return how long nothing at all can be done, or None where something can.

        0 says that everything is down and a probe is due. May be asked from any thread.
        """
        if not self._open:
            return None
        down = [each for each in self._all() if each.is_open]
        waits = [each.wait_s(at_s) for each in down if each.dependency in self.vital]
        if waits:
            return max(waits)
        pool = frozenset(self.pool)
        if pool and pool <= self._open:
            return min(self._breakers[name].wait_s(at_s) for name in pool)
        return None

    def forget_idle(self, at_s: float) -> None:
        """End the downtime of what nobody has asked for so long that nobody needs it."""
        for breaker in self._all():
            if breaker.is_open and not self._is_in_use(breaker, at_s):
                self._end(breaker, breaker.asked_s)
                breaker.forget()

    def downtimes(self) -> list[Downtime]:
        """Return all that last, and those that have ended and are not `written` yet."""
        lasting = [each.downtime for each in self._all() if each.downtime is not None]
        return [*self._ended, *lasting]

    def written(self, downtimes: Iterable[Downtime]) -> None:
        """Forget those of these that have ended."""
        gone = {id(each) for each in downtimes if each.ended_s is not None}
        self._ended = [each for each in self._ended if id(each) not in gone]

    def _is_in_use(self, breaker: Breaker, at_s: float) -> bool:
        return at_s - breaker.asked_s < self.rules.forget_after_s

    def _end(self, breaker: Breaker, at_s: float) -> None:
        self._open.discard(breaker.dependency)
        if breaker.downtime is not None:
            breaker.downtime.ended_s = at_s
            self._ended.append(breaker.downtime)

    def _all(self) -> tuple[Breaker, ...]:
        return tuple(self._breakers.values())
