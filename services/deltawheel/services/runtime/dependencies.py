"""The thin shell around `Breakers`: clock, randomness, and a log line and metric at each change."""

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from deltawheel.contracts.clock import Clock, Random
from deltawheel.contracts.errors import BROKER, STORE, RetryLaterError
from deltawheel.contracts.ports import Telemetry
from deltawheel.contracts.settings import RuntimeSettings
from deltawheel.services.runtime.backoff import sleep_unless
from deltawheel.services.runtime.breaker import BreakerRules, Breakers

__all__ = ["SHARED", "Dependencies"]

log = logging.getLogger("deltawheel.runtime")

SHARED: Final = (STORE, BROKER)
"""What every record of every service needs."""


@dataclass(slots=True, kw_only=True)
class Dependencies:
    """What a process has heard of the things that it depends on.

    It is told in the asyncio thread; what is down may be asked from any.
    """

    clock: Clock
    random: Random
    telemetry: Telemetry
    settings: RuntimeSettings
    breakers: Breakers = field(init=False)
    _recovered: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    def __post_init__(self) -> None:
        rules = BreakerRules(
            num_failures=self.settings.breaker_failures,
            base_s=self.settings.breaker_base_s,
            cap_s=self.settings.breaker_cap_s,
        )
        self.breakers = Breakers(rules=rules, vital=set(SHARED))

    def succeeded(self, dependency: str) -> None:
        """It has answered."""
        if self.breakers.succeeded(dependency, self.clock.monotonic()):
            log.warning("%s answers again: its circuit breaker is closed", dependency)
            self.telemetry.set("deltawheel_breaker_open", 0, dependency=dependency)
            self.wake()

    def wake(self) -> None:
        """Have all that rest try again now: something that they wait for may have come."""
        self._recovered.set()
        self._recovered = asyncio.Event()

    async def rest(self, duration_s: float) -> None:
        """Sleep for so long, or until something that was down answers again."""
        await sleep_unless(self._recovered, duration_s, clock=self.clock)

    def failed(self, dependency: str, error: RetryLaterError) -> None:
        """It was not ready, as this error says."""
        at_s, jitter = self.clock.monotonic(), self.random.random()
        if self.breakers.failed(dependency, at_s, jitter=jitter, error=error):
            log.error("%s is down, its circuit breaker opens: %s", dependency, error)
            self.telemetry.set("deltawheel_breaker_open", 1, dependency=dependency)

    def note_shared(self, error: RetryLaterError) -> None:
        """Hear of store and broker; other dependencies are told of by whoever asks them."""
        if error.dependency in SHARED:
            self.failed(error.dependency, error)

    def hear_broker(self) -> None:
        """Count a poll as an answer where a probe is due."""
        if self.is_down(BROKER) and self.admits(BROKER):
            self.succeeded(BROKER)

    def admits(self, dependency: str) -> bool:
        """Whether to ask it now; whoever hears yes tells how it went."""
        return self.breakers.of(dependency).admits(self.clock.monotonic())

    def wait_s(self, *dependencies: str) -> float:
        """Return for how long nobody may ask one of these."""
        return self.breakers.wait_s(dependencies, self.clock.monotonic())

    def is_down(self, dependency: str | None) -> bool:
        """Whether it is known to be down."""
        breaker = self.breakers.find(dependency)
        return breaker is not None and breaker.is_open

    def enter(self, dependencies: Iterable[str] = SHARED) -> bool:
        """Whether to ask all of these now; whoever hears yes tells `leave` when that is over."""
        return self.breakers.enter(dependencies, self.clock.monotonic())

    def leave(self, dependencies: Iterable[str] = SHARED) -> None:
        """What was entered is over, whatever it has found out."""
        self.breakers.leave(dependencies, self.clock.monotonic())

    def blocked_s(self) -> float | None:
        """Return how long nothing at all can be done, or None where something can."""
        return self.breakers.blocked_s(self.clock.monotonic())

    def forget_idle(self) -> None:
        """End the downtime of what nobody needs any more."""
        was_open = self.breakers.open()
        self.breakers.forget_idle(self.clock.monotonic())
        for dependency in was_open - self.breakers.open():
            log.warning("nobody has asked %s of late: its circuit breaker is closed", dependency)
            self.telemetry.set("deltawheel_breaker_open", 0, dependency=dependency)
