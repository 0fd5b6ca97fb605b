"""The machine's clock and randomness, as ports."""

import asyncio
import random
import secrets
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TypeVar

__all__ = ["SystemClock", "SystemRandom"]

T = TypeVar("T")


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Return the current time, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds that never go backwards."""
        return time.monotonic()

    def wait(self, duration_s: float) -> None:
        """Block the calling thread."""
        time.sleep(duration_s)

    async def sleep(self, duration_s: float) -> None:
        """Suspend the calling task."""
        await asyncio.sleep(duration_s)


class SystemRandom:
    """Randomness from the machine, or from a seed where one is given."""

    def __init__(self, seed: int | str | None = None) -> None:
        self._random = random.Random(seed)

    def random(self) -> float:
        """Return a number in [0, 1)."""
        return self._random.random()

    def randrange(self, start: int, stop: int) -> int:
        """Return an integer in [start, stop)."""
        return self._random.randrange(start, stop)

    def choice(self, options: Sequence[T]) -> T:
        """Return one of the options."""
        return self._random.choice(options)

    def gauss(self, mu: float, sigma: float) -> float:
        """Return a normal variate."""
        return self._random.gauss(mu, sigma)

    def shuffle(self, items: list[T]) -> None:
        """Bring the items into a random order, in place."""
        self._random.shuffle(items)

    def token(self) -> str:
        """Return 128 unguessable bits as hex digits."""
        return secrets.token_hex(16)

    def seeded(self, seed: int | str) -> "SystemRandom":
        """Return a generator of its own that gives the same values for the same seed."""
        return SystemRandom(seed)
