"""Servers as the client sees them: how many requests each is given, and which replica is asked."""

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from deltawheel.contracts.addresses import without_password
from deltawheel.contracts.ports import Telemetry
from deltawheel.infra.adaptive_limit import AdaptiveLimit

__all__ = ["ServerGates", "Visit"]

_SLACK: Final = 4
"""A request goes past the replica that has its prefix once that has so many more than another."""
_REST_S: Final = 5.0
"""How long a replica that could not be reached is left alone while others can."""
_SLOW_SHARE: Final = 0.5
"""Of the longest wait for an answer; a server that takes longer is given no more than it has."""


@dataclass(slots=True)
class Visit:
    """One request at one server. Unless told otherwise, it says nothing of how busy that is."""

    is_answered: bool = False
    is_refused: bool = False
    is_unreachable: bool = False


@dataclass(slots=True)
class _Gate:
    limit: AdaptiveLimit
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)
    rests_until_s: float = 0.0

    async def enter(self) -> None:
        """Wait for a place, first come, first served."""
        if not self.waiting and self.limit.admit():
            return
        place = asyncio.get_running_loop().create_future()
        self.waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.cancelled():
                self.waiting.remove(place)
            else:  # a place was given that nobody takes
                self.leave(Visit())
            raise

    def leave(self, visit: Visit) -> None:
        """Give the place back, and free ones to those who wait."""
        if visit.is_refused:
            self.limit.refused()
        elif visit.is_answered:
            self.limit.answered()
        else:
            self.limit.abandoned()
        while self.waiting and self.limit.admit():
            self.waiting.popleft().set_result(None)


class ServerGates:
    """The gates of all servers, by base URL. It belongs to one event loop.

    Args:
        ceiling: Most requests at a server at the same time.
        longest_wait_s: Longest wait for an answer.
        telemetry: Shows each server's limit and what is under way.
    """

    def __init__(self, *, ceiling: int, longest_wait_s: float, telemetry: Telemetry) -> None:
        self._ceiling = ceiling
        self._slow_s = _SLOW_SHARE * longest_wait_s
        self._telemetry = telemetry
        self._gates: dict[str, _Gate] = {}

    def preferred(self, bases: Sequence[str], *, prefix: str) -> list[str]:
        """Return the replicas in the order in which to ask them.

        First the one that this prefix always goes to (rendezvous hashing: a replica more or less
        moves no other's prefixes), so that its prefix cache is of use; unless it has clearly more
        under way than another. Those that could not be reached of late come last.
        """
        if len(bases) == 1:
            return [*bases]
        now_s = asyncio.get_running_loop().time()
        least = min(self._of(base).limit.in_flight for base in bases)

        def rank(base: str) -> tuple[bool, bool, bytes]:
            gate = self._of(base)
            is_crowded = gate.limit.in_flight > least + _SLACK
            return gate.rests_until_s > now_s, is_crowded, _weight(prefix, base)

        return sorted(bases, key=rank)

    @asynccontextmanager
    async def visiting(self, base: str) -> AsyncIterator[Visit]:
        """Wait for a place at a server and hold it; the visit is told how the request ended."""
        gate, visit = self._of(base), Visit()
        await gate.enter()
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        try:
            yield visit
        finally:
            if visit.is_answered and loop.time() - begun_s > self._slow_s:
                visit.is_refused = True
            gate.rests_until_s = loop.time() + _REST_S if visit.is_unreachable else 0.0
            gate.leave(visit)
            self._show(base, gate)

    def _of(self, base: str) -> _Gate:
        if base not in self._gates:
            self._gates[base] = _Gate(AdaptiveLimit(self._ceiling))
        return self._gates[base]

    def _show(self, base: str, gate: _Gate) -> None:
        limit, server = gate.limit, without_password(base)
        self._telemetry.set("deltawheel_server_concurrency", limit.limit, server=server)
        self._telemetry.set("deltawheel_server_in_flight", limit.in_flight, server=server)


def _weight(prefix: str, base: str) -> bytes:
    return hashlib.sha256(f"{prefix}\0{base}".encode()).digest()
