"""Turns: how many requests of this process a generator is asked at the same time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from deltawheel.contracts.generator import Generator

__all__ = ["Turns"]


class Turns:
    """A place for each request that `max_in_flight` allows; the rest wait in their order.

    Each revision and each limit of a generator has places of its own: what was asked under an
    earlier limit ends under it.
    """

    def __init__(self) -> None:
        self._places: dict[tuple[str, int], asyncio.Semaphore] = {}

    @asynccontextmanager
    async def of(self, generator: Generator) -> AsyncIterator[None]:
        """Wait for a place and hold it; a generator without limit has place for all."""
        limit = generator.max_in_flight
        if limit is None:
            yield
            return
        key = (generator.reference, limit)
        if key not in self._places:
            self._places[key] = asyncio.Semaphore(limit)
        async with self._places[key]:
            yield
