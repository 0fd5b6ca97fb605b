"""The thin shell around `Flow`: one thread that polls, asyncio that works, batches that publish."""

import asyncio
import logging
import math
import threading
from collections.abc import Sequence

from deltawheel.contracts.clock import Clock, Random
from deltawheel.contracts.errors import InvalidRecordError, RetryLaterError
from deltawheel.contracts.events import InboundMessage, OutboundMessage, decode, encode
from deltawheel.contracts.ports import Consumer, Producer, Telemetry, TopicPartition
from deltawheel.contracts.record import Record
from deltawheel.contracts.settings import Settings
from deltawheel.services.runtime.batching import MicroBatcher
from deltawheel.services.runtime.dead_letters import DeadLetterLedger, as_message, make_letter
from deltawheel.services.runtime.flow import Flow, Ticket, retry_pause_s
from deltawheel.services.runtime.handler import Handler, Tick
from deltawheel.services.runtime.offload import offload

__all__ = ["Loop"]

log = logging.getLogger("deltawheel.runtime")

_PUBLISH_WAIT_S = 0.005
_PUBLISH_MAX = 1_000
_LAG_EVERY_S = 2.0
_FETCH_AHEAD = 2
_POLLED_OF_LATE_S = 10.0


class _StoppingError(Exception):
    """The loop stops: the record stays uncommitted and comes again."""


class Loop:
    """Runs one handler over one consumer until stopped.

    For each record: effects in the store, then events acknowledged, then the offset. A crash
    between any two of them repeats the record, which finds its effects.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        consumer: Consumer,
        producer: Producer,
        ledger: DeadLetterLedger,
        clock: Clock,
        random: Random,
        telemetry: Telemetry,
        settings: Settings,
    ) -> None:
        self._handler = handler
        self._consumer = consumer
        self._producer = producer
        self._ledger = ledger
        self._clock = clock
        self._random = random
        self._telemetry = telemetry
        self._wheel = settings.wheel
        self._settings = settings.runtime
        self._max_message_bytes = settings.broker.max_message_bytes
        self._flow = Flow(limit=_FETCH_AHEAD * handler.concurrency)
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._failure: BaseException | None = None
        self._ready_until_s = -math.inf
        self._paused: frozenset[TopicPartition] = frozenset()
        self._tasks: set[asyncio.Task[None]] = set()
        self._resting: set[asyncio.Task[None]] = set()
        self._next_lag_s = 0.0
        self._shown: frozenset[TopicPartition] = frozenset()

    @property
    def is_ready(self) -> bool:
        """Whether this member has its share of the group's work and polls for it.

        A member that the group gives nothing, having more members than partitions, is ready too.
        """
        is_polling = self._clock.monotonic() < self._ready_until_s
        return is_polling and not self._stopping.is_set()

    def stop(self) -> None:
        """Ask for a graceful stop; safe from any thread and from a signal handler."""
        self._stopping.set()

    async def run(self) -> None:
        """Work until stopped.

        Raises:
            Exception: whatever the handler raised that means neither dead letter nor retry.
        """
        self._aio = asyncio.get_running_loop()
        self._slots = asyncio.Semaphore(self._handler.concurrency)
        self._publish: MicroBatcher[Sequence[OutboundMessage], None] = MicroBatcher(
            self._publish_batch,
            max_items=_PUBLISH_MAX,
            max_wait_s=_PUBLISH_WAIT_S,
            clock=self._clock,
        )
        ticks = [asyncio.create_task(self._tick(tick)) for tick in self._handler.ticks]
        poller = asyncio.create_task(asyncio.to_thread(self._poll_until_stopped))
        await poller
        for task in ticks:
            task.cancel()
        await self._drain()
        await asyncio.to_thread(self._leave)
        if self._failure is not None:
            raise self._failure

    # the polling thread: the only one that touches the consumer

    def _poll_until_stopped(self) -> None:
        attempt = 0
        while not self._stopping.is_set():
            try:
                self._poll_once()
                attempt = 0
            except RetryLaterError as error:
                log.warning("polling is put off: %s", error)
                self._stopping.wait(self._pause_s(attempt, error))
                attempt += 1
            except Exception as error:  # the outcome table: what nobody knows stops the process
                self._fail(error)

    def _poll_once(self) -> None:
        messages = self._consumer.poll(self._settings.poll_timeout_s)
        held = self._consumer.assigned()
        ready_for_s = _POLLED_OF_LATE_S + self._settings.poll_timeout_s
        self._ready_until_s = (
            self._clock.monotonic() + ready_for_s if self._consumer.has_joined() else -math.inf
        )
        with self._lock:
            self._flow.assign(held)
            begun = [(self._begin(message), message) for message in messages]
            should_pause = self._flow.should_pause()
            self._telemetry.set("deltawheel_in_flight_records", self._flow.num_in_flight)
        for ticket, message in begun:
            if ticket is not None:
                self._aio.call_soon_threadsafe(self._start, ticket, message)
        self._hold(held if should_pause else frozenset())
        self._commit()
        self._show_lag()

    def _begin(self, message: InboundMessage) -> Ticket | None:
        return self._flow.begin(TopicPartition(message.topic, message.partition), message.offset)

    def _hold(self, wanted: frozenset[TopicPartition]) -> None:
        held = self._consumer.assigned()
        if pause := wanted - self._paused:
            self._consumer.pause(pause & held)
        if resume := (self._paused - wanted) & held:
            self._consumer.resume(resume)
        self._paused = wanted
        self._telemetry.set("deltawheel_paused_partitions", len(wanted))

    def _commit(self) -> None:
        with self._lock:
            offsets = self._flow.commits()
        if offsets:
            self._consumer.commit(offsets)
            with self._lock:
                self._flow.committed(offsets)

    def _show_lag(self) -> None:
        now_s = self._clock.monotonic()
        if now_s < self._next_lag_s:
            return
        self._next_lag_s = now_s + _LAG_EVERY_S
        lags = self._consumer.lag()
        gone = dict.fromkeys(self._shown - lags.keys(), 0)
        for name, lag in (*gone.items(), *lags.items()):
            self._telemetry.set(
                "deltawheel_lag_records",
                lag,
                topic=self._short(name.topic),
                partition=str(name.partition),
            )
        self._shown = frozenset(lags)

    def _leave(self) -> None:
        try:
            if self._failure is None:
                self._commit()
        except RetryLaterError as error:
            log.warning("the last offsets are not committed, their records come again: %s", error)
        try:
            self._consumer.close()
        except RetryLaterError as error:
            log.warning("the group is left without a word: %s", error)

    # asyncio: the work

    def _start(self, ticket: Ticket, message: InboundMessage) -> None:
        task = asyncio.create_task(self._work(ticket, message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self, ticket: Ticket, message: InboundMessage) -> None:
        topic = self._short(message.topic)
        started_s = self._clock.monotonic()
        try:
            result = await self._carry_through(ticket, message, topic)
        except (_StoppingError, asyncio.CancelledError):
            return
        except Exception as error:  # the outcome table: what nobody knows stops the process
            self._fail(error)
            return
        with self._lock:
            self._flow.finish(ticket)
        self._telemetry.count("deltawheel_records_total", topic=topic, result=result)
        past_s = self._clock.monotonic() - started_s
        self._telemetry.observe("deltawheel_handling_seconds", past_s, topic=topic)

    async def _carry_through(self, ticket: Ticket, message: InboundMessage, topic: str) -> str:
        """Try until the record is done or a dead letter; return which."""
        attempt = 0
        while True:
            if self._stopping.is_set() or not self._flow.is_current(ticket):
                raise _StoppingError
            try:
                async with self._slots:
                    if self._stopping.is_set():
                        raise _StoppingError
                    return await self._attempt(message)
            except RetryLaterError as error:
                self._telemetry.count("deltawheel_retries_total", topic=topic)
                if attempt % 10 == 0:
                    log.info("%s:%d is put off: %s", message.topic, message.offset, error)
                await self._back_off(attempt, error)
                attempt += 1

    async def _attempt(self, message: InboundMessage) -> str:
        record: Record | None = None
        try:
            record = decode(message, wheel=self._wheel)
            events = await self._handler.handle(record)
        except InvalidRecordError as error:
            await self._bury(message, record, error)
            return "dead_letter"
        await self._publish_events(events)
        return "done"

    async def _bury(
        self, message: InboundMessage, record: Record | None, error: InvalidRecordError
    ) -> None:
        """Store the dead letter with the slot end that it causes, then publish what is stored."""
        at = self._clock.now()
        letter = make_letter(message, record, error, service=self._handler.name, at=at)
        caused = (
            await offload(self._handler.slot_end, record, str(error), at)
            if record is not None
            else None
        )
        end = await offload(self._ledger.add_dead_letter, letter, caused)
        log.warning("%s:%d is a dead letter: %s", message.topic, message.offset, error)
        buried = as_message(letter, wheel=self._wheel, max_bytes=self._max_message_bytes)
        await self._publish([buried])
        if end is not None:
            await self._publish_events([end])

    async def _back_off(self, attempt: int, error: RetryLaterError) -> None:
        task = asyncio.current_task()
        assert task is not None, "only records' own tasks back off"
        self._resting.add(task)
        try:
            await self._clock.sleep(self._pause_s(attempt, error))
        finally:
            self._resting.discard(task)

    def _pause_s(self, attempt: int, error: RetryLaterError) -> float:
        return retry_pause_s(
            attempt,
            base_s=self._settings.backoff_base_s,
            cap_s=self._settings.backoff_cap_s,
            jitter=self._random.random(),
            at_least_s=error.retry_after_s,
        )

    def _short(self, topic: str) -> str:
        return topic.removeprefix(f"{self._wheel}.")

    async def _publish_events(self, events: Sequence[Record]) -> None:
        if events:
            await self._publish(
                [encode(event, wheel=self._wheel, service=self._handler.name) for event in events]
            )

    async def _publish_batch(self, batch: Sequence[Sequence[OutboundMessage]]) -> Sequence[None]:
        messages = [message for part in batch for message in part]
        await offload(self._producer.publish, messages)
        for message in messages:
            topic = self._short(message.topic)
            self._telemetry.count("deltawheel_events_published_total", topic=topic)
        return [None] * len(batch)

    async def _tick(self, tick: Tick) -> None:
        while True:
            await self._clock.sleep(tick.interval_s)
            try:
                events = await tick.run()
                await self._publish_events(events)
                tick.on_published(events)
            except RetryLaterError as error:
                log.warning("%s is put off: %s", tick.name, error)
            except Exception as error:  # the outcome table: what nobody knows stops the process
                self._fail(error)
                return

    async def _drain(self) -> None:
        """Let what is in work end, for as long as a stop may take; the rest comes again.

        What only waits for its next try is not waited for, nor is anything after a failure.
        """
        for task in self._tasks if self._failure is not None else self._resting:
            task.cancel()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=self._settings.drain_timeout_s)
            for task in late:
                task.cancel()

    def _fail(self, error: BaseException) -> None:
        log.error("stops without committing: %s", error, exc_info=error)
        self._failure = self._failure or error
        self._stopping.set()
