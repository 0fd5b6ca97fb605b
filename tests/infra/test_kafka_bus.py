"""What kafka-python is made to do otherwise: partitions claimed, and logs that cannot be read.

What cannot be read is passed by, told of, and costs nothing around it. Batches are built and broken
by hand here; `test_bus_contract` asks real brokers the same.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from deltawheel.contracts.events import InboundMessage

# kafka-python reads its schemas that way as it is imported, so it is imported inside tests here.
pytestmark = pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning")

HEADER_NAME = b"plain-name"
NO_CODEC, SNAPPY, UNKNOWN_CODEC = 0, 2, 7
ATTRIBUTES_AT = 21


def test_member_that_was_thrown_out_claims_nothing_any_more() -> None:
    from kafka.protocol.consumer.metadata import ConsumerProtocolAssignment
    from kafka.structs import TopicPartition

    from deltawheel.infra.kafka_bus import _StickyAssignor

    held = {TopicPartition("t", 1), TopicPartition("t", 0)}
    assignor = _StickyAssignor(lambda: held)
    assignor.on_assignment(ConsumerProtocolAssignment(1, [("t", [0, 1, 2])], b""), 7)
    assert claimed(assignor) == [("t", [0, 1])]
    held.clear()
    assert claimed(assignor) == []


def claimed(assignor: Any) -> list[tuple[str, list[int]]]:
    owned = assignor.metadata({"t"}).owned_partitions
    return [(one.topic, list(one.partitions)) for one in owned]


def a_batch(first: int, *values: str, codec: int = NO_CODEC) -> bytearray:
    """Return a batch of these values, whose first one stands at this offset."""
    from kafka.record.default_records import DefaultRecordBatchBuilder

    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=codec,
        is_transactional=False,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=1_000_000,
    )
    for index, value in enumerate(values):
        headers = [(HEADER_NAME.decode(), b"")]
        builder.append(index, timestamp=0, key=b"k", value=value.encode(), headers=headers)
    batch = bytearray(builder.build())
    struct.pack_into(">q", batch, 0, first)
    return batch


def sealed(batch: bytearray) -> bytearray:
    """Give a changed batch the checksum that belongs to it."""
    from kafka.record.util import calc_crc32c

    struct.pack_into(">I", batch, 17, calc_crc32c(bytes(batch[ATTRIBUTES_AT:])))
    return batch


def in_unknown_codec(batch: bytearray) -> bytearray:
    struct.pack_into(">h", batch, ATTRIBUTES_AT, UNKNOWN_CODEC)
    return sealed(batch)


def with_header_that_is_no_text(batch: bytearray, index: int) -> bytearray:
    start = -1
    for _ in range(index + 1):
        start = batch.index(HEADER_NAME, start + 1)
    batch[start : start + 2] = b"\xff\xfe"
    return sealed(batch)


def damaged(batch: bytearray) -> bytearray:
    batch[-1] ^= 1
    return batch


def undecompressable(batch: bytearray) -> bytearray:
    batch[-20:] = b"\xff" * 20
    return sealed(batch)


def read(*log: bytearray) -> list[InboundMessage]:
    """Read a log as the client does: fetch after fetch, each from where the last one ended."""
    return list(_read(log))


def _read(log: Sequence[bytearray]) -> Iterator[InboundMessage]:
    from kafka.record import MemoryRecords
    from kafka.structs import TopicPartition

    from deltawheel.infra.kafka_bus import _ReadableRecords, inbound

    position = 0
    for _ in range(100):
        rest = b"".join(batch for batch in log if _end_of(batch) > position)
        if not rest:
            return
        fetched: Any = _ReadableRecords(position, TopicPartition("t", 3), MemoryRecords(rest))
        for _ in range(100):
            if not fetched:
                break
            yield from map(inbound, fetched.take(2))
        assert not fetched, "the fetch never ends"
        position = fetched.next_fetch_offset
    raise AssertionError("the log never ends")


def _end_of(batch: bytearray) -> int:
    first, last_delta = struct.unpack_from(">q15xi", batch)
    return int(first + last_delta + 1)


def told(messages: Sequence[InboundMessage]) -> list[tuple[int, str | None]]:
    """Return each message's offset with its value, or None where it could not be read."""
    return [
        (message.offset, message.value.decode() if message.value else None) for message in messages
    ]


def test_sound_log_is_read_whole() -> None:
    log = (a_batch(0, "a", "b", "c"), a_batch(3, "d", codec=SNAPPY))
    assert told(read(*log)) == [(0, "a"), (1, "b"), (2, "c"), (3, "d")]


def test_batch_in_an_unknown_codec_is_passed_by_as_a_whole() -> None:
    foreign = in_unknown_codec(a_batch(2, "x", "y", "z"))
    messages = read(a_batch(0, "a", "b"), foreign, a_batch(5, "c"))
    assert told(messages) == [(0, "a"), (1, "b"), (4, None), (5, "c")]
    assert (messages[2].topic, messages[2].partition, messages[2].key) == ("t", 3, None)
    assert messages[2].fault is not None
    assert messages[2].fault.startswith("what stands at offsets 2 to 4 cannot be read: Unsupported")


def test_batch_that_cannot_be_decompressed_is_passed_by_as_a_whole() -> None:
    foreign = undecompressable(a_batch(0, *["x" * 1_000] * 3, codec=SNAPPY))
    assert told(read(foreign, a_batch(3, "a"))) == [(2, None), (3, "a")]


def test_header_that_is_no_text_costs_nothing_before_it_nor_behind_its_batch() -> None:
    foreign = with_header_that_is_no_text(a_batch(0, "a", "b", "x", "y"), 2)
    messages = read(foreign, a_batch(4, "c"))
    assert told(messages) == [(0, "a"), (1, "b"), (2, None), (3, None), (4, "c")]
    assert "offsets 2 to 2 cannot be read: CorruptRecordError" in str(messages[2].fault)


def test_damaged_batch_is_passed_by_record_by_record() -> None:
    messages = read(a_batch(0, "a"), damaged(a_batch(1, "x", "y")), a_batch(3, "b"))
    assert told(messages) == [(0, "a"), (1, None), (2, None), (3, "b")]
    assert "crc" in str(messages[1].fault)


def test_log_that_ends_with_what_cannot_be_read_ends() -> None:
    assert told(read(in_unknown_codec(a_batch(0, "x", "y")))) == [(1, None)]


@pytest.mark.parametrize("num_partitions", [1, 3, 4, 12])
def test_key_is_on_the_partition_where_any_client_looks_for_it(num_partitions: int) -> None:
    from kafka.partitioner.default import DefaultPartitioner

    from deltawheel.infra.kafka_bus import _Partitioner

    class Cluster:
        def topics(self) -> set[str]:
            return {"t"}

        def partitions_for_topic(self, topic: str) -> set[int]:
            return set(range(num_partitions))

        available_partitions_for_topic = partitions_for_topic

    for key in (b"", b"x", *(f"prompt_{number:032x}".encode() for number in range(200))):
        asked = ("t", key, key, b"value", b"value", Cluster())
        assert _Partitioner().partition(*asked) == DefaultPartitioner().partition(*asked)
