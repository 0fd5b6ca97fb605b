"""What the loop relies on, asked of every bus: the one in memory, and real brokers."""

import os
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from deltawheel.contracts.errors import InvalidRecordError, RetryLaterError
from deltawheel.contracts.events import InboundMessage, OutboundMessage
from deltawheel.contracts.ports import Consumer, Producer, TopicPartition
from deltawheel.contracts.settings import BrokerKind, BrokerSettings, Settings
from deltawheel.contracts.topics import Topic
from deltawheel.infra.brokers import broker_command, broker_is_ready
from deltawheel.infra.listening import find_free_port
from deltawheel.infra.memory_bus import MemoryBus
from tests.components import ROOT, require
from tests.waiting import wait_for

if TYPE_CHECKING:
    from deltawheel.infra.kafka_bus import KafkaBusConsumer, KafkaBusProducer

# kafka-python reads its schemas that way as it is imported, so it is imported inside tests here.
pytestmark = pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning")

PARTITIONS = 3
BESIDE_THE_REPOSITORY = ROOT.parent / "shared" / "kafka"


@dataclass
class Bus:
    """A broker with the topics of a wheel of its own, whose clients end with the test."""

    wheel: str
    join: Callable[[str, Sequence[str]], Consumer]
    connect: Callable[[], Producer]
    clients: ExitStack = field(default_factory=ExitStack)

    @property
    def topic(self) -> str:
        return Topic.TRACES.of(self.wheel)

    def consumer(self, group: str = "judging") -> Consumer:
        return self.clients.enter_context(closing(self.join(group, [self.topic])))

    def producer(self) -> Producer:
        return self.clients.enter_context(closing(self.connect()))

    def publish(self, *values: str, key: str | None = None) -> None:
        """Publish values, each under itself as key unless a key is given."""
        self.producer().publish([a_message(self.topic, value, key or value) for value in values])


def a_message(topic: str, value: str, key: str) -> OutboundMessage:
    return OutboundMessage(topic=topic, key=key.encode(), value=value.encode())


def take(consumer: Consumer, count: int) -> list[InboundMessage]:
    """Poll until so many messages are there."""
    taken: list[InboundMessage] = []

    def has_all() -> bool:
        taken.extend(consumer.poll(0.2))
        return len(taken) >= count

    wait_for(has_all, what=f"{count} messages")
    return taken


def wait_for_shares(
    members: Sequence[Consumer], is_reached: Callable[[list[frozenset[TopicPartition]]], bool]
) -> None:
    """Poll members until their shares are as wanted.

    Each in a thread of its own, as in a wheel: whoever waits to be polled holds the others up.
    """
    shares: list[frozenset[TopicPartition]] = [frozenset() for _ in members]

    def is_settled(number: int) -> bool:
        members[number].poll(0.1)
        shares[number] = members[number].assigned()
        return is_reached(shares)

    def poll(number: int) -> None:
        wait_for(lambda: is_settled(number), what="the wanted shares")

    with ThreadPoolExecutor(len(members)) as threads:
        list(threads.map(poll, range(len(members))))


def values_of(messages: Sequence[InboundMessage]) -> list[str]:
    return sorted((message.value or b"").decode() for message in messages)


def ends_of(messages: Sequence[InboundMessage]) -> dict[TopicPartition, int]:
    """Return what to commit once all of these are done."""
    ends: dict[TopicPartition, int] = {}
    for message in messages:
        name = TopicPartition(message.topic, message.partition)
        ends[name] = max(ends.get(name, 0), message.offset + 1)
    return ends


@contextmanager
def a_broker(settings: Settings) -> Iterator[str]:
    """Run the wheel's own broker; yield its address."""
    command = broker_command(settings)
    process = subprocess.Popen(
        command.argv, env=command.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: broker_is_ready(settings), what="the broker answers")
        yield f"{settings.broker.host}:{settings.broker.port}"
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def settings_for(kind: BrokerKind, home: Path) -> Settings:
    broker = BrokerSettings(kind=kind, port=find_free_port(), partitions=PARTITIONS)
    return Settings(wheel="bus", home=home, broker=broker)


@pytest.fixture(
    scope="module",
    params=[
        "memory",
        pytest.param(BrokerKind.EMBEDDED, marks=pytest.mark.integration),
        pytest.param(BrokerKind.LOCAL_KAFKA, marks=pytest.mark.integration),
    ],
)
def make_bus(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], Bus]]:
    if request.param == "memory":
        yield a_bus_in_memory
        return
    with pytest.MonkeyPatch.context() as patch, ExitStack() as broker:
        find_kafka(patch, request.param)
        settings = settings_for(request.param, tmp_path_factory.mktemp("broker"))
        address = broker.enter_context(a_broker(settings))
        yield lambda: a_bus_at(address, settings)


def find_kafka(patch: pytest.MonkeyPatch, kind: BrokerKind = BrokerKind.LOCAL_KAFKA) -> None:
    """See to it that a Kafka of our own can be started, where that is the kind."""
    if kind is BrokerKind.LOCAL_KAFKA:
        if "KAFKA_HOME" not in os.environ and BESIDE_THE_REPOSITORY.is_dir():
            patch.setenv("KAFKA_HOME", str(BESIDE_THE_REPOSITORY))
        require("kafka")


def a_bus_in_memory() -> Bus:
    bus = MemoryBus(wheel="memory", partitions=PARTITIONS)
    return Bus(
        wheel="memory",
        join=lambda group, topics: bus.consumer(group=group, topics=topics),
        connect=bus.producer,
    )


def a_bus_at(address: str, settings: Settings) -> Bus:
    wheel = f"wheel-{uuid.uuid4().hex[:8]}"
    make_topics(address, wheel, settings)
    return Bus(
        wheel=wheel,
        join=lambda group, topics: join(address, settings, f"{wheel}.{group}", topics),
        connect=lambda: connect(address, settings),
    )


def make_topics(address: str, wheel: str, settings: Settings) -> None:
    from deltawheel.infra import kafka_bus

    kafka_bus.make_topics(address, wheel=wheel, broker=settings.broker)


def join(address: str, settings: Settings, group: str, topics: Sequence[str]) -> "KafkaBusConsumer":
    from deltawheel.infra.kafka_bus import KafkaBusConsumer

    return KafkaBusConsumer(
        address, group=group, topics=topics, broker=settings.broker, runtime=settings.runtime
    )


def connect(address: str, settings: Settings) -> "KafkaBusProducer":
    from deltawheel.infra.kafka_bus import KafkaBusProducer

    return KafkaBusProducer(address, broker=settings.broker)


@pytest.fixture
def bus(make_bus: Callable[[], Bus]) -> Iterator[Bus]:
    bus = make_bus()
    with bus.clients:
        yield bus


def test_what_is_published_arrives_byte_for_byte(bus: Bus) -> None:
    sent = [
        OutboundMessage(
            topic=bus.topic, key=b"\xff\x00", value=b"\xfe{", headers=(("h", b"\x80"),)
        ),
        OutboundMessage(topic=bus.topic, key=b"empty", value=b""),
        OutboundMessage(topic=bus.topic, key=b"gone", value=None),
    ]
    bus.producer().publish(sent)
    got = take(bus.consumer(), len(sent))
    assert {(m.key, m.value, m.headers) for m in got} == {(m.key, m.value, m.headers) for m in sent}


def test_message_with_neither_key_nor_value_is_refused(bus: Bus) -> None:
    with pytest.raises(ValueError, match=r"key or .*value"):
        bus.producer().publish([OutboundMessage(topic=bus.topic, key=None, value=None)])


def test_only_member_has_joined_once_it_holds_every_partition(bus: Bus) -> None:
    consumer = bus.consumer()
    assert not consumer.has_joined()
    wait_for(lambda: consumer.poll(0.1) or consumer.has_joined(), what="the group takes it in")
    assert consumer.assigned() == {TopicPartition(bus.topic, index) for index in range(PARTITIONS)}


def test_surplus_member_has_joined_although_it_holds_nothing(bus: Bus) -> None:
    members = [bus.consumer() for _ in range(PARTITIONS + 1)]
    wait_for_shares(
        members,
        lambda shares: (
            sorted(map(len, shares)) == [0, 1, 1, 1]
            and all(member.has_joined() for member in members)
        ),
    )


def test_records_of_one_key_share_a_partition_and_keep_their_order(bus: Bus) -> None:
    texts = [f"{number:03}" for number in range(100)]
    bus.publish(*texts, key="one prompt")
    got = take(bus.consumer(), len(texts))
    assert len({message.partition for message in got}) == 1
    assert [message.value for message in got] == [text.encode() for text in texts]
    assert [message.offset for message in got] == list(range(len(texts)))


def test_only_what_was_committed_stays_away_from_the_next_member(bus: Bus) -> None:
    bus.publish("a", "b", "c", "d", key="one prompt")
    first = bus.consumer()
    got = take(first, 4)
    name = TopicPartition(got[0].topic, got[0].partition)
    first.commit({name: 2})
    first.close()
    assert values_of(take(bus.consumer(), 2)) == ["c", "d"]


def test_member_that_closes_without_commit_leaves_everything_to_the_next(bus: Bus) -> None:
    bus.publish("a", "b", "c")
    first = bus.consumer()
    take(first, 3)
    first.close()
    assert values_of(take(bus.consumer(), 3)) == ["a", "b", "c"]


def test_each_group_gets_every_record(bus: Bus) -> None:
    bus.publish("a", "b")
    for group in ("judging", "monitoring"):
        assert values_of(take(bus.consumer(group), 2)) == ["a", "b"]


def test_members_share_all_partitions_and_a_survivor_takes_over(bus: Bus) -> None:
    first, second = bus.consumer(), bus.consumer()
    everything = {TopicPartition(bus.topic, index) for index in range(PARTITIONS)}
    wait_for_shares(
        [first, second],
        lambda shares: all(shares) and sorted(everything) == sorted([*shares[0], *shares[1]]),
    )
    bus.publish(*"abcdefgh")
    got = [*take(second, 1), *second.poll(1)]
    second.close()

    def is_alone() -> bool:
        late.extend(first.poll(0.2))
        return first.assigned() == everything and len(set(values_of(late))) == 8

    late: list[InboundMessage] = []
    wait_for(is_alone, what="the survivor gets what the other had not committed")
    assert set(values_of(got)) <= set(values_of(late))


def test_partitions_kept_when_a_member_joins_go_on_giving_records(bus: Bus) -> None:
    first = bus.consumer()
    bus.publish(*"abcdefgh")
    first.commit(ends_of(take(first, 8)))
    before = first.assigned()
    second = bus.consumer()
    wait_for_shares([first, second], lambda shares: sorted(map(len, shares)) == [1, 2])
    assert first.assigned() < before
    later = [f"later {number}" for number in range(40)]
    bus.publish(*later)
    got: dict[Consumer, list[InboundMessage]] = {first: [], second: []}

    def has_all() -> bool:
        for member, messages in got.items():
            messages.extend(member.poll(0.1))
        return sum(map(len, got.values())) >= len(later)

    wait_for(has_all, what="what was published later")
    assert values_of([*got[first], *got[second]]) == sorted(later)
    for member, messages in got.items():
        assert set(ends_of(messages)) == member.assigned()


def test_paused_partitions_give_nothing_until_they_are_resumed(bus: Bus) -> None:
    consumer = bus.consumer()
    bus.publish("before")
    consumer.commit(ends_of(take(consumer, 1)))
    held = consumer.assigned()
    consumer.pause(held)
    bus.publish("while paused")
    for _ in range(10):
        assert list(consumer.poll(0.1)) == []
    assert consumer.assigned() == held
    consumer.resume(held)
    assert values_of(take(consumer, 1)) == ["while paused"]


def test_pausing_a_partition_of_another_member_changes_nothing(bus: Bus) -> None:
    consumer = bus.consumer()
    bus.publish("a")
    take(consumer, 1)
    elsewhere = frozenset({TopicPartition(bus.topic, 99)})
    consumer.pause(elsewhere)
    consumer.resume(elsewhere)
    bus.publish("b")
    assert values_of(take(consumer, 1)) == ["b"]


def test_lag_is_what_has_not_been_polled(bus: Bus) -> None:
    consumer = bus.consumer()
    bus.publish("a", "b", "c")
    take(consumer, 3)

    def is_zero() -> bool:
        assert list(consumer.poll(0.1)) == []
        lag = consumer.lag()
        return bool(lag) and sum(lag.values()) == 0

    wait_for(is_zero, what="no lag")


def test_long_backlog_comes_in_bounded_polls(bus: Bus) -> None:
    texts = [f"{number:04}" for number in range(1_200)]
    bus.publish(*texts)
    consumer = bus.consumer()
    taken: list[InboundMessage] = []

    def has_all() -> bool:
        polled = consumer.poll(0.2)
        assert len(polled) <= 500
        taken.extend(polled)
        return len(taken) >= len(texts)

    wait_for(has_all, what="the whole backlog")
    assert values_of(taken) == texts


class NoText(str):
    """A header's name that is no text on the wire, as some other client might send it."""

    def encode(self, *_: object) -> bytes:
        return b"\xff\xfe"


@pytest.mark.integration
@pytest.mark.parametrize("kind", [BrokerKind.EMBEDDED, BrokerKind.LOCAL_KAFKA])
def test_record_that_no_client_can_read_is_told_and_passed_by(
    kind: BrokerKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kafka import KafkaProducer

    find_kafka(monkeypatch, kind)
    settings = settings_for(kind, tmp_path)
    topic = Topic.TRACES.of("w")
    with a_broker(settings) as address:
        make_topics(address, "w", settings)
        with closing(KafkaProducer(bootstrap_servers=address)) as foreign:
            for value, name in ((b"a", "fine"), (b"x", NoText("bad")), (b"b", "fine")):
                sent = foreign.send(topic, value, partition=1, headers=[(name, b"")])
                sent.get(timeout=15)
        with closing(join(address, settings, "g", [topic])) as consumer:
            got = take(consumer, 3)
            assert list(consumer.poll(0.5)) == []
            consumer.commit(ends_of(got))
        with closing(join(address, settings, "g", [topic])) as consumer:
            wait_for(lambda: consumer.poll(0.2) or consumer.has_joined(), what="its share")
            assert list(consumer.poll(0.5)) == []
    assert [(m.partition, m.offset, m.value) for m in got] == [
        (1, 0, b"a"),
        (1, 1, None),
        (1, 2, b"b"),
    ]
    assert "offsets 1 to 1 cannot be read" in str(got[1].fault)


def test_bus_in_memory_that_is_down_asks_to_try_later() -> None:
    bus = MemoryBus(wheel="w")
    topic = Topic.PROMPTS.of("w")
    consumer, producer = bus.consumer(group="g", topics=[topic]), bus.producer()
    bus.is_down = True
    for call in (
        lambda: consumer.poll(0),
        lambda: consumer.commit({}),
        lambda: producer.publish([a_message(topic, "v", "k")]),
    ):
        with pytest.raises(RetryLaterError, match="in memory does not answer"):
            call()
    bus.is_down = False
    producer.publish([a_message(topic, "v", "k")])
    assert values_of(consumer.poll(0)) == ["v"]


def test_member_in_memory_cannot_commit_before_it_takes_its_new_share() -> None:
    bus = MemoryBus(wheel="w")
    topics = [Topic.PROMPTS.of("w")]
    first = bus.consumer(group="g", topics=topics)
    first.poll(0)
    bus.consumer(group="g", topics=topics)
    with pytest.raises(RetryLaterError, match="poll first"):
        first.commit({TopicPartition(topics[0], 0): 1})


@pytest.mark.integration
def test_topics_are_made_once_and_with_the_partitions_of_the_settings(tmp_path: Path) -> None:
    settings = settings_for(BrokerKind.EMBEDDED, tmp_path)
    expected = {
        TopicPartition(topic.of("twice"), index) for topic in Topic for index in range(PARTITIONS)
    }
    with a_broker(settings) as address:
        for _ in range(2):
            make_topics(address, "twice", settings)
        topics = [topic.of("twice") for topic in Topic]
        with closing(join(address, settings, "g", topics)) as consumer:
            wait_for(lambda: consumer.poll(0.1) or consumer.assigned(), what="an assignment")
            assert consumer.assigned() == expected


@pytest.mark.integration
def test_record_above_the_limit_names_the_setting(tmp_path: Path) -> None:
    settings = settings_for(BrokerKind.EMBEDDED, tmp_path)
    with a_broker(settings) as address:
        make_topics(address, "w", settings)
        big = OutboundMessage(topic=Topic.TRACES.of("w"), key=b"k", value=os.urandom(4_100_000))
        with (
            closing(connect(address, settings)) as producer,
            pytest.raises(InvalidRecordError, match=r"raise broker\.max_message_bytes"),
        ):
            producer.publish([big])


@pytest.mark.integration
def test_lost_broker_is_named_and_its_clients_still_end_in_time(tmp_path: Path) -> None:
    settings = settings_for(BrokerKind.EMBEDDED, tmp_path)
    topic = Topic.TRACES.of("w")
    with a_broker(settings) as address:
        make_topics(address, "w", settings)
        consumer = join(address, settings, "g", [topic])
        producer = connect(address, settings)
        producer.publish([a_message(topic, "v", "k")])
        got = take(consumer, 1)
    started_s = time.monotonic()
    assert list(consumer.poll(0.1)) == []
    with pytest.raises(RetryLaterError, match=f"the broker at {address} does not answer"):
        consumer.commit(ends_of(got))
    with suppress(RetryLaterError):
        consumer.close()
    assert time.monotonic() - started_s < 20
    producer.close()


@pytest.mark.integration
def test_producer_waits_no_longer_for_a_lost_broker_than_it_was_told(tmp_path: Path) -> None:
    from deltawheel.infra.kafka_bus import KafkaBusProducer

    settings = settings_for(BrokerKind.EMBEDDED, tmp_path)
    messages = [a_message(Topic.TRACES.of("w"), str(number), "k") for number in range(100)]
    threads_before = threading.active_count()
    with a_broker(settings) as address:
        make_topics(address, "w", settings)
        producer = KafkaBusProducer(address, broker=settings.broker, timeout_s=1)
        producer.publish(messages)
    started_s = time.monotonic()
    with pytest.raises(RetryLaterError, match=f"the broker at {address} does not answer"):
        producer.publish(messages)
    assert time.monotonic() - started_s < 5
    producer.close()
    assert time.monotonic() - started_s < 15
    assert threading.active_count() == threads_before


@pytest.mark.integration
def test_producer_made_before_its_broker_is_there_publishes_once_it_is(tmp_path: Path) -> None:
    settings = settings_for(BrokerKind.EMBEDDED, tmp_path)
    message = a_message(Topic.TRACES.of("w"), "1", "k")
    from deltawheel.infra.kafka_bus import KafkaBusProducer

    address = f"127.0.0.1:{settings.broker.port}"
    with closing(KafkaBusProducer(address, broker=settings.broker, timeout_s=1)) as producer:
        started_s = time.monotonic()
        for _ in range(20):
            with pytest.raises(RetryLaterError, match=f"the broker at {address} does not answer"):
                producer.publish([message])
        assert time.monotonic() - started_s < 10, "who comes soon after fails at once"
        with a_broker(settings):
            make_topics(address, "w", settings)
            wait_for(lambda: published(producer, message), what="it connects")


def published(producer: "KafkaBusProducer", message: OutboundMessage) -> bool:
    try:
        producer.publish([message])
    except RetryLaterError:
        return False
    return True


@pytest.mark.integration
def test_broker_that_is_not_there_is_named(tmp_path: Path) -> None:
    settings = settings_for(BrokerKind.EMBEDDED, tmp_path)
    address = f"127.0.0.1:{settings.broker.port}"
    open_before, threads_before = set(os.listdir("/proc/self/fd")), threading.active_count()
    for open_client in (
        lambda: connect(address, settings).publish([a_message(Topic.TRACES.of("w"), "1", "k")]),
        lambda: join(address, settings, "g", [Topic.TRACES.of("w")]),
        lambda: make_topics(address, "w", settings),
    ):
        with pytest.raises(RetryLaterError, match=f"the broker at {address} does not answer"):
            open_client()
    assert threading.active_count() == threads_before
    assert set(os.listdir("/proc/self/fd")) <= open_before
