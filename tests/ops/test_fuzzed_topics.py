"""A running wheel on real Kafka, garbage on every topic: no stall, no crash, nothing is lost."""

import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition

from deltawheel.contracts.dead_letter import DeadLetter
from deltawheel.contracts.errors import InvalidRecordError
from deltawheel.contracts.events import InboundMessage, OutboundMessage, decode, encode
from deltawheel.contracts.judgement import Score
from deltawheel.contracts.outcome import Outcome
from deltawheel.contracts.prompt import PromptKey
from deltawheel.contracts.record import Record
from deltawheel.contracts.store import Group, Store
from deltawheel.contracts.topics import Topic
from deltawheel.services.runtime.dead_letters import make_letter
from tests.components import kafka_home, require
from tests.fuzz import as_polled, fuzzed_messages
from tests.records import T0, a_prompt_failure, a_slot_failure
from tests.servers import endpoints
from tests.waiting import wait_for
from tests.wheels import Wheel, running_up

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

log = logging.getLogger(__name__)

PER_TOPIC = int(os.environ.get("DELTAWHEEL_FUZZED_MESSAGES", "10000"))
NUM_NAMELESS = 3
"""Messages per topic with a header whose name is no text."""
LONGEST = 4_000_000
"""Bytes of the longest record that the topics take, broker.max_message_bytes."""
WHEEL = "default"
READERS: Mapping[Topic, tuple[str, ...]] = {
    Topic.PROMPTS: ("generation", "monitoring"),
    Topic.TRACES: ("judging", "monitoring"),
    Topic.JUDGEMENTS: ("curation", "monitoring"),
    Topic.PAIRS: ("monitoring",),
    Topic.PROMOTIONS: ("generation", "monitoring"),
    Topic.DEAD_LETTERS: (),
}
SERVICES = ("generation", "judging", "curation", "monitoring")


class NoText(str):
    """A header's name that is no text on the wire, as some other client might send it."""

    def encode(self, *_: object) -> bytes:
        return b"\xff\xfe"


@dataclass
class Flood:
    """What was sent to the broker besides the wheel's own events, and where it came to stand."""

    address: str
    sent: list[InboundMessage] = field(default_factory=list)

    def pour(self, messages: Sequence[OutboundMessage]) -> None:
        """Send with a client that is not ours, and wait until the broker has all."""
        producer = Producer(
            {"bootstrap.servers": self.address, "linger.ms": 5, "message.max.bytes": 2 * LONGEST}
        )
        for message in messages:
            while True:
                try:
                    self._produce(producer, message)
                    break
                except BufferError:
                    producer.poll(0.1)
        assert producer.flush(60) == 0

    def _produce(self, producer: Producer, message: OutboundMessage) -> None:
        def note(error: KafkaError | None, delivered: Message) -> None:
            assert error is None, error
            place = {"partition": delivered.partition(), "offset": delivered.offset()}
            self.sent.append(as_polled(message, **place))

        producer.produce(
            message.topic,
            key=message.key,
            value=message.value,
            headers=list(message.headers),
            on_delivery=note,
        )

    def pour_nameless(self, topic: str, count: int) -> None:
        """Send messages, each in a batch of its own, that no client can read."""
        from kafka import KafkaProducer

        with closing(KafkaProducer(bootstrap_servers=self.address)) as producer:
            for number in range(count):
                headers = [(NoText("bad"), b"")]
                sent = producer.send(topic, b"%d" % number, headers=headers).get(timeout=30)
                empty = OutboundMessage(topic=topic, key=None, value=None)
                self.sent.append(
                    replace(
                        as_polled(empty, partition=sent.partition, offset=sent.offset),
                        fault="a header's name is no text",
                    )
                )

    def letters(self) -> dict[str, InboundMessage]:
        """Return the letters that must come of it; what is the same to a service is one."""
        return {
            _letter(message, service).letter_id: message
            for message in self.sent
            for service in _refusing(message)
        }


def _letter(message: InboundMessage, service: str) -> DeadLetter:
    return make_letter(message, None, InvalidRecordError(""), service=service, at=T0)


def _refusing(message: InboundMessage) -> Iterator[str]:
    """Yield who makes a dead letter of garbage: all where it cannot be read, else all but one."""
    readers = READERS[Topic(message.topic.removeprefix(f"{WHEEL}."))]
    try:
        decode(message, wheel=WHEEL)
    except InvalidRecordError:
        yield from readers
    else:
        yield from (service for service in readers if service != "monitoring")


def forged(group: Group) -> Iterator[Record]:
    """Yield well-formed lies about a prompt that the store holds; none may change anything."""
    assert group.assignment is not None
    yield group.prompt.model_copy(update={"reference_answer": group.prompt.reference_answer})
    for trace in group.traces.values():
        yield trace.model_copy(update={"answer": "forged", "completion_tokens": 1})
    for judgement in group.judgements:
        scores = {name: Score(mean=1 if s.mean > 3 else 5) for name, s in judgement.scores.items()}
        yield judgement.model_copy(update={"scores": scores})
        yield judgement.model_copy(update={"judge_revision": "forged"})
    yield a_slot_failure(group.assignment, 0, reason="forged")
    yield a_slot_failure(group.assignment, 7, reason="forged").model_copy(update={"attempt": 9})
    yield a_prompt_failure(group.prompt, reason="forged")


def nearly_too_long(topic: Topic) -> Iterator[OutboundMessage]:
    """Yield garbage beyond compression, with and without room for a dead letter's headers."""
    for spare in (50_000, 1_600, 300):
        value = Random(f"{topic} {spare}").randbytes(LONGEST - spare)
        yield OutboundMessage(topic=topic.of(WHEEL), key=b"long", value=value)


def sums(numbers: range) -> list[dict[str, Any]]:
    return [{"text": f"How much is {n} + {n}?", "reference_answer": str(2 * n)} for n in numbers]


@pytest.fixture
def wheel(tmp_path: Path) -> Iterator[Wheel]:
    require("kafka")
    with ExitStack() as stack:
        models = stack.enter_context(endpoints())
        settings = {**models, "broker": {"kind": "local-kafka"}}
        env = {"KAFKA_HOME": str(kafka_home() or "")}
        yield stack.enter_context(running_up(tmp_path / "home", settings, env=env))


def held(store: Store, ids: Sequence[str]) -> list[Group]:
    groups = [store.group(PromptKey(prompt_id, 0)) for prompt_id in ids]
    return [group for group in groups if group is not None]


def num_behind(address: str, service: str) -> int:
    """Return how many records of its topics a service has not committed yet."""
    topics = [topic.of(WHEEL) for topic, readers in READERS.items() if service in readers]
    consumer = Consumer({"bootstrap.servers": address, "group.id": f"{WHEEL}.{service}"})
    try:
        partitions = [
            TopicPartition(topic, partition)
            for topic in topics
            for partition in consumer.list_topics(topic, timeout=30).topics[topic].partitions
        ]
        behind = 0
        for place in consumer.committed(partitions, timeout=30):
            low, high = consumer.get_watermark_offsets(
                TopicPartition(place.topic, place.partition), timeout=30
            )
            behind += high - max(place.offset, low)
        return behind
    finally:
        consumer.close()


def test_garbage_on_every_topic_becomes_dead_letters_while_prompts_flow(wheel: Wheel) -> None:
    pids = {name: wheel.service_pid(name) for name in SERVICES}
    early = wheel.submit(sums(range(20)))
    wheel.drained()
    before = held(wheel.store, early)

    flood = Flood(wheel.run["broker"])
    garbage = [
        message
        for topic in Topic
        for message in fuzzed_messages(topic, PER_TOPIC, wheel=WHEEL, seed=11)
    ]
    lies = [
        encode(lie, wheel=WHEEL, service="stranger") for group in before for lie in forged(group)
    ]
    accepted = list(early)

    def submit_meanwhile() -> None:
        for start in range(100, 1_100, 50):
            accepted.extend(wheel.submit(sums(range(start, start + 50))))

    client = threading.Thread(target=submit_meanwhile)
    started_s = time.monotonic()
    client.start()
    for topic in Topic:
        flood.pour_nameless(topic.of(WHEEL), NUM_NAMELESS)
    flood.pour(garbage)
    for topic in Topic:
        flood.pour(list(nearly_too_long(topic)))
    Flood(flood.address).pour(lies)
    client.join()
    accepted += wheel.submit(sums(range(2_000, 2_050)))

    wheel.drained(timeout_s=600)
    drained_s = time.monotonic() - started_s
    for service in SERVICES:
        wait_for(
            lambda name=service: num_behind(flood.address, name) == 0,  # type: ignore[misc]
            timeout_s=600,
            what=f"{service} has committed everything",
        )
    settled_s = time.monotonic() - started_s

    expected = flood.letters()
    letters = {letter.letter_id: letter for letter in wheel.store.dead_letters(10**6)}
    log.info(
        "%d messages, %d letters: every prompt closed in %.0f s, no lag after %.0f s",
        len(flood.sent),
        len(letters),
        drained_s,
        settled_s,
    )
    assert letters.keys() == expected.keys()
    for letter_id, message in expected.items():
        letter = letters[letter_id]
        assert (letter.topic, letter.key, letter.value) == (
            message.topic,
            message.key,
            message.value,
        )
        assert letter.reason

    audit = wheel.cli("audit")
    assert (audit["is_clean"], audit["in_flight"]) == (True, 0)
    assert audit["prompts"] == len(set(accepted))
    assert audit["outcomes"] == {Outcome.PAIRED.value: len(set(accepted))}
    assert held(wheel.store, early) == before, "lies about what is stored change nothing"

    processes = wheel.run["processes"]
    assert {state["num_restarts"] for state in processes} == {0}
    assert {name: wheel.service_pid(name) for name in SERVICES} == pids
