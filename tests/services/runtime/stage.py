"""The loop on a stage: a bus in memory, a ledger in memory, and a handler that does as told."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from deltawheel.contracts.errors import InvalidRecordError, RetryLaterError
from deltawheel.contracts.events import InboundMessage, OutboundMessage, decode, encode
from deltawheel.contracts.judgement import SlotFailed
from deltawheel.contracts.ports import TopicPartition
from deltawheel.contracts.prompt import Prompt
from deltawheel.contracts.record import Record
from deltawheel.contracts.settings import RuntimeSettings, Settings
from deltawheel.contracts.topics import Topic
from deltawheel.infra.clock import SystemClock, SystemRandom
from deltawheel.infra.memory_bus import MemoryBus, MemoryConsumer, MemoryProducer
from deltawheel.infra.telemetry import PrometheusTelemetry
from deltawheel.services.runtime.dependencies import Dependencies
from deltawheel.services.runtime.handler import Tick
from deltawheel.services.runtime.loop import Loop
from tests.records import WHEEL, a_trace, an_assignment
from tests.services.runtime.ledgers import FakeLedger

PROMPTS, TRACES = Topic.PROMPTS.of(WHEEL), Topic.TRACES.of(WHEEL)
SETTINGS = Settings(
    wheel=WHEEL,
    runtime=RuntimeSettings(
        poll_timeout_s=0.01,
        backoff_base_s=0.01,
        backoff_cap_s=0.05,
        drain_timeout_s=5,
        upkeep_interval_s=0.01,
        breaker_failures=3,
        breaker_base_s=0.01,
        breaker_cap_s=0.05,
        defer_after_tries=3,
        defer_base_s=0.01,
        defer_cap_s=0.05,
        halt_after_refusals=3,
    ),
)


def with_runtime(**changes: object) -> Settings:
    return SETTINGS.model_copy(
        update={"runtime": SETTINGS.runtime.model_copy(update=dict(changes))}
    )


async def as_trace(record: Record) -> Sequence[Record]:
    assert isinstance(record, Prompt)
    return [a_trace(an_assignment(record))]


@dataclass
class Deeds:
    """What was done, in order."""

    done: list[str] = field(default_factory=list)


@dataclass
class RecordingConsumer:
    """A member of a group in memory, whose commits are written down.

    `before_poll` runs in the thread that polls: what swaps `inner` must not do so beside a poll.
    """

    inner: MemoryConsumer
    deeds: Deeds
    before_poll: Callable[[], None] = lambda: None
    as_polled: Callable[[InboundMessage], InboundMessage] = lambda message: message
    num_failing_polls: int = 0
    has_fallen_out: bool = False
    was_closed: bool = False

    def poll(self, timeout_s: float) -> Sequence[InboundMessage]:
        self.before_poll()
        if self.num_failing_polls:
            self.num_failing_polls -= 1
            raise RetryLaterError("no broker")
        return [self.as_polled(message) for message in self.inner.poll(timeout_s)]

    def assigned(self) -> frozenset[TopicPartition]:
        return self.inner.assigned()

    def has_joined(self) -> bool:
        return self.inner.has_joined() and not self.has_fallen_out

    def pause(self, partitions: frozenset[TopicPartition]) -> None:
        self.deeds.done.append("pause")
        self.inner.pause(partitions)

    def resume(self, partitions: frozenset[TopicPartition]) -> None:
        self.deeds.done.append("resume")
        self.inner.resume(partitions)

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        self.inner.commit(offsets)
        self.deeds.done += [f"commit {offset}" for offset in offsets.values()]

    def lag(self) -> Mapping[TopicPartition, int]:
        return self.inner.lag()

    def close(self) -> None:
        self.was_closed = True
        self.inner.close()


@dataclass
class RecordingProducer:
    """A producer in memory, whose messages are written down; longer values it does not take."""

    inner: MemoryProducer
    deeds: Deeds
    num_failures: int = 0
    max_bytes: int = 4_000_000

    def publish(self, messages: Sequence[OutboundMessage]) -> None:
        if self.num_failures:
            self.num_failures -= 1
            raise RetryLaterError("not acknowledged")
        if any(len(message.value or b"") > self.max_bytes for message in messages):
            raise InvalidRecordError("too large: raise broker.max_message_bytes")
        self.inner.publish(messages)
        self.deeds.done += [f"publish {message.topic}" for message in messages]

    def close(self) -> None:
        self.deeds.done.append("producer closed")


@dataclass
class FakeHandler:
    """Does what a test says."""

    work: Callable[[Record], Awaitable[Sequence[Record]]] = as_trace
    name: str = "generation"
    topics: tuple[Topic, ...] = (Topic.PROMPTS,)
    concurrency: int = 4
    ticks: Sequence[Tick] = ()
    end: SlotFailed | None = None
    slot_end_threads: list[threading.Thread] = field(default_factory=list)

    async def handle(self, record: Record) -> Sequence[Record]:
        return await self.work(record)

    def slot_ends(self, record: Record, reason: str, at: datetime) -> Sequence[SlotFailed]:
        self.slot_end_threads.append(threading.current_thread())
        return () if self.end is None else (self.end,)


class ShiftedClock(SystemClock):
    """The machine's clock, which a test can put ahead."""

    ahead_s: float = 0.0
    calendar_ahead: timedelta = timedelta(0)

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead_s

    def now(self) -> datetime:
        return super().now() + self.calendar_ahead


class Stage:
    """A loop between a bus in memory and a ledger."""

    def __init__(
        self,
        handler: FakeHandler,
        settings: Settings = SETTINGS,
        *,
        partitions: int = 1,
        after: "Stage | None" = None,
    ) -> None:
        """Set it up; `after` an earlier one, with the bus and the ledger that it has left."""
        self.bus: MemoryBus = after.bus if after else MemoryBus(wheel=WHEEL, partitions=partitions)
        self.deeds = Deeds()
        self.letters: FakeLedger = after.letters if after else FakeLedger(self.deeds.done)
        self.consumer = RecordingConsumer(self.join(), self.deeds)
        self.producer = RecordingProducer(self.bus.producer(), self.deeds)
        self.telemetry = PrometheusTelemetry()
        self.clock = ShiftedClock()
        self.handler = handler
        self.settings = settings
        self.dependencies = Dependencies(
            clock=self.clock,
            random=SystemRandom(0),
            telemetry=self.telemetry,
            settings=settings.runtime,
        )
        self.loop = Loop(
            handler,
            consumer=self.consumer,
            producer=self.producer,
            ledger=self.letters,
            clock=self.clock,
            random=SystemRandom(0),
            telemetry=self.telemetry,
            settings=settings,
            dependencies=self.dependencies,
        )

    def join(self) -> MemoryConsumer:
        return self.bus.consumer(group="generation", topics=[PROMPTS])

    def send(self, *records: Record) -> None:
        self.bus.producer().publish(
            [encode(record, wheel=WHEEL, service="gateway") for record in records]
        )

    def send_raw(self, value: bytes, *, headers: tuple[tuple[str, bytes], ...] = ()) -> None:
        message = OutboundMessage(topic=PROMPTS, key=b"some key", value=value, headers=headers)
        self.bus.producer().publish([message])

    @property
    def committed(self) -> int | None:
        return self.bus.committed("generation").get(TopicPartition(PROMPTS, 0))

    @property
    def published(self) -> list[Record]:
        return [decode(message, wheel=WHEEL) for message in self.bus.messages(TRACES)]

    def metric(self, name: str, **labels: str) -> float | None:
        return self.telemetry.registry.get_sample_value(name, labels)

    async def run_until(self, is_reached: Callable[[], bool]) -> None:
        running = asyncio.create_task(self.loop.run())
        await self.until(lambda: is_reached() or running.done())
        self.loop.stop()
        await running

    async def until(self, is_reached: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not is_reached():
                await asyncio.sleep(0.005)
