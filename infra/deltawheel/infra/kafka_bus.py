"""Consumer, producer and topics over the Kafka protocol, with kafka-python.

Its defaults that would lose or stall work are set here: no deserializers (one that raises wedges
the partition), no automatic or bare commits (they commit what was polled, not what is done).

A few of its inner parts are used, for which it offers no option; `tests/infra/test_kafka_bus.py`
and `test_bus_contract.py` notice when they change. Source: kafka-python 3.0.12,
consumer/fetcher.py, coordinator/base.py and net/inet.py.
"""

import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import KafkaAdminClient, NewTopic
from kafka.consumer.fetcher import Fetcher
from kafka.errors import (
    CorruptRecordError,
    KafkaError,
    MessageSizeTooLargeError,
    TopicAlreadyExistsError,
)
from kafka.net.compat import KafkaNetClient
from kafka.net.inet import KafkaNetSocket
from kafka.structs import MemberState, OffsetAndMetadata
from kafka.structs import TopicPartition as KafkaPartition

from deltawheel.contracts.errors import RetryLaterError
from deltawheel.contracts.events import InboundMessage, OutboundMessage
from deltawheel.contracts.ports import TopicPartition
from deltawheel.contracts.settings import BrokerKind, BrokerSettings, RuntimeSettings
from deltawheel.contracts.topics import Topic

__all__ = ["KafkaBusConsumer", "KafkaBusProducer", "list_topics", "make_topics"]

_POLL_MAX: Final = 500
_TIMEOUT_MS: Final = 15_000
_COMMIT_TIMEOUT_MS: Final = 10_000
_CLOSE_TIMEOUT_MS: Final = 3_000
_SETTLED_S: Final = 5.0
"""How long a member holds nothing before that is its share: until then, what a group's first
member has been given may come from a time before its client knew the topics' partitions."""
_LINGER_MS: Final = 20
_BATCH_BYTES: Final = 262_144


@contextmanager
def _reaching(address: str) -> Iterator[None]:
    """Turn the client's errors into a request to try later, naming the broker."""
    try:
        yield
    except MessageSizeTooLargeError as error:
        raise RetryLaterError(
            f"the broker at {address} takes no record of this size: raise broker.max_message_bytes "
            f"(and its max.message.bytes): {error}"
        ) from error
    except (KafkaError, OSError) as error:
        raise RetryLaterError(f"the broker at {address} does not answer: {error!r}") from error


class _ClosedSocket(KafkaNetSocket):  # type: ignore[misc]
    """Closes a socket whose connection fails; kafka-python leaves it to the garbage collector."""

    SCHEMES = ("closed-on-failure",)

    async def sock_connect(self, net: Any, sock: socket.socket, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        try:
            return await super().sock_connect(net, sock, *args, **options)
        except BaseException:
            sock.close()
            raise


@contextmanager
def _connecting(address: str) -> Iterator[dict[str, Any]]:
    """Yield what all clients are made with; end the threads of one that cannot be made.

    kafka-python starts them before it first asks the broker, and forgets them where that fails.
    """
    opened: list[KafkaNetClient] = []

    def open_client(**options: Any) -> KafkaNetClient:  # noqa: ANN401
        opened.append(KafkaNetClient(**options))
        return opened[-1]

    options = {
        "bootstrap_servers": address.split(","),
        "bootstrap_timeout_ms": _TIMEOUT_MS,
        "request_timeout_ms": _TIMEOUT_MS,
        "proxy_url": f"{_ClosedSocket.SCHEMES[0]}://",
        "kafka_client": open_client,
    }
    try:
        with _reaching(address):
            yield options
    except BaseException:
        for client in opened:
            client.close()
        raise


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


class KafkaBusConsumer:
    """One member of a consumer group; see `contracts.ports.Consumer`."""

    def __init__(
        self,
        address: str,
        *,
        group: str,
        topics: Sequence[str],
        broker: BrokerSettings,
        runtime: RuntimeSettings,
    ) -> None:
        self._address = address
        with _connecting(address) as options:
            self._consumer = KafkaConsumer(
                *topics,
                **options,
                group_id=group,
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
        self._generation_since = (-1, 0.0)

    def poll(self, timeout_s: float) -> Sequence[InboundMessage]:
        """Return what has arrived, in order within each partition."""
        coordinator = self._consumer._coordinator
        if coordinator.rejoining:
            # A rejoin that new metadata made necessary counts as done as soon as this member, as
            # leader, has dealt the partitions: a poll that ends before the answer would leave it
            # outside for ever, without heartbeats.
            coordinator.request_rejoin()
        with _reaching(self._address):
            polled = self._consumer.poll(timeout_ms=int(timeout_s * 1_000))
        return [_inbound(record) for records in polled.values() for record in records]

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
        with _reaching(self._address):
            self._consumer.commit(explicit, timeout_ms=_COMMIT_TIMEOUT_MS)

    def lag(self) -> Mapping[TopicPartition, int]:
        """Return what is known of the records behind the position, without asking the broker."""
        behind: dict[TopicPartition, int] = {}
        with _reaching(self._address):
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
        with _reaching(self._address):
            self._consumer.close(autocommit=False, timeout_ms=_CLOSE_TIMEOUT_MS)


def _inbound(record: Any) -> InboundMessage:  # noqa: ANN401
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


class KafkaBusProducer:
    """Publishes and waits for every acknowledgement; see `contracts.ports.Producer`.

    Args:
        address: Where the brokers are.
        broker: Of which kind they are.
        timeout_s: How long to wait for an acknowledgement; it may still come later.
    """

    def __init__(self, address: str, *, broker: BrokerSettings, timeout_s: float = 30.0) -> None:
        self._address = address
        self._timeout_s = timeout_s
        is_embedded = broker.kind is BrokerKind.EMBEDDED
        with _connecting(address) as options:
            self._producer = KafkaProducer(
                **options,
                acks="all",
                # The embedded broker forgets producers' ids when it is started afresh.
                enable_idempotence=not is_embedded,
                compression_type="lz4",
                linger_ms=_LINGER_MS,
                batch_size=_BATCH_BYTES,
                max_request_size=broker.max_message_bytes,
                allow_auto_create_topics=False,
                delivery_timeout_ms=2 * _TIMEOUT_MS,
                max_block_ms=int(min(timeout_s * 1_000, _TIMEOUT_MS)),
            )

    def publish(self, messages: Sequence[OutboundMessage]) -> None:
        """Return when the broker has acknowledged every message."""
        with _reaching(self._address):
            sent = [
                self._producer.send(
                    message.topic, message.value, key=message.key, headers=list(message.headers)
                )
                for message in messages
            ]
            for future in sent:
                future.get(timeout=self._timeout_s)

    def close(self) -> None:
        """Flush and disconnect."""
        try:
            self._producer.close(timeout=_CLOSE_TIMEOUT_MS / 1_000)
        except KafkaError:
            # It stays open while records wait for a broker that is away. They are given up: what
            # was not acknowledged is owed, and published by somebody else.
            self._producer._sender.force_close()
            with _reaching(self._address):
                self._producer.close(timeout=_CLOSE_TIMEOUT_MS / 1_000)


def list_topics(address: str, *, timeout_s: float) -> frozenset[str]:
    """Return the topics that may be seen, connecting as all clients do.

    Raises:
        RetryLaterError: the broker does not answer.
    """
    timeout_ms = int(timeout_s * 1_000)
    timeouts = {"bootstrap_timeout_ms": timeout_ms, "request_timeout_ms": timeout_ms}
    with _connecting(address) as options:
        admin = KafkaAdminClient(**options | timeouts)
        try:
            return frozenset(admin.list_topics())
        finally:
            admin.close()


def make_topics(address: str, *, wheel: str, broker: BrokerSettings) -> None:
    """Create what is missing of the wheel's topics; those that are there stay as they are.

    Before any client asks for them: some brokers make a topic at the first question about it.

    Raises:
        RetryLaterError: the broker does not answer.
    """
    # A broker elsewhere has a replication factor of its own, which -1 stands for.
    replication_factor = -1 if broker.kind is BrokerKind.KAFKA else 1
    limit = {"max.message.bytes": str(broker.max_message_bytes)}
    with _connecting(address) as options:
        admin = KafkaAdminClient(**options)
        try:
            for topic in Topic:
                _make_topic(
                    admin,
                    NewTopic(
                        topic.of(wheel),
                        num_partitions=broker.partitions,
                        replication_factor=replication_factor,
                        topic_configs=limit,
                    ),
                )
        finally:
            admin.close()


def _make_topic(admin: KafkaAdminClient, topic: NewTopic) -> None:
    try:
        admin.create_topics([topic])
    except TopicAlreadyExistsError:
        return
