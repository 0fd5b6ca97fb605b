"""Time and randomness as ports: without them no simulation can replay a run."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol, TypeVar

__all__ = ["Clock", "Random"]

T = TypeVar("T")


class Clock(Protocol):
    """The only source of time."""

    def now(self) -> datetime:
        """Return the current time, aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go backwards; only differences mean anything."""
        ...

    def wait(self, duration_s: float) -> None:
        """Block the calling thread for that long."""
        ...

    async def sleep(self, duration_s: float) -> None:
        """Suspend the calling task for that long."""
        ...


class Random(Protocol):
    """The only source of randomness."""

    def random(self) -> float:
        """Return a number in [0, 1)."""
        ...

    def randrange(self, start: int, stop: int) -> int:
        """Return an integer in [start, stop)."""
        ...

    def choice(self, options: Sequence[T]) -> T:
        """Return one of the options."""
        ...

    def gauss(self, mu: float, sigma: float) -> float:
        """Return a normal variate."""
        ...

    def shuffle(self, items: list[T]) -> None:
        """Bring the items into a random order, in place."""
        ...

    def token(self) -> str:
        """Return 128 unguessable bits as hex digits, for lease tokens and fresh ids."""
        ...

    def seeded(self, seed: int | str) -> "Random":
        """Return a generator of its own that gives the same values for the same seed."""
        ...
