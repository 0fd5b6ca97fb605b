"""The loop of every streaming service: one thread that polls, asyncio that works.

It only puts the parts together: what is decided stands in `flow`, `breaker` and `deferral`, what
the polling thread does in `polling`, and the work on one record in `record_work`.
"""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from deltawheel.contracts.clock import Clock, Random
from deltawheel.contracts.errors import BROKER, RetryLaterError
from deltawheel.contracts.failpoints import NoFailpoints
from deltawheel.contracts.ports import Consumer, Failpoints, Producer, Telemetry
from deltawheel.contracts.settings import Settings
from deltawheel.services.runtime.backoff import retry_pause_s
from deltawheel.services.runtime.carrier import Carrier, LoopLedger
from deltawheel.services.runtime.deferral_book import DeferralBook
from deltawheel.services.runtime.deferred_work import DeferredWork
from deltawheel.services.runtime.dependencies import Dependencies
from deltawheel.services.runtime.flow import Flow
from deltawheel.services.runtime.handler import Handler, Tick
from deltawheel.services.runtime.polling import Polled, Polling
from deltawheel.services.runtime.publisher import Publisher
from deltawheel.services.runtime.record_work import RecordWork, StoppingError
from deltawheel.services.runtime.upkeep import Upkeep

__all__ = ["Loop"]

log = logging.getLogger("deltawheel.runtime")

_FETCH_AHEAD: Final = 2


class Loop:
    """Runs one handler over one consumer until stopped.

    For each record: effects in the store, then events acknowledged, then the offset. A crash
    between any two of them repeats the record, which finds its effects.

    Args:
        handler: What is done with a record.
        consumer: Where records come from; it belongs to the thread that polls.
        producer: Where events go.
        ledger: The store, as far as the loop itself needs it.
        clock: Time.
        random: Jitter.
        telemetry: Metrics.
        settings: Those of the wheel.
        failpoints: Places at which a test may hold it; none if unset.
        dependencies: Those that the handler's ports report to; none are shared if unset.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        consumer: Consumer,
        producer: Producer,
        ledger: LoopLedger,
        clock: Clock,
        random: Random,
        telemetry: Telemetry,
        settings: Settings,
        failpoints: Failpoints | None = None,
        dependencies: Dependencies | None = None,
    ) -> None:
        self._handler = handler
        self._clock = clock
        self._random = random
        self._settings = settings.runtime
        self._dependencies = dependencies or Dependencies(
            clock=clock, random=random, telemetry=telemetry, settings=settings.runtime
        )
        self._stopping = threading.Event()
        self._failure: BaseException | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        service, lock, slots = handler.name, threading.Lock(), handler.concurrency
        flow = Flow(
            limit=_FETCH_AHEAD * handler.concurrency,
            max_bytes=settings.runtime.max_in_flight_mb * 1_000_000,
            max_refused=settings.runtime.halt_after_refusals,
        )
        everywhere: dict[str, Any] = {
            "clock": clock,
            "telemetry": telemetry,
            "dependencies": self._dependencies,
        }
        semaphore = asyncio.Semaphore(slots)
        self._publisher = Publisher(producer, wheel=settings.wheel, service=service, **everywhere)
        carrier = Carrier(
            handler,
            ledger=ledger,
            publisher=self._publisher,
            clock=clock,
            settings=settings,
            failpoints=failpoints or NoFailpoints(),
        )
        book = DeferralBook(ledger, clock=clock)
        deferred = DeferredWork(
            service=service,
            ledger=ledger,
            book=book,
            carrier=carrier,
            random=random,
            settings=settings,
            limit=max(1, slots // 2),
            slots=semaphore,
            spawn=lambda work: self._spawn(self._guarded(work)),
            is_stopping=self._stopping.is_set,
            on_room=lambda: self._upkeep.wake(),
            **everywhere,
        )
        self._upkeep = Upkeep(
            service=service,
            flow=flow,
            lock=lock,
            ledger=ledger,
            carrier=carrier,
            deferred=deferred,
            interval_s=self._settings.upkeep_interval_s,
            **everywhere,
        )
        self._work = RecordWork(
            service=service,
            flow=flow,
            lock=lock,
            slots=semaphore,
            carrier=carrier,
            book=book,
            upkeep=self._upkeep,
            random=random,
            settings=settings,
            is_stopping=self._stopping.is_set,
            **everywhere,
        )
        self._polling = Polling(
            consumer=consumer,
            flow=flow,
            lock=lock,
            settings=self._settings,
            wheel=settings.wheel,
            num_beside=lambda: deferred.num_working,
            **everywhere,
        )

    @property
    def is_ready(self) -> bool:
        """Whether this member has its share of the group's work and polls for it."""
        return self._polling.is_ready and not self._stopping.is_set()

    def stop(self) -> None:
        """Ask for a graceful stop; safe from any thread and from a signal handler."""
        self._stopping.set()

    @property
    def is_stopping(self) -> bool:
        """Whether a stop was asked for, or something has failed."""
        return self._stopping.is_set()

    async def run(self, polling: Callable[["Loop"], Awaitable[None]] | None = None) -> None:
        """Work until stopped.

        `polling` calls `poll_until_stopped` in a thread of its own, unless a simulation, which has
        no threads, brings another way to call `poll_once` until `is_stopping`.

        Raises:
            Exception: whatever the handler raised that means neither dead letter nor retry.
        """
        self._aio = asyncio.get_running_loop()
        chores = [asyncio.create_task(self._guarded(self._upkeep.run()))]
        chores += [asyncio.create_task(self._guarded(self._tick(t))) for t in self._handler.ticks]
        if polling is None:
            await asyncio.to_thread(self.poll_until_stopped)
        else:
            await polling(self)
        for task in chores:
            task.cancel()
        await asyncio.gather(*chores, return_exceptions=True)
        await self._drain()
        is_sound = self._failure is None
        await asyncio.to_thread(self._polling.leave, is_committing=is_sound)
        if self._failure is not None:
            raise self._failure
        await self._upkeep.close()

    # the polling thread

    def poll_until_stopped(self) -> None:
        """Poll for as long as the loop runs; the consumer belongs to the calling thread."""
        attempt = 0
        while not self._stopping.is_set():
            try:
                self.poll_once()
                attempt = 0
            except RetryLaterError as error:
                log.warning("polling is put off: %s", error)
                self._aio.call_soon_threadsafe(self._dependencies.note_shared, error)
                self._stopping.wait(self._pause_s(attempt))
                attempt += 1
            except Exception as error:  # the outcome table: what nobody knows stops the process
                self._fail(error)

    def poll_once(self) -> None:
        """Take in what has arrived, hold or release partitions, commit what is done.

        Raises:
            RetryLaterError: the broker cannot be reached.
        """
        polled = self._polling.poll()
        if polled.records or polled.is_unchecked or polled.has_heard:
            self._aio.call_soon_threadsafe(self._take, polled)
        if self._polling.commit():
            self._aio.call_soon_threadsafe(self._dependencies.succeeded, BROKER)
        self._polling.show_lag()

    def _pause_s(self, attempt: int) -> float:
        base_s, cap_s = self._settings.backoff_base_s, self._settings.backoff_cap_s
        return retry_pause_s(attempt, base_s=base_s, cap_s=cap_s, jitter=self._random.random())

    # asyncio

    def _take(self, polled: Polled) -> None:
        if polled.has_heard:
            self._dependencies.hear_broker()
        if polled.is_unchecked:
            self._upkeep.wake()
        for ticket, message in polled.records:
            self._spawn(self._guarded(self._work.work(ticket, message)))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """Stop the loop if this fails in a way that nobody knows."""
        try:
            await work
        except StoppingError:
            return
        except Exception as error:  # the outcome table: what nobody knows stops the process
            self._fail(error)

    async def _tick(self, tick: Tick) -> None:
        while True:
            await self._clock.sleep(tick.interval_s)
            try:
                events = await tick.run()
                await self._publisher.publish_acceptable(events)
                tick.on_published(events)
            except RetryLaterError as error:
                self._dependencies.note_shared(error)
                log.warning("%s is put off: %s", tick.name, error)

    async def _drain(self) -> None:
        """Let what is in work end, for as long as a stop may take; the rest comes again.

        What only waits for its next try is not waited for, nor is anything after a failure.
        """
        idle = self._tasks if self._failure is not None else self._work.resting
        for task in tuple(idle):
            task.cancel()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=self._settings.drain_timeout_s)
            for task in late:
                task.cancel()

    def _fail(self, error: BaseException) -> None:
        log.error("stops without committing: %s", error, exc_info=error)
        self._failure = self._failure or error
        self._stopping.set()
