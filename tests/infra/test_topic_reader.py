"""Topics read beside all groups, on real brokers: all of each, and nothing is joined or moved."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from deltawheel.contracts.errors import RetryLaterError
from deltawheel.contracts.events import encode
from deltawheel.contracts.ports import TopicPartition
from deltawheel.contracts.settings import BrokerKind, BrokerSettings, Settings
from deltawheel.contracts.topics import Topic
from deltawheel.infra import wiring
from deltawheel.infra.listening import find_free_port
from tests.components import require
from tests.infra.test_bus_contract import a_broker
from tests.records import WHEEL, a_prompt
from tests.waiting import wait_for

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(300),
    # kafka-python reads its schemas that way as it is imported, inside the adapters.
    pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning"),
]

PROMPTS = Topic.PROMPTS.of(WHEEL)
GROUP = f"{WHEEL}.generation"


@pytest.fixture(params=[BrokerKind.EMBEDDED, BrokerKind.LOCAL_KAFKA])
def running(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    if request.param is BrokerKind.LOCAL_KAFKA:
        require("kafka")
    broker = BrokerSettings(kind=request.param, port=find_free_port(), partitions=3)
    settings = Settings(wheel=WHEEL, home=tmp_path, broker=broker)
    with a_broker(settings):
        wiring.make_topics(settings)
        yield settings


def test_offsets_and_records_are_read_beside_the_group_that_works(running: Settings) -> None:
    events = [encode(a_prompt(f"{number}+1="), wheel=WHEEL, service="test") for number in range(20)]
    with closing(wiring.open_producer(running)) as producer:
        producer.publish(events[:15])
    with closing(wiring.open_consumer(running, group="generation", topics=[Topic.PROMPTS])) as one:
        ends: dict[TopicPartition, int] = {}
        wait_for(lambda: poll_into(one, ends) == 15, what="15 prompts")
        one.commit(ends)
        with closing(wiring.open_producer(running)) as producer:
            producer.publish(events[15:])
        with wiring.reading_topics(running) as reader:
            [offset] = reader.offsets({GROUP: [PROMPTS]})
            read = list(reader.messages([PROMPTS, Topic.PAIRS.of(WHEEL)]))
            [again] = reader.offsets({GROUP: [PROMPTS]})
    assert (offset.committed, offset.end, offset.lag) == (15, 20, 5)
    assert offset.positions == {partition.partition: end for partition, end in ends.items()}
    assert again == offset
    assert sorted(message.value or b"" for message in read) == sorted(
        event.value or b"" for event in events
    )
    assert all(dict(message.headers)["ce_specversion"] == b"1.0" for message in read)


def poll_into(consumer: object, ends: dict[TopicPartition, int]) -> int:
    for message in consumer.poll(0.2):  # type: ignore[attr-defined]
        ends[TopicPartition(message.topic, message.partition)] = message.offset + 1
    return sum(ends.values())


def test_group_that_never_read_has_everything_before_it(running: Settings) -> None:
    event = encode(a_prompt(), wheel=WHEEL, service="test")
    with closing(wiring.open_producer(running)) as producer:
        producer.publish([event])
    with wiring.reading_topics(running) as reader:
        [offset] = reader.offsets({"nobody": [PROMPTS]})
    assert (offset.committed, offset.end) == (0, 1)


def test_broker_that_is_away_is_said_so(tmp_path: Path) -> None:
    broker = BrokerSettings(kind=BrokerKind.EMBEDDED, port=find_free_port())
    settings = Settings(wheel=WHEEL, home=tmp_path, broker=broker)
    with (
        pytest.raises(RetryLaterError, match="broker"),
        wiring.reading_topics(settings, timeout_s=1),
    ):
        pass
