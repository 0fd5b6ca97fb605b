"""Micro-batches: some work costs nearly the same for one item as for five hundred."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from deltawheel.contracts.clock import Clock
from deltawheel.contracts.errors import InvalidRecordError
from deltawheel.services.runtime.backoff import sleep_unless
from deltawheel.services.runtime.offload import offload

__all__ = ["MicroBatcher", "batched_in_a_thread"]

Item = TypeVar("Item")
Result = TypeVar("Result")


class MicroBatcher(Generic[Item, Result]):
    """Gathers what callers bring until the batch is full or the wait is over, then runs it once.

    The wait is the first caller's, and begins when it comes: what the batch before takes counts.
    Without a wait it takes what has come while the batch before was running: alone, a caller waits
    for nobody, and under load batches grow by themselves (group commit). Every caller gets the
    result of its own item. An error of the batch reaches all of its callers, except that an item
    which is invalid must not spoil the others': then each is run alone.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
        *,
        max_items: int,
        clock: Clock,
        max_wait_s: float = 0.0,
    ) -> None:
        self._run = run
        self._max_items = max_items
        self._max_wait_s = max_wait_s
        self._clock = clock
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._waiting_since_s = 0.0
        self._full = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None

    async def __call__(self, item: Item) -> Result:
        """Bring one item and wait for its result."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        if not self._waiting:
            self._waiting_since_s = self._clock.monotonic()
        self._waiting.append((item, future))
        if len(self._waiting) >= self._max_items:
            self._full.set()
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        while self._waiting:
            await self._fill()
            batch, self._waiting = (
                self._waiting[: self._max_items],
                self._waiting[self._max_items :],
            )
            await self._answer(batch)

    async def _fill(self) -> None:
        if len(self._waiting) >= self._max_items:
            return
        waited_s = self._clock.monotonic() - self._waiting_since_s
        if waited_s >= self._max_wait_s:
            await asyncio.sleep(0)
            return
        self._full.clear()
        await sleep_unless(self._full, self._max_wait_s - waited_s, clock=self._clock)

    async def _answer(self, batch: Sequence[tuple[Item, asyncio.Future[Result]]]) -> None:
        [outcome] = await asyncio.gather(
            self._run([item for item, _ in batch]), return_exceptions=True
        )
        if isinstance(outcome, InvalidRecordError) and len(batch) > 1:
            for item in batch:
                await self._answer([item])
        elif isinstance(outcome, BaseException):
            for _, future in batch:
                if not future.done():
                    future.set_exception(outcome)
        else:
            for (_, future), result in zip(batch, outcome, strict=True):
                if not future.done():
                    future.set_result(result)


def batched_in_a_thread(
    run: Callable[[Sequence[Item]], Sequence[Result]], *, max_items: int, clock: Clock
) -> MicroBatcher[Item, Result]:
    """Return what gathers items for a call that may block, such as the store's; without a wait."""

    async def offloaded(items: Sequence[Item]) -> Sequence[Result]:
        return await offload(run, items)

    return MicroBatcher(offloaded, max_items=max_items, clock=clock)
