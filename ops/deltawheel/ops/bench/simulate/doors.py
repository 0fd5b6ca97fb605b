"""Ports as a process of the simulation sees them: every call may fail, and may be its last.

They wrap whatever the ports have, by name, so that a method added to a port is at risk as well.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from deltawheel.contracts.errors import BROKER, STORE, RetryLaterError
from deltawheel.contracts.events import InboundMessage, OutboundMessage
from deltawheel.contracts.failpoints import Failpoint
from deltawheel.contracts.ports import Consumer, Producer, TopicPartition
from deltawheel.contracts.store import Store
from deltawheel.ops.bench.simulate.plan import Fault, Side
from deltawheel.ops.bench.simulate.process import KilledError, Process

__all__ = ["READS", "ConsumerDoor", "FailpointsDoor", "ProducerDoor", "name_of", "store_door"]

READS: Final = frozenset(
    {
        "anchor_baseline",
        "anchor_runs",
        "backlogs",
        "count_pairs",
        "cycle",
        "cycles",
        "dead_letters",
        "dead_values",
        "delta_stats",
        "evidence",
        "expired",
        "find_entries",
        "group",
        "groups",
        "halts",
        "has_open_slots",
        "held_events",
        "holds",
        "interruption",
        "is_leased",
        "judge_drift",
        "judging_states",
        "judged_work",
        "jury_judgements",
        "known_scores",
        "letter_entries",
        "letters_by_id",
        "member_tokens",
        "newest_anchor_run",
        "newest_calibration",
        "newest_judgements",
        "next_attempts",
        "open_cycles",
        "outages",
        "owed",
        "pair",
        "pair_yield",
        "pairs",
        "pairs_by_id",
        "pool_log",
        "probes",
        "progress",
        "promotions",
        "quarantined",
        "quarantined_by_id",
        "ranked_pairs",
        "snapshot",
        "standstill",
        "stored_pairs",
        "trace",
        "unsent_letters",
    }
)
"""The store's methods that have no effect; every other one is a place to die at."""


class StoreDoor:
    """The store as one process reaches it."""

    def __init__(self, store: Store, process: Process) -> None:
        self._store = store
        self._process = process

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any method of the port
        method = getattr(self._store, name)
        if not callable(method):
            return method
        door = self._reading(name, method) if name in READS else self._writing(name, method)
        setattr(self, name, door)
        return door

    def close(self) -> None:
        """The database outlives its processes."""

    def _reading(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def read(*args: Any, **options: Any) -> Any:  # noqa: ANN401
            self._check(name)
            return method(*args, **options)

        return read

    def _writing(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        process, weather = self._process, self._process.weather

        def write(*args: Any, **options: Any) -> Any:  # noqa: ANN401
            self._check(name)
            return process.perform(
                name,
                lambda: method(*args, **options),
                lost=lambda: weather.strikes(Fault.STORE_BUSY, weight=0.3),
            )

        return write

    def _check(self, name: str) -> None:
        self._process.check()
        weather = self._process.weather
        if weather.is_store_down or weather.strikes(Fault.STORE_BUSY):
            state = "down" if weather.is_store_down else "busy"
            self._process.trace.note(self._process.name, f"store {state}: {name}")
            raise RetryLaterError("the store is busy", dependency=STORE)


def store_door(store: Store, process: Process) -> Store:
    """Give a process its way to the store."""
    door: Any = StoreDoor(store, process)
    granted: Store = door
    return granted


class ProducerDoor:
    """The producer as one process has it."""

    def __init__(
        self,
        producer: Producer,
        process: Process,
        seen: Callable[[Sequence[OutboundMessage]], None],
    ) -> None:
        self._producer = producer
        self._process = process
        self._seen = seen

    def publish(self, messages: Sequence[OutboundMessage]) -> None:
        """Publish all of it, or some, or none, and tell the truth about it or lose the answer."""
        process, weather = self._process, self._process.weather
        process.check()
        if weather.strikes(Fault.BROKER_FLAKY):
            some = list(messages)[: weather.random.randrange(0, len(messages) + 1)]
            if some:
                process.perform(_publishing(some), lambda: self._send(some), lost=lambda: False)
            raise RetryLaterError("not every message was acknowledged", dependency=BROKER)
        process.perform(
            _publishing(messages),
            lambda: self._send(messages),
            lost=lambda: weather.strikes(Fault.BROKER_FLAKY),
        )

    def _send(self, messages: Sequence[OutboundMessage]) -> None:
        self._producer.publish(messages)
        self._seen(messages)

    def close(self) -> None:
        """Nothing is left to flush."""
        self._process.check()
        self._producer.close()


class ConsumerDoor:
    """The consumer as one process has it. A poll never waits: whoever drives the loop does."""

    def __init__(
        self,
        consumer: Consumer,
        process: Process,
        seen: Callable[[Sequence[InboundMessage]], None],
    ) -> None:
        self._consumer = consumer
        self._process = process
        self._seen = seen
        self.num_taken = 0

    def poll(self, timeout_s: float) -> Sequence[InboundMessage]:
        """Return what is there."""
        self._process.check()
        if self._process.weather.strikes(Fault.BROKER_FLAKY, weight=0.3):
            raise RetryLaterError("the broker did not answer the poll", dependency=BROKER)
        messages = self._consumer.poll(0.0)
        if messages:
            self.num_taken += len(messages)
            self._seen(messages)
            self._process.trace.note(self._process.name, f"takes {_places(messages)}")
        return messages

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Commit, unless the group has moved on."""
        process, weather = self._process, self._process.weather
        process.check()
        if weather.strikes(Fault.BROKER_FLAKY):
            raise RetryLaterError("the broker did not take the commit", dependency=BROKER)
        process.perform(
            f"commits {_offsets(offsets)}",
            lambda: self._commit(offsets),
            lost=lambda: weather.strikes(Fault.BROKER_FLAKY),
        )

    def _commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        is_member = self._consumer.has_joined()
        self._consumer.commit(offsets)
        if not is_member:
            self._process.trace.note(self._process.name, "is no member, and its commit is taken")

    def assigned(self) -> frozenset[TopicPartition]:
        """Return the partitions held."""
        self._process.check()
        return self._consumer.assigned()

    def has_joined(self) -> bool:
        """Whether the group has this member."""
        self._process.check()
        return self._consumer.has_joined()

    def pause(self, partitions: frozenset[TopicPartition]) -> None:
        """Stop fetching."""
        self._process.check()
        self._consumer.pause(partitions)

    def resume(self, partitions: frozenset[TopicPartition]) -> None:
        """Fetch again."""
        self._process.check()
        self._consumer.resume(partitions)

    def lag(self) -> Mapping[TopicPartition, int]:
        """Return what has not been polled."""
        self._process.check()
        return self._consumer.lag()

    def close(self) -> None:
        """Leave the group."""
        self._process.check()
        self._consumer.close()


class FailpointsDoor:
    """Failpoints, at each of which a process may die."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def reach(self, name: Failpoint, subject: str) -> None:
        """Die, or go on."""
        self.reach_blocking(name, subject)

    def reach_blocking(self, name: Failpoint, subject: str) -> None:
        """Die, or go on."""
        self._process.check()
        weather = self._process.weather
        if weather.crashes(weather.next_effect(), Side.BEFORE):
            self._process.die(f"at {name.value}")
            raise KilledError(self._process.name)


def _publishing(messages: Sequence[OutboundMessage]) -> str:
    return f"publishes {', '.join(map(name_of, messages))}"


def name_of(message: OutboundMessage) -> str:
    """Name a message in the trace: its topic, and the end of its event's id or of its key."""
    topic = message.topic.partition(".")[2]
    identity = dict(message.headers).get("ce_id", message.key or b"")
    return f"{topic}:{identity.decode(errors='replace')[-8:]}"


def _places(messages: Sequence[InboundMessage]) -> str:
    return ", ".join(f"{m.topic.partition('.')[2]}-{m.partition}:{m.offset}" for m in messages)


def _offsets(offsets: Mapping[TopicPartition, int]) -> str:
    ordered = sorted(offsets.items())
    return ", ".join(f"{p.topic.partition('.')[2]}-{p.partition}:{o}" for p, o in ordered)
