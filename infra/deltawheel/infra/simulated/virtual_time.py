"""asyncio in virtual time: whoever sleeps an hour is woken at once, an hour later by the clock.

Nothing here waits and nothing runs in a thread, so what happens, and in which order, hangs on the
program alone.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar, TypeVarTuple, Unpack

__all__ = ["VirtualClock", "VirtualTimeLoop"]

T = TypeVar("T")
Args = TypeVarTuple("Args")

_RESOLUTION_S: Final = 1e-9


class VirtualTimeLoop(asyncio.BaseEventLoop):
    """An event loop whose time leaps to the next timer whenever nothing is ready.

    Blocking calls that would go to a thread (`asyncio.to_thread`) are made by the loop itself, one
    at a time. `delays_s` says for each how long it waits for its thread, and how long its result
    is under way: that is the room in which other calls come first, and in which a process can die
    after its effect and before it knows.
    """

    def __init__(self, delays_s: Callable[[], tuple[float, float]] = lambda: (0.0, 0.0)) -> None:
        super().__init__()
        self._now_s = 0.0
        self._delays_s = delays_s
        self._clock_resolution = _RESOLUTION_S
        self._selector = self

    def time(self) -> float:
        """Return virtual seconds since the loop was made."""
        return self._now_s

    def run_in_executor(
        self,
        executor: Executor | None,
        func: Callable[[Unpack[Args]], T],
        *args: *Args,
    ) -> asyncio.Future[T]:
        """Make the call after a while; one whose caller is gone by then is never made."""
        answer: asyncio.Future[T] = self.create_future()
        wait_s, way_s = self._delays_s()
        self.call_later(wait_s, self._call, answer, way_s, func, args)
        return answer

    def _call(
        self,
        answer: asyncio.Future[T],
        way_s: float,
        func: Callable[..., T],
        args: Sequence[object],
    ) -> None:
        if answer.cancelled():
            return
        try:
            result = func(*args)
        except BaseException as error:  # whatever it is, it belongs to the caller
            self._answer(answer, way_s, answer.set_exception, error)
        else:
            self._answer(answer, way_s, answer.set_result, result)

    def _answer(
        self,
        answer: asyncio.Future[T],
        way_s: float,
        settle: Callable[[Any], None],
        value: object,
    ) -> None:
        def arrive() -> None:
            if not answer.done():
                settle(value)

        if way_s:
            self.call_later(way_s, arrive)
        else:
            arrive()

    # What BaseEventLoop asks of a real loop: a selector, which here is the passing of time.

    def select(self, timeout_s: float | None) -> list[object]:
        """Let time pass until the next timer.

        Raises:
            RuntimeError: there is none, so that whoever is awaited will never come.
        """
        if timeout_s is None:
            raise RuntimeError("nothing is left to happen, but the simulation has not ended")
        if timeout_s > 0:
            self._now_s = max(self._now_s, self._scheduled[0].when())  # type: ignore[attr-defined]
        return []

    def _process_events(self, event_list: object) -> None:
        """There are no files or sockets to look after."""

    def _write_to_self(self) -> None:
        """There is no other thread, so nobody has to be woken."""


class VirtualClock:
    """The clock of one simulated machine: it may be wrong about the time of day, and may jump."""

    def __init__(self, loop: VirtualTimeLoop, *, began_at: datetime) -> None:
        self._loop = loop
        self._began_at = began_at
        self.wrong_by = timedelta(0)

    def now(self) -> datetime:
        """Return the time of day as this machine has it."""
        return self._began_at + timedelta(seconds=self._loop.time()) + self.wrong_by

    def monotonic(self) -> float:
        """Return virtual seconds, which no jump changes."""
        return self._loop.time()

    def wait(self, duration_s: float) -> None:
        """Let everything else go on for so long; only outside of the loop, where a thread would be.

        Raises:
            RuntimeError: the loop runs already, so the caller should have slept.
        """
        self._loop.run_until_complete(asyncio.sleep(duration_s))

    async def sleep(self, duration_s: float) -> None:
        """Suspend the calling task."""
        await asyncio.sleep(duration_s)
