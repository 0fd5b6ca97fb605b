"""A bus in memory with the contract of the real ones: for unit tests, and for simulations.

Topics are lists, groups share their partitions, and what a member took without committing goes to
another one when it leaves. `tests/infra/test_bus_contract.py` holds it to what brokers do.
"""

import threading
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from deltawheel.contracts.errors import BROKER, RetryLaterError
from deltawheel.contracts.events import InboundMessage, OutboundMessage
from deltawheel.contracts.ports import TopicPartition
from deltawheel.contracts.topics import Topic

__all__ = ["MemoryBus", "MemoryConsumer", "MemoryProducer"]

_POLL_MAX: Final = 500


@dataclass(slots=True)
class _Group:
    """The members of one group in the order in which they joined, and its committed offsets."""

    members: list["MemoryConsumer"] = field(default_factory=list)
    committed: dict[TopicPartition, int] = field(default_factory=dict)
    generation: int = 0


class MemoryBus:
    """The topics of one wheel. Safe to use from many threads.

    `is_down` plays an outage: while it is set, everything but closing raises `RetryLaterError`.
    `is_fencing` refuses the commits of members that the group has moved on from, as real brokers
    do; one that does not is harder on its clients than any real one.
    """

    def __init__(self, *, wheel: str, partitions: int = 4) -> None:
        self._num_partitions = partitions
        self._logs: dict[TopicPartition, list[InboundMessage]] = {
            TopicPartition(topic.of(wheel), index): []
            for topic in Topic
            for index in range(partitions)
        }
        self._groups: dict[str, _Group] = {}
        self._changed = threading.Condition()
        self.is_down = False
        self.is_fencing = True

    def consumer(self, *, group: str, topics: Sequence[str]) -> "MemoryConsumer":
        """Join a group; its members share out the partitions at their next poll."""
        return MemoryConsumer(self, group=group, topics=topics)

    def producer(self) -> "MemoryProducer":
        """Connect a producer."""
        return MemoryProducer(self)

    def messages(self, topic: str) -> list[InboundMessage]:
        """Return all that was published on a topic, by partition and offset."""
        with self._changed:
            return [
                message
                for name, log in self._logs.items()
                if name.topic == topic
                for message in log
            ]

    def committed(self, group: str) -> dict[TopicPartition, int]:
        """Return a group's committed offsets."""
        with self._changed:
            return dict(self._groups[group].committed) if group in self._groups else {}

    def ends(self) -> dict[TopicPartition, int]:
        """Return the offset behind the last record of each partition."""
        with self._changed:
            return {name: len(log) for name, log in self._logs.items()}

    def expel(self, member: "MemoryConsumer") -> None:
        """Declare a member dead, as after its session's timeout; it joins anew if it polls."""
        with self._changed:
            member._leave()

    def forget(self) -> None:
        """Lose every record and every offset, as a broker that keeps them in memory and restarts.

        Members that go on polling begin anew, with the records that come from now on.
        """
        with self._changed:
            for log in self._logs.values():
                log.clear()
            for group in self._groups.values():
                group.committed.clear()
                group.generation += 1
                for member in group.members:
                    member._positions = {}

    def _check_up(self) -> None:
        if self.is_down:
            raise RetryLaterError(
                "the broker in memory does not answer: it was told to be down", dependency=BROKER
            )

    def _append(self, message: OutboundMessage) -> None:
        if message.key is None and message.value is None:
            raise ValueError("a message needs a key or a value")
        # Not the hash that real clients use, but like it: one key, one partition.
        partition = TopicPartition(
            message.topic, zlib.crc32(message.key or b"") % self._num_partitions
        )
        if partition not in self._logs:
            raise RetryLaterError(f"the broker in memory has no topic {message.topic!r}")
        log = self._logs[partition]
        log.append(
            InboundMessage(
                topic=message.topic,
                partition=partition.partition,
                offset=len(log),
                key=message.key,
                value=message.value,
                headers=message.headers,
            )
        )


class MemoryConsumer:
    """One member of a consumer group; see `contracts.ports.Consumer`."""

    def __init__(self, bus: MemoryBus, *, group: str, topics: Sequence[str]) -> None:
        self._bus = bus
        self._topics = tuple(topics)
        self._generation = -1
        self._positions: dict[TopicPartition, int] = {}
        self._paused: frozenset[TopicPartition] = frozenset()
        with bus._changed:
            self._group = bus._groups.setdefault(group, _Group())
            self._group.members.append(self)
            self._group.generation += 1

    def poll(self, timeout_s: float) -> Sequence[InboundMessage]:
        """Return what has arrived, in order within each partition."""
        deadline_s = time.monotonic() + timeout_s
        with self._bus._changed:
            while True:
                self._bus._check_up()
                self._rejoin()
                left_s = deadline_s - time.monotonic()
                if (found := self._take()) or left_s <= 0:
                    return found
                self._bus._changed.wait(left_s)

    def assigned(self) -> frozenset[TopicPartition]:
        """Return the partitions that this member holds since its last poll."""
        return frozenset(self._positions)

    def has_joined(self) -> bool:
        """Whether a poll has given this member its share."""
        with self._bus._changed:
            return self._generation >= 0 and self in self._group.members

    def pause(self, partitions: frozenset[TopicPartition]) -> None:
        """Stop fetching from these partitions."""
        self._paused |= partitions

    def resume(self, partitions: frozenset[TopicPartition]) -> None:
        """Fetch from these partitions again."""
        self._paused -= partitions

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Commit exactly these offsets."""
        with self._bus._changed:
            self._bus._check_up()
            if self._generation != self._group.generation and self._bus.is_fencing:
                raise RetryLaterError("the group shares out its partitions anew: poll first")
            self._group.committed.update(offsets)

    def lag(self) -> Mapping[TopicPartition, int]:
        """Return how many records of each assigned partition have not been polled yet."""
        with self._bus._changed:
            return {
                name: len(self._bus._logs[name]) - position
                for name, position in self._positions.items()
            }

    def close(self) -> None:
        """Leave the group, without committing."""
        with self._bus._changed:
            self._leave()

    def _leave(self) -> None:
        if self in self._group.members:
            self._group.members.remove(self)
            self._group.generation += 1
            self._bus._changed.notify_all()
        self._positions = {}

    def _rejoin(self) -> None:
        """Take the share of the group's present generation; what is kept keeps its position."""
        if self not in self._group.members:
            self._group.members.append(self)
            self._group.generation += 1
        if self._generation == self._group.generation:
            return
        self._generation = self._group.generation
        members = [each for each in self._group.members if each._topics == self._topics]
        share = members.index(self)
        mine = [name for name in self._bus._logs if name.topic in self._topics]
        self._positions = {
            name: self._positions.get(name, self._group.committed.get(name, 0))
            for number, name in enumerate(mine)
            if number % len(members) == share
        }
        self._paused &= self._positions.keys()

    def _take(self) -> list[InboundMessage]:
        taken: list[InboundMessage] = []
        for name, start in self._positions.items():
            if name in self._paused:
                continue
            found = self._bus._logs[name][start : start + _POLL_MAX - len(taken)]
            self._positions[name] = start + len(found)
            taken += found
        return taken


class MemoryProducer:
    """Publishes at once; see `contracts.ports.Producer`."""

    def __init__(self, bus: MemoryBus) -> None:
        self._bus = bus

    def publish(self, messages: Sequence[OutboundMessage]) -> None:
        """Append every message, or none of them while the bus is down."""
        with self._bus._changed:
            self._bus._check_up()
            for message in messages:
                self._bus._append(message)
            self._bus._changed.notify_all()

    def close(self) -> None:
        """Nothing is left to flush."""
