"""Reading topics beside all groups, for the audit: it joins none and commits nothing."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from kafka import KafkaConsumer
from kafka.admin import KafkaAdminClient
from kafka.errors import CoordinatorNotAvailableError
from kafka.structs import TopicPartition as KafkaPartition

from deltawheel.contracts.errors import RetryLaterError
from deltawheel.contracts.events import InboundMessage
from deltawheel.contracts.settings import BrokerSettings
from deltawheel.contracts.topic_audit import GroupOffset
from deltawheel.infra.kafka_access import KafkaAccess
from deltawheel.infra.kafka_bus import inbound

__all__ = ["KafkaTopicReader"]

_POLL_MS: Final = 500
_APPOINTED_S: Final = 10.0
_FETCHED_S: Final = 10.0
_SILENCE_S: Final = 30.0
"""How long a topic may stay silent before its announced end; then the broker is taken as away."""


class KafkaTopicReader:
    """See `contracts.topic_audit.TopicReads`.

    Args:
        address: Where the brokers are.
        broker: Of which kind they are, and what they ask for.
        timeout_s: How long the broker has to answer a question.
    """

    def __init__(self, address: str, *, broker: BrokerSettings, timeout_s: float) -> None:
        self._access = KafkaAccess(address, broker)
        timeout_ms = int(timeout_s * 1_000)
        self._timeouts = {"bootstrap_timeout_ms": timeout_ms, "request_timeout_ms": timeout_ms}
        with self._access.connecting() as options:
            self._consumer = KafkaConsumer(
                **options | self._timeouts,
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                max_partition_fetch_bytes=broker.max_message_bytes,
                allow_auto_create_topics=False,
            )

    def offsets(self, groups: Mapping[str, Sequence[str]]) -> list[GroupOffset]:
        """Return how far each group has read each of its topics."""
        found: list[GroupOffset] = []
        with self._access.connecting() as options, self._access.reaching():
            admin = KafkaAdminClient(**options | self._timeouts)
            try:
                for group, topics in groups.items():
                    asked = {group: self._partitions(topics)}
                    committed = self._committed(admin, asked).get(group, {})
                    found += [self._offset(group, topic, committed) for topic in topics]
            finally:
                admin.close()
        return found

    def _committed(self, admin: KafkaAdminClient, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        """Ask the groups' coordinator, which a new Kafka appoints at the first question."""
        deadline = time.monotonic() + _APPOINTED_S
        while True:
            try:
                found: Mapping[str, Any] = admin.list_group_offsets(asked)
            except CoordinatorNotAvailableError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(0.2)
            else:
                return found

    def _offset(self, group: str, topic: str, committed: Mapping[Any, Any]) -> GroupOffset:
        partitions = self._partitions([topic])
        first = self._consumer.beginning_offsets(partitions)
        last = self._ends(partitions)
        at = {
            partition: max(known.offset, first[partition])
            if (known := committed.get(partition)) is not None
            else first[partition]
            for partition in partitions
        }
        return GroupOffset(
            topic=topic,
            group=group,
            committed=sum(at[partition] - first[partition] for partition in partitions),
            end=sum(last[partition] - first[partition] for partition in partitions),
            positions={partition.partition: offset for partition, offset in at.items()},
        )

    def messages(self, topics: Sequence[str]) -> Iterator[InboundMessage]:
        """Yield every record up to where the topics ended when it began."""
        with self._access.reaching():
            partitions = self._partitions(topics)
            ends = self._ends(partitions)
            self._consumer.seek_to_beginning(*partitions)
            heard_at = time.monotonic()
            while open_ones := self._behind(ends):
                polled = self._consumer.poll(timeout_ms=_POLL_MS)
                if polled:
                    heard_at = time.monotonic()
                elif time.monotonic() - heard_at > _SILENCE_S:
                    raise RetryLaterError(
                        f"{open_ones[0].topic} was silent for {_SILENCE_S:.0f} s before its end: "
                        "look whether its broker is up, and audit again"
                    )
                for partition, records in polled.items():
                    end = ends[partition]
                    yield from (inbound(record) for record in records if record.offset < end)

    def _ends(self, partitions: Sequence[KafkaPartition]) -> dict[KafkaPartition, int]:
        """Return where the topics end, as a fetch says it.

        Asked for its end, the embedded broker leaves out all but one record of the last batch.
        """
        ends = dict(self._consumer.end_offsets(partitions))
        self._consumer.assign(partitions)
        for partition in partitions:
            self._consumer.seek(partition, max(0, ends[partition] - 1))
        unknown = {partition for partition in partitions if ends[partition]}
        deadline = time.monotonic() + _FETCHED_S
        while unknown and time.monotonic() < deadline:
            self._consumer.poll(timeout_ms=_POLL_MS)
            for partition in tuple(unknown):
                if (end := self._consumer.highwater(partition)) is not None:
                    ends[partition] = max(ends[partition], end)
                    unknown.discard(partition)
        return ends

    def _behind(self, ends: Mapping[KafkaPartition, int]) -> list[KafkaPartition]:
        return [one for one, end in ends.items() if self._consumer.position(one) < end]

    def _partitions(self, topics: Sequence[str]) -> list[KafkaPartition]:
        found: list[KafkaPartition] = []
        for topic in topics:
            numbers = self._consumer.partitions_for_topic(topic)
            found += [KafkaPartition(topic, number) for number in sorted(numbers or ())]
        return found

    def close(self) -> None:
        """Disconnect."""
        with self._access.reaching():
            self._consumer.close(autocommit=False)
