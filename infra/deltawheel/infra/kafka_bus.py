"""Consumer, producer and topics over the Kafka protocol, with kafka-python.

Its defaults that would lose or stall work are set here: no deserializers (one that raises wedges
the partition), no automatic or bare commits (they commit what was polled, not what is done).

A few of its inner parts are used, for which it offers no option; `tests/infra/test_kafka_bus.py`
and `test_bus_contract.py` notice when they change. Source: kafka-python 3.0.12,
consumer/fetcher.py, coordinator/base.py and coordinator/assignors/cooperative_sticky.py.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Final

from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import KafkaAdminClient, NewTopic
from kafka.consumer.fetcher import Fetcher
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.coordinator.consumer import ConsumerCoordinator
from kafka.errors import (
    AuthorizationError,
    CorruptRecordError,
    KafkaError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
)
from kafka.future import Future
from kafka.partitioner.default import DefaultPartitioner, murmur2
from kafka.structs import MemberState, OffsetAndMetadata
from kafka.structs import TopicPartition as KafkaPartition

from deltawheel.contracts.errors import BROKER, RetryLaterError
from deltawheel.contracts.events import InboundMessage, OutboundMessage
from deltawheel.contracts.ports import TopicPartition
from deltawheel.contracts.settings import BrokerKind, BrokerSettings, RuntimeSettings
from deltawheel.contracts.topics import Topic
from deltawheel.infra.kafka_access import KafkaAccess

__all__ = [
    "KafkaBusConsumer",
    "KafkaBusProducer",
    "administering",
    "inbound",
    "list_topics",
    "make_topics",
]

_POLL_MAX: Final = 500
_TIMEOUT_MS: Final = 15_000
_COMMIT_TIMEOUT_MS: Final = 10_000
_CLOSE_TIMEOUT_MS: Final = 3_000
_SETTLED_S: Final = 5.0
"""How long a member holds nothing before that is its share: until then, what a group's first
member has been given may come from a time before its client knew the topics' partitions."""
_LINGER_MS: Final = 20
_BATCH_BYTES: Final = 262_144
_REFUSING_S: Final = 1.0
"""How long after it could not connect a producer does not try again."""


class _Batches:
    """The batches of one partition's fetch, the latest of which is remembered."""

    def __init__(self, inner: Any) -> None:  # noqa: ANN401
        self._inner = inner
        self.latest: Any = None

    def next_batch(self) -> Any:  # noqa: ANN401
        self.latest = self._inner.next_batch()
        return self.latest


class _ReadableRecords(Fetcher.PartitionRecords):  # type: ignore[misc]
    """One partition's fetch that, instead of raising, goes past what it cannot read.

    kafka-python raises once, and then looks for ever for records where it has failed. Here what
    cannot be read becomes a message with a fault: a batch in an unknown codec as a whole, a damaged
    one record by record, since what it says of its own end may be damaged too.
    """

    next_fetch_offset: int

    def __init__(self, fetch_offset: int, tp: KafkaPartition, records: Any, **options: Any) -> None:  # noqa: ANN401
        self._batches = _Batches(records)
        super().__init__(fetch_offset, tp, self._batches, **options)

    def take(self, n: int | None = None) -> list[Any]:
        try:
            taken: list[Any] = super().take(n)
        except Exception as error:  # of whichever library decompresses
            return [self._skip(error)]
        return taken

    def _skip(self, error: Exception) -> InboundMessage:
        # Records from before the fetch's own offset are read again, and move the position back.
        start = max(self.next_fetch_offset, self.fetch_offset)
        batch = self._batches.latest
        is_sound = not isinstance(error, CorruptRecordError) and batch is not None
        self.next_fetch_offset = start + 1
        if is_sound and batch.magic >= 2:
            self.next_fetch_offset = max(start + 1, batch.next_offset)
        self.drain()
        topic, partition = self.topic_partition
        last = self.next_fetch_offset - 1
        return InboundMessage(
            topic=topic,
            partition=partition,
            offset=last,
            key=None,
            value=None,
            fault=f"what stands at offsets {start} to {last} cannot be read: "
            f"{type(error).__name__}: {error}",
        )


class _StickyAssignor(CooperativeStickyAssignor):  # type: ignore[misc]
    """Claims the partitions that the consumer holds, not those that it was dealt last.

    They differ for a member that the group has thrown out: kafka-python takes its partitions away
    and goes on claiming them, so that a new group defers them to an owner who does not know of it
    and never lets them go.
    """

    def __init__(self, held: Callable[[], Iterable[KafkaPartition]]) -> None:
        super().__init__()
        self._held = held

    def metadata(self, topics: Iterable[str]) -> Any:  # noqa: ANN401
        self.member_assignment = sorted(self._held())
        return super().metadata(topics)


class _Outcome:
    """What a rejoin brings, for whoever asks: it never says that it has been there for a while."""

    is_done = False

    def __init__(self, future: Future) -> None:
        self._future = future
        self.add_callback = future.add_callback
        self.add_errback = future.add_errback

    def __await__(self) -> Iterator[Any]:
        answer: Iterator[Any] = self._future.__await__()
        return answer


class _Coordinator(ConsumerCoordinator):  # type: ignore[misc]
    """Takes up the outcome of a rejoin that ended between two polls.

    kafka-python lets such a one drop and joins once more, which makes the others rejoin: members
    that poll in turns did so for ever, and a busy group needs many attempts.
    """

    @property
    def _join_task(self) -> _Outcome | None:
        return self._outcome

    @_join_task.setter
    def _join_task(self, future: Future | None) -> None:
        self._outcome = None if future is None else _Outcome(future)


class KafkaBusConsumer:
    """One member of a consumer group; see `contracts.ports.Consumer`.

    Partitions move cooperatively on Apache Kafka: a member keeps what stays its own, with its
    position and everything in work, and only what moves is given up first. kafka-python cannot
    offer another protocol beside this one, so members that deal otherwise have to leave before.
    Static members, and the embedded broker's, deal by range.

    Args:
        address: Where the brokers are.
        group: The group's name.
        topics: What the group reads.
        broker: Of which kind the brokers are, and what they ask for.
        runtime: How the group notices a lost member.
        instance_id: Makes it a static member of this name, which must be nobody else's. Its
            successor takes its partitions over at once, which saves seconds and fences
            nothing: for as long, both may hold them.
    """

    def __init__(
        self,
        address: str,
        *,
        group: str,
        topics: Sequence[str],
        broker: BrokerSettings,
        runtime: RuntimeSettings,
        instance_id: str | None = None,
    ) -> None:
        self._access = KafkaAccess(address, broker)
        with self._access.connecting() as options:
            self._consumer = KafkaConsumer(
                *topics,
                **options,
                group_id=group,
                group_instance_id=instance_id,
                partition_assignment_strategy=[self._assignor(broker.kind, instance_id)],
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                max_poll_records=_POLL_MAX,
                heartbeat_interval_ms=int(runtime.heartbeat_interval_s * 1_000),
                session_timeout_ms=int(runtime.session_timeout_s * 1_000),
                max_partition_fetch_bytes=broker.max_message_bytes,
                allow_auto_create_topics=False,
                fetch_max_wait_ms=100,
                metadata_max_age_ms=30_000,
            )
        self._consumer._fetcher.PartitionRecords = _ReadableRecords
        self._consumer._coordinator.__class__ = _Coordinator
        self._consumer._coordinator._join_task = None
        self._generation_since = (-1, 0.0)

    def _assignor(self, kind: BrokerKind, instance_id: str | None) -> Any:  # noqa: ANN401
        if kind is BrokerKind.EMBEDDED:
            # It takes 4 s for a rebalance, and moving cooperatively needs two or three: 10 s.
            return RangePartitionAssignor
        if instance_id is not None:
            # A successor claims nothing yet, and Kafka rebalances for a member that says otherwise.
            return RangePartitionAssignor
        return _StickyAssignor(lambda: self._consumer.assignment())

    def poll(self, timeout_s: float) -> Sequence[InboundMessage]:
        """Return what has arrived, in order within each partition.

        Raises:
            BrokerRefusalError: the group is out of reach since the broker refuses us. One that is
                only away is waited for without a word.
        """
        coordinator = self._consumer._coordinator
        if coordinator.rejoining:
            # A rejoin that new metadata made necessary counts as done as soon as this member, as
            # leader, has dealt the partitions: a poll that ends before the answer would leave it
            # outside for ever, without heartbeats.
            coordinator.request_rejoin()
        with self._access.reaching():
            polled = self._consumer.poll(timeout_ms=int(timeout_s * 1_000))
        if not polled and coordinator.coordinator_unknown():
            self._access.require_entry()
        return [inbound(record) for records in polled.values() for record in records]

    def assigned(self) -> frozenset[TopicPartition]:
        """Return the partitions that this member holds at the moment."""
        return frozenset(TopicPartition(p.topic, p.partition) for p in self._consumer.assignment())

    def has_joined(self) -> bool:
        """Whether the group's coordinator answers and has given this member its share."""
        if self._consumer._coordinator.coordinator_unknown():
            return False
        if self._consumer.assignment():
            return True
        member = self._consumer.group_metadata()
        if member.state is not MemberState.STABLE:
            return False
        generation, since_s = self._generation_since
        if member.generation_id != generation:
            self._generation_since = member.generation_id, time.monotonic()
            return False
        return time.monotonic() - since_s >= _SETTLED_S

    def pause(self, partitions: frozenset[TopicPartition]) -> None:
        """Stop fetching from these partitions, those of them that are still assigned."""
        self._consumer.pause(*self._still_assigned(partitions))

    def resume(self, partitions: frozenset[TopicPartition]) -> None:
        """Fetch from these partitions again, those of them that are still assigned."""
        self._consumer.resume(*self._still_assigned(partitions))

    def _still_assigned(self, partitions: frozenset[TopicPartition]) -> list[KafkaPartition]:
        return [KafkaPartition(*partition) for partition in partitions & self.assigned()]

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Commit exactly these offsets."""
        explicit = {
            KafkaPartition(*partition): OffsetAndMetadata(offset, "", -1)
            for partition, offset in offsets.items()
        }
        with self._access.reaching():
            self._consumer.commit(explicit, timeout_ms=_COMMIT_TIMEOUT_MS)

    def lag(self) -> Mapping[TopicPartition, int]:
        """Return what is known of the records behind the position, without asking the broker."""
        behind: dict[TopicPartition, int] = {}
        with self._access.reaching():
            for partition in self._consumer.assignment():
                end = self._consumer.highwater(partition)
                if end is None:
                    continue
                position = self._consumer.position(partition, timeout_ms=0)
                if position is not None:
                    behind[TopicPartition(*partition)] = max(0, end - position)
        return behind

    def close(self) -> None:
        """Leave the group, without committing."""
        with self._access.reaching():
            self._consumer.close(autocommit=False, timeout_ms=_CLOSE_TIMEOUT_MS)


def inbound(record: Any) -> InboundMessage:  # noqa: ANN401
    """Return a polled record as the ports know it; one with a fault is so already."""
    if isinstance(record, InboundMessage):
        return record
    return InboundMessage(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        key=record.key,
        value=record.value,
        headers=tuple((name, value or b"") for name, value in record.headers),
    )


class _Partitioner(DefaultPartitioner):  # type: ignore[misc]
    """Finds the partition that every Kafka client finds, once for all the events of a prompt.

    kafka-python hashes in Python, and sorts all partitions for each record: 10 µs of its 30.
    """

    def partition(self, topic: str, key: Any, serialized_key: bytes | None, *rest: Any) -> int:  # noqa: ANN401
        partitions: set[int] | None = rest[-1].partitions_for_topic(topic)
        if serialized_key is None or not partitions:
            return int(super().partition(topic, key, serialized_key, *rest))
        return sorted(partitions)[_hash(serialized_key) % len(partitions)]


@lru_cache(maxsize=8_192)
def _hash(key: bytes) -> int:
    """Return Kafka's hash of a key: murmur2, without its sign."""
    return int(murmur2(key)) & 0x7FFFFFFF


class KafkaBusProducer:
    """Publishes and waits for every acknowledgement; see `contracts.ports.Producer`.

    It connects when it first publishes, so that a gateway which is started while the broker is away
    takes prompts as one does that was there before.

    Args:
        address: Where the brokers are.
        broker: Of which kind they are, and what they ask for.
        timeout_s: How long to wait for an acknowledgement; it may still come later.
    """

    def __init__(self, address: str, *, broker: BrokerSettings, timeout_s: float = 30.0) -> None:
        self._access = KafkaAccess(address, broker)
        self._timeout_s = timeout_s
        self._opening = threading.Lock()
        self._producer: KafkaProducer | None = None
        self._refusal: tuple[float, RetryLaterError] | None = None

    def _open(self) -> KafkaProducer:
        broker = self._access.broker
        timeout_ms = int(min(self._timeout_s * 1_000, _TIMEOUT_MS))
        with self._access.connecting() as options:
            return KafkaProducer(
                **{**options, "bootstrap_timeout_ms": timeout_ms},
                acks="all",
                # The embedded broker forgets producers' ids when it is started afresh.
                enable_idempotence=broker.kind is not BrokerKind.EMBEDDED,
                partitioner=_Partitioner(),
                compression_type="lz4",
                linger_ms=_LINGER_MS,
                batch_size=_BATCH_BYTES,
                max_request_size=broker.max_message_bytes,
                allow_auto_create_topics=False,
                delivery_timeout_ms=2 * _TIMEOUT_MS,
                max_block_ms=timeout_ms,
            )

    def publish(self, messages: Sequence[OutboundMessage]) -> None:
        """Return when the broker has acknowledged every message."""
        producer = self._working()
        with self._access.reaching():
            sent = [
                producer.send(
                    message.topic, message.value, key=message.key, headers=list(message.headers)
                )
                for message in messages
            ]
            for future in sent:
                future.get(timeout=self._timeout_s)

    def _working(self) -> KafkaProducer:
        """Return a producer that may still send.

        kafka-python's never does again once it was refused its id, whatever is granted later. Those
        who wait while one of them has failed to connect fail with it, and not one after the other.
        """
        with self._opening:
            if self._producer is None:
                self._producer = self._open_or_refuse()
            elif _is_dead(self._producer):
                renewed = self._open()
                self._close(self._producer)
                self._producer = renewed
            return self._producer

    def _open_or_refuse(self) -> KafkaProducer:
        if self._refusal is not None and time.monotonic() - self._refusal[0] < _REFUSING_S:
            raise RetryLaterError(str(self._refusal[1]), dependency=BROKER)
        try:
            return self._open()
        except RetryLaterError as error:
            self._refusal = time.monotonic(), error
            raise

    def close(self) -> None:
        """Flush and disconnect."""
        if self._producer is not None:
            self._close(self._producer)

    def _close(self, producer: KafkaProducer) -> None:
        try:
            producer.close(timeout=_CLOSE_TIMEOUT_MS / 1_000)
        except KafkaError:
            # It stays open while records wait for a broker that is away. They are given up: what
            # was not acknowledged is owed, and published by somebody else.
            producer._sender.force_close()
            with self._access.reaching():
                producer.close(timeout=_CLOSE_TIMEOUT_MS / 1_000)


def _is_dead(producer: KafkaProducer) -> bool:
    transactions = producer._transaction_manager
    return transactions is not None and bool(transactions.has_fatal_error())


@contextmanager
def administering(
    address: str, broker: BrokerSettings, *, timeout_s: float = _TIMEOUT_MS / 1_000
) -> Iterator[KafkaAdminClient]:
    """Yield a client that asks for topics and groups, and is given so long for each answer.

    Raises:
        RetryLaterError: the broker does not answer, or refuses us (`BrokerRefusalError`).
    """
    timeout_ms = int(timeout_s * 1_000)
    timeouts = {"bootstrap_timeout_ms": timeout_ms, "request_timeout_ms": timeout_ms}
    with KafkaAccess(address, broker).connecting() as options:
        admin = KafkaAdminClient(**options | timeouts)
        try:
            yield admin
        finally:
            admin.close()


def list_topics(address: str, *, broker: BrokerSettings, timeout_s: float) -> frozenset[str]:
    """Return the topics that may be seen.

    Raises:
        RetryLaterError: the broker does not answer, or refuses us (`BrokerRefusalError`).
    """
    with administering(address, broker, timeout_s=timeout_s) as admin:
        return frozenset(admin.list_topics())


def make_topics(address: str, *, wheel: str, broker: BrokerSettings) -> None:
    """Create what is missing of the wheel's topics; those that are there stay as they are.

    Before any client asks for them: some brokers make a topic at the first question about it.

    Raises:
        RetryLaterError: the broker does not answer, or refuses us (`BrokerRefusalError`).
    """
    # A broker elsewhere has a replication factor of its own, which -1 stands for.
    replication_factor = -1 if broker.kind is BrokerKind.KAFKA else 1
    limit = {"max.message.bytes": str(broker.max_message_bytes)}
    with administering(address, broker) as admin:
        # Those that are there are not asked for: that takes a right that a wheel needs only once.
        for name in sorted({topic.of(wheel) for topic in Topic} - set(admin.list_topics())):
            _make_topic(
                admin,
                NewTopic(
                    name,
                    num_partitions=broker.partitions,
                    replication_factor=replication_factor,
                    topic_configs=limit,
                ),
            )


def _make_topic(admin: KafkaAdminClient, topic: NewTopic) -> None:
    try:
        admin.create_topics([topic])
    except TopicAlreadyExistsError:
        return
    except AuthorizationError as error:  # its own text is the whole request
        raise TopicAuthorizationFailedError({topic.name}) from error
