"""Servers as the client sees them: how many requests each is given, and which replica is asked."""

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from deltawheel.contracts.addresses import without_password
from deltawheel.contracts.errors import RetryLaterError
from deltawheel.contracts.ports import Telemetry
from deltawheel.infra.adaptive_limit import AdaptiveLimit

__all__ = ["End", "ServerGates"]

_SLACK: Final = 4
"""A request goes past the replica that has its prefix once that has so many more than another."""
_REST_S: Final = 5.0
"""How long a replica that did not answer is left alone while others do."""
_LATE_SHARE: Final = 0.5
"""Of the longest wait for an answer: from here on, an answer is late."""


class End(Enum):
    """How a request ended, as far as it says something of the server."""

    ANSWERED = "answered"
    SHED = "shed"
    TOO_LATE = "too late"
    UNREACHABLE = "unreachable"
    UNKNOWN = "unknown"


@dataclass(slots=True)
class Visit:
    """One request at one server; whoever makes it says how it ended."""

    end: End = End.UNKNOWN


@dataclass(slots=True)
class _Gate:
    limit: AdaptiveLimit
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)
    rests_until_s: float = 0.0

    @property
    def load(self) -> int:
        """Requests that are under way or wait for it."""
        return self.limit.in_flight + len(self.waiting)

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
                self._forget(place)
            else:  # a place was given that nobody takes
                self.limit.abandoned()
                self.call_next()
            raise

    def leave(self, end: End, *, is_late: bool) -> None:
        """Give the place back, and free ones to those who wait."""
        match end:
            case End.ANSWERED:
                self.limit.answered(is_late=is_late)
            case End.SHED | End.TOO_LATE:
                self.limit.refused()
            case End.UNREACHABLE | End.UNKNOWN:
                self.limit.abandoned()
        self.call_next()

    def call_next(self) -> None:
        """Give free places to those who wait; one that was cancelled no longer does."""
        while self.waiting:
            if self.waiting[0].done():
                self.waiting.popleft()
            elif self.limit.admit():
                self.waiting.popleft().set_result(None)
            else:
                return

    def _forget(self, place: asyncio.Future[None]) -> None:
        with suppress(ValueError):
            self.waiting.remove(place)


class ServerGates:
    """The gates of all servers, by base URL. It belongs to one event loop.

    Args:
        ceiling: Most requests at a server at the same time.
        longest_wait_s: Longest wait for an answer.
        telemetry: Shows each server's limit and what is under way.
    """

    def __init__(self, *, ceiling: int, longest_wait_s: float, telemetry: Telemetry) -> None:
        self._ceiling = ceiling
        self._longest_wait_s = longest_wait_s
        self._telemetry = telemetry
        self._gates: dict[str, _Gate] = {}

    def preferred(self, bases: Sequence[str], *, prefix: str) -> list[str]:
        """Return the replicas in the order in which to ask them.

        First the one that this prefix always goes to (rendezvous hashing: a replica more or less
        moves no other's prefixes), so that its prefix cache is of use; unless it has no place, or
        clearly more to do than another. Those that did not answer of late come last.
        """
        if len(bases) == 1:
            return [*bases]
        now_s = asyncio.get_running_loop().time()
        least = min(self._of(base).load for base in bases)

        def rank(base: str) -> tuple[bool, bool, bool, bytes]:
            gate = self._of(base)
            is_full = gate.load >= gate.limit.limit
            is_crowded = gate.load > least + _SLACK
            return gate.rests_until_s > now_s, is_full, is_crowded, _weight(prefix, base)

        return sorted(bases, key=rank)

    @asynccontextmanager
    async def visiting(self, base: str) -> AsyncIterator[Visit]:
        """Wait for a place at a server and hold it; the visit is told how the request ended.

        Raises:
            RetryLaterError: no place was free for as long as an answer may take.
        """
        gate, visit, loop = self._of(base), Visit(), asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._longest_wait_s):
                await gate.enter()
        except TimeoutError as error:
            raise RetryLaterError(
                f"{without_password(base)} had no place for a request within "
                f"{self._longest_wait_s:g} s: it is given {gate.limit.limit} at the same time"
            ) from error
        begun_s = loop.time()
        try:
            yield visit
        finally:
            now_s = loop.time()
            if visit.end in {End.UNREACHABLE, End.TOO_LATE}:
                gate.rests_until_s = now_s + _REST_S
            elif visit.end is End.ANSWERED:
                gate.rests_until_s = 0.0
            gate.leave(visit.end, is_late=now_s - begun_s > _LATE_SHARE * self._longest_wait_s)
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
