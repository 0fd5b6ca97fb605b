"""The work on one record of a topic: tried until it is done, deferred or a dead letter."""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from deltawheel.contracts.clock import Clock, Random
from deltawheel.contracts.errors import STORE, RetryLaterError
from deltawheel.contracts.events import InboundMessage, decode
from deltawheel.contracts.ports import Telemetry
from deltawheel.contracts.settings import Settings
from deltawheel.services.runtime.backoff import retry_pause_s
from deltawheel.services.runtime.carrier import Carrier, RefusedError
from deltawheel.services.runtime.deferral import Patience, deferral_of
from deltawheel.services.runtime.deferral_book import DeferralBook
from deltawheel.services.runtime.dependencies import SHARED, Dependencies
from deltawheel.services.runtime.flow import Flow, Ticket
from deltawheel.services.runtime.upkeep import Upkeep

__all__ = ["RecordWork", "StoppingError"]

log = logging.getLogger("deltawheel.runtime")

_SAY_EVERY_S: Final = 5.0


class StoppingError(Exception):
    """The loop stops, or the partition is gone: the record stays uncommitted and comes again."""


@dataclass(slots=True, kw_only=True)
class RecordWork:
    """Carries records of topics through, whatever the world does meanwhile.

    `resting` holds the tasks that only wait, so that a stop need not wait for them.
    """

    service: str
    flow: Flow
    lock: threading.Lock
    slots: asyncio.Semaphore
    carrier: Carrier
    book: DeferralBook
    upkeep: Upkeep
    dependencies: Dependencies
    clock: Clock
    random: Random
    telemetry: Telemetry
    settings: Settings
    is_stopping: Callable[[], bool]
    resting: set[asyncio.Task[None]] = field(default_factory=set, init=False)
    _num_done: int = field(default=0, init=False)
    _next_said_s: float = field(default=0.0, init=False)

    async def work(self, ticket: Ticket, message: InboundMessage) -> None:
        """Return when the record's offset may be committed.

        Raises:
            StoppingError: it may not, because the loop stops.
        """
        topic = message.topic.removeprefix(f"{self.settings.wheel}.")
        started_s = self.clock.monotonic()
        result = await self._carry_through(ticket, message, topic)
        with self.lock:
            self.flow.finish(ticket, is_done=result == "done")
        self.telemetry.count("deltawheel_records_total", topic=topic, result=result)
        past_s = self.clock.monotonic() - started_s
        self.telemetry.observe("deltawheel_handling_seconds", past_s, topic=topic)

    async def _carry_through(self, ticket: Ticket, message: InboundMessage, topic: str) -> str:
        patience = Patience()
        while True:
            await self._pass_gates(ticket)
            try:
                if result := await self._try(ticket, message):
                    return result
            except RetryLaterError as error:
                self.telemetry.count("deltawheel_retries_total", topic=topic)
                if self._should_defer(patience, error) and await self._defer(
                    message, error, patience.num_tries
                ):
                    return "deferred"
                self._say_put_off(message, error)
                await self._rest(self._pause_s(patience.num_tries - 1, error))

    async def _pass_gates(self, ticket: Ticket) -> None:
        """Wait while the partition is held back, or what everybody needs is down."""
        while True:
            if self.is_stopping() or not self.flow.is_current(ticket):
                raise StoppingError
            if self.flow.is_held_back(ticket):
                await self._resting(self.upkeep.halts_changed())
            elif wait_s := self.dependencies.wait_s(*SHARED):
                spread_s = self.settings.runtime.backoff_base_s * self.random.random()
                await self._rest(wait_s + spread_s)
            else:
                return

    async def _try(self, ticket: Ticket, message: InboundMessage) -> str | None:
        """Have one go, unless the world has changed while waiting for a place to work at."""
        async with self.slots:
            if self.is_stopping():
                raise StoppingError
            if self.flow.is_held_back(ticket) or not self.dependencies.enter():
                return None
            try:
                return await self._attempt(ticket, message)
            except RetryLaterError as error:
                self.dependencies.note_shared(error)
                raise
            finally:
                self.dependencies.leave()

    async def _attempt(self, ticket: Ticket, message: InboundMessage) -> str | None:
        """Return what became of the record; None if its partition is halted by it, and it waits."""
        try:
            await self.carrier.carry(message)
        except RefusedError as refused:
            if await self.carrier.is_known(refused) and not self._may_refuse(ticket, refused):
                return None
            await self.carrier.bury(message, refused)
            return "dead_letter"
        self._num_done += 1
        self.dependencies.succeeded(STORE)
        return "done"

    def _may_refuse(self, ticket: Ticket, refused: RefusedError) -> bool:
        with self.lock:
            may = self.flow.refuse(ticket, str(refused))
        if not may:
            self.upkeep.wake()
        return may

    def _should_defer(self, patience: Patience, error: RetryLaterError) -> bool:
        """Whether the record is to make way: others succeed at what it fails at, or do without.

        While nothing at all can be done, nothing is deferred: it waits where it is.
        """
        breaker = self.dependencies.breakers.find(error.dependency)
        patience.fail(error.dependency, breaker.num_successes if breaker else self._num_done)
        if self.dependencies.blocked_s() is not None:
            return False
        if breaker is not None and breaker.is_open:
            return True
        return patience.num_own_failures >= self.settings.runtime.defer_after_tries

    async def _defer(self, message: InboundMessage, error: RetryLaterError, num_tries: int) -> bool:
        """Put the record into the store; False if that cannot be reached either."""
        deferral = deferral_of(
            message,
            decode(message, wheel=self.settings.wheel),
            error,
            service=self.service,
            num_tries=num_tries,
            at=self.clock.now(),
            settings=self.settings.runtime,
            is_down=self.dependencies.is_down(error.dependency),
            jitter=self.random.random(),
        )
        try:
            await self.book.add(deferral)
        except RetryLaterError as store_error:
            self.dependencies.note_shared(store_error)
            return False
        self._say_put_off(message, error)
        return True

    def _say_put_off(self, message: InboundMessage, error: RetryLaterError) -> None:
        """Log some of what is put off: in an outage it is everything, again and again."""
        if (now_s := self.clock.monotonic()) >= self._next_said_s:
            self._next_said_s = now_s + _SAY_EVERY_S
            log.info("%s:%d is put off: %s", message.topic, message.offset, error)

    async def _rest(self, pause_s: float) -> None:
        if self.is_stopping():
            raise StoppingError
        await self._resting(self.dependencies.rest(pause_s))

    async def _resting(self, waiting: Awaitable[None]) -> None:
        task = asyncio.current_task()
        assert task is not None, "only records' own tasks rest"
        self.resting.add(task)
        try:
            await waiting
        finally:
            self.resting.discard(task)

    def _pause_s(self, attempt: int, error: RetryLaterError) -> float:
        return retry_pause_s(
            attempt,
            base_s=self.settings.runtime.backoff_base_s,
            cap_s=self.settings.runtime.backoff_cap_s,
            jitter=self.random.random(),
            at_least_s=error.retry_after_s,
        )
