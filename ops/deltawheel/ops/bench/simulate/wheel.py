"""The whole wheel on one virtual machine: its services, each in lives that end and begin anew."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from typing import Any, Final

from deltawheel.contracts.clock import Random
from deltawheel.contracts.dead_letter import DeadLetter
from deltawheel.contracts.errors import RetryLaterError
from deltawheel.contracts.events import InboundMessage, OutboundMessage
from deltawheel.contracts.ports import Consumer, Producer
from deltawheel.contracts.settings import Settings
from deltawheel.contracts.store import Store
from deltawheel.contracts.topics import Topic
from deltawheel.infra import wiring
from deltawheel.infra.memory_bus import MemoryConsumer
from deltawheel.infra.simulated.store import SimulatedStore
from deltawheel.infra.simulated.virtual_time import VirtualClock, VirtualTimeLoop
from deltawheel.ops.bench.simulate.doors import (
    ConsumerDoor,
    FailpointsDoor,
    ProducerDoor,
    store_door,
)
from deltawheel.ops.bench.simulate.models import (
    Calls,
    SimulatedChecks,
    SimulatedJudge,
    SimulatedModels,
)
from deltawheel.ops.bench.simulate.nature import Nature
from deltawheel.ops.bench.simulate.plan import Plan
from deltawheel.ops.bench.simulate.process import Process
from deltawheel.ops.bench.simulate.services import LOOPS, QuietTelemetry, Surroundings
from deltawheel.ops.bench.simulate.tracing import Trace
from deltawheel.ops.bench.simulate.weather import Weather
from deltawheel.services.gateway.api import Gateway
from deltawheel.services.runtime.dependencies import Dependencies
from deltawheel.services.runtime.loop import Loop

__all__ = ["GATEWAY", "SERVICES", "Life", "Published", "SimulatedWheel", "Wrappers"]

GATEWAY: Final = "gateway"
SERVICES: Final = (GATEWAY, *LOOPS)
BEGAN_AT: Final = datetime(2026, 1, 1, tzinfo=UTC)
_AFTER_ALL: Final = BEGAN_AT + timedelta(days=10_000)
_ALL: Final = 100_000
_STAGE: Final = "__connect.errors.stage"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrappers:
    """What stands between a process and its ports besides; mutations put themselves here."""

    store: Callable[[Store, Process], Store] = lambda store, process: store
    producer: Callable[[Producer, Process], Producer] = lambda producer, process: producer
    consumer: Callable[[Consumer, Process], Consumer] = lambda consumer, process: consumer


@dataclass(slots=True)
class Published:
    """Every event that the broker ever took: by its id, with its bytes and when it came first."""

    now_s: Callable[[], float]
    payloads: dict[str, set[bytes]] = field(default_factory=dict)
    first_at_s: dict[str, float] = field(default_factory=dict)
    messages: list[OutboundMessage] = field(default_factory=list)
    letters: set[tuple[str, bytes]] = field(default_factory=set)
    """What lay on the topic of dead letters: which service gave up which value."""

    def add(self, messages: Sequence[OutboundMessage]) -> None:
        """Take note of what was published."""
        for message in messages:
            if message.topic.endswith(f".{Topic.DEAD_LETTERS.value}"):
                service = dict(message.headers)[_STAGE].decode()
                self.letters.add((service, message.value or b""))
            if (identity := dict(message.headers).get("ce_id")) is None:
                continue
            name = identity.decode()
            self.payloads.setdefault(name, set()).add(message.value or b"")
            self.first_at_s.setdefault(name, self.now_s())
            self.messages.append(message)


@dataclass(eq=False, slots=True)
class Life:
    """One life of a service: from its start to its death or its end."""

    service: str
    process: Process
    is_seated: bool
    loop: Loop | None = None
    task: asyncio.Task[None] | None = None
    consumer: MemoryConsumer | None = None
    gateway: Gateway | None = None

    def stop(self) -> None:
        """Ask for a graceful stop."""
        self.process.trace.note(self.process.name, "is stopped")
        if self.loop is None:
            self.process.end()
            return
        self.loop.stop()
        self.process.wake.set()


class SimulatedWheel:
    """Broker, store and services in memory.

    Each service has one seat, which the supervisor fills again after a pause. Lives beside it are
    second members, or zombies.
    """

    def __init__(
        self,
        loop: VirtualTimeLoop,
        *,
        plan: Plan,
        random: Random,
        store: SimulatedStore,
        settings: Settings,
        wrappers: Wrappers,
    ) -> None:
        self.aio = loop
        self.plan = plan
        self.store = store
        self.settings = settings
        self.bus = wiring.memory_bus(wheel=settings.wheel, partitions=plan.partitions)
        self.trace = Trace(loop.time)
        self.random = random
        self.weather = Weather(plan, random.seeded(random.token()))
        self.nature = Nature(random.token())
        self.chance = random.seeded(random.token())
        self.calls = Calls()
        self.published = Published(loop.time)
        self.lives: list[Life] = []
        self.failures: list[str] = []
        self.has_lost_broker = False
        self.num_redelivered = 0
        self._taken: set[tuple[str, str, int, int]] = set()
        self.is_supervised = True
        self._wrappers = wrappers
        self._numbers = count(1)

    def seat(self, service: str) -> Life | None:
        """Return the life in a service's seat, if there is one."""
        return next((it for it in self.lives if it.service == service and it.is_seated), None)

    def start(self, service: str, *, is_seated: bool = True) -> Life:
        """Start a service, in its seat or beside it."""
        life = Life(service, self.new_process(service, self.machine_clock()), is_seated)
        self.lives.append(life)
        if service == GATEWAY:
            self._open_gateway(life)
        else:
            self._run_loop(life)
        return life

    def new_process(self, service: str, clock: VirtualClock) -> Process:
        """Begin a life in which nothing runs yet."""
        name = f"{service}#{next(self._numbers)}"
        self.trace.note(name, "starts")
        return Process(name, self.aio, clock, self.trace, self.weather)

    def _open_gateway(self, life: Life) -> None:
        process = life.process
        life.gateway = Gateway(
            settings=self.settings,
            store=self.store_of(process),
            producer=self.producer_of(process),
            clock=process.clock,
            random=self.random,
            failpoints=FailpointsDoor(process),
        )
        process.at_death.append(partial(self._leave_seat, life))

    def _run_loop(self, life: Life) -> None:
        process, parts = life.process, self._surroundings(life.process)
        handler = LOOPS[life.service](parts)
        topics = [topic.of(self.settings.wheel) for topic in handler.topics]
        life.consumer = self.bus.consumer(group=life.service, topics=topics)
        door = ConsumerDoor(life.consumer, process, partial(self._note_taken, life.service))
        life.loop = Loop(
            handler,
            consumer=self._wrappers.consumer(door, process),
            producer=self.producer_of(process),
            ledger=parts.store,
            clock=process.clock,
            random=parts.random,
            telemetry=parts.telemetry,
            settings=self.settings,
            failpoints=parts.failpoints,
            dependencies=parts.dependencies,
        )
        process.at_death.append(partial(self._miss, life.consumer))
        life.task = process.spawn(
            life.loop.run(partial(self._drive, process, door, parts.dependencies))
        )
        life.task.add_done_callback(partial(self._end, life))

    def _surroundings(self, process: Process) -> Surroundings:
        told = {
            "nature": self.nature,
            "weather": self.weather,
            "random": self.chance,
            "calls": self.calls,
            "process": process,
        }
        random = self.random.seeded(self.random.token())
        telemetry = QuietTelemetry()
        return Surroundings(
            settings=self.settings,
            store=self.store_of(process),
            models=SimulatedModels(**told),  # type: ignore[arg-type]
            judge=SimulatedJudge(**told),  # type: ignore[arg-type]
            checks=SimulatedChecks(nature=self.nature, process=process),
            clock=process.clock,
            random=random,
            telemetry=telemetry,
            failpoints=FailpointsDoor(process),
            dependencies=Dependencies(
                clock=process.clock,
                random=random,
                telemetry=telemetry,
                settings=self.settings.runtime,
            ),
        )

    def store_of(self, process: Process) -> Store:
        """Return the store as a process reaches it."""
        return self._wrappers.store(store_door(self.store, process), process)

    def producer_of(self, process: Process) -> Producer:
        """Return a producer of a process's own."""
        door = ProducerDoor(self.bus.producer(), process, self.note_published)
        return self._wrappers.producer(door, process)

    def _note_taken(self, service: str, messages: Sequence[InboundMessage]) -> None:
        for message in messages:
            place = (service, message.topic, message.partition, message.offset)
            self.num_redelivered += place in self._taken
            self._taken.add(place)

    def unsent_letters(self) -> list[DeadLetter]:
        """Return the dead letters of which nobody has noted that the broker has them."""
        return [
            letter
            for service in LOOPS
            for letter in self.store.unsent_letters(service, before=_AFTER_ALL, limit=_ALL)
        ]

    def lose_broker(self) -> None:
        """Let the broker start afresh with nothing."""
        self.has_lost_broker = True
        self._taken.clear()
        self.bus.forget()

    def note_published(self, messages: Sequence[OutboundMessage]) -> None:
        """Remember what the broker has taken, and let whoever waits for it look soon."""
        self.published.add(messages)
        for life in self.lives:
            self.aio.call_later(0.05 * self.chance.random(), life.process.wake.set)

    async def _drive(
        self, process: Process, door: ConsumerDoor, dependencies: Dependencies, loop: Loop
    ) -> None:
        """Poll again and again, as a thread of its own does in a real process."""
        num_idle = 0
        while not loop.is_stopping:
            num_taken = door.num_taken
            try:
                loop.poll_once()
            except RetryLaterError as error:
                self.trace.note(process.name, f"polling is put off: {error}")
                dependencies.note_shared(error)
            num_idle = 0 if door.num_taken > num_taken else num_idle + 1
            longest_s = min(self.plan.longest_nap_s, 0.2 * 1.5**num_idle)
            await self._nap(process, longest_s * self.chance.random())

    async def _nap(self, process: Process, duration_s: float) -> None:
        thaw_s = process.frozen_until_s - self.aio.time()
        if thaw_s > 0:
            await asyncio.sleep(thaw_s)
        timer = self.aio.call_later(duration_s, process.wake.set)
        await process.wake.wait()
        process.wake.clear()
        timer.cancel()

    def _miss(self, consumer: MemoryConsumer) -> None:
        """Let the group notice that a member no longer answers, after its session's timeout."""
        timeout_s = self.settings.runtime.session_timeout_s
        self.aio.call_later(timeout_s * self.chance.random(), self.bus.expel, consumer)

    def _end(self, life: Life, task: asyncio.Task[Any]) -> None:
        if life.process.is_alive and not task.cancelled() and (error := task.exception()):
            self.failures.append(f"{life.process.name} stops: {type(error).__name__}: {error}")
            life.process.die("of an error")
        self.trace.note(life.process.name, "is gone")
        self._leave_seat(life)

    def _leave_seat(self, life: Life) -> None:
        self.lives.remove(life)
        if life.is_seated and self.is_supervised:
            pause_s = 0.2 + 3.0 * self.chance.random()
            self.aio.call_later(pause_s, self._fill_seat, life.service)

    def _fill_seat(self, service: str) -> None:
        if self.is_supervised and self.seat(service) is None:
            self.start(service)

    def machine_clock(self) -> VirtualClock:
        """Return a clock that is right."""
        return VirtualClock(self.aio, began_at=BEGAN_AT)

    def fill_seats(self) -> None:
        """Start every service that has nobody in its seat."""
        for service in SERVICES:
            self._fill_seat(service)
