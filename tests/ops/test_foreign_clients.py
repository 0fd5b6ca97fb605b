"""Clients that are not ours read every topic of a running wheel, and the schemas hold."""

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from deltawheel.contracts.dead_letter import DeadLetter
from deltawheel.contracts.events import encode
from deltawheel.contracts.pool import Pool
from deltawheel.contracts.promotion import Promotion
from deltawheel.contracts.settings import BrokerKind
from deltawheel.contracts.topics import EVENT_TYPES, Topic
from deltawheel.infra import wiring
from tests.components import ROOT, kafka_home, require
from tests.servers import endpoints
from tests.waiting import wait_for
from tests.wheels import Wheel, running_up

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

SCHEMAS = ROOT / "contracts" / "schemas"
GARBAGE = b"{garbage"
ATTRIBUTES = {"ce_specversion", "ce_id", "ce_source", "ce_type", "content-type"}
CARRYING = tuple(topic for topic in Topic if topic is not Topic.DEAD_LETTERS)


@dataclass(frozen=True)
class Message:
    topic: str
    key: str
    headers: dict[str, str]
    value: bytes


def check(message: Message) -> None:
    """Validate a message by the checked-in schema that its type names, and its key by its body."""
    assert message.headers.keys() >= ATTRIBUTES
    assert message.headers["ce_specversion"] == "1.0"
    schema = json.loads((SCHEMAS / f"{message.headers['ce_type']}.json").read_text())
    body: dict[str, Any] = json.loads(message.value)
    Draft202012Validator(schema).validate(body)
    inner = body.get("pair", body).get("prompt", body)
    assert message.key == inner.get("prompt_id", body.get("model_name"))


@pytest.fixture(params=["embedded", "local-kafka"])
def wheel(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Wheel]:
    """A wheel of two stub endpoints that has stored pairs, a dead letter and a promotion event."""
    if request.param == "local-kafka":
        require("kafka")
        require("kcat")
    env = {**os.environ, "KAFKA_HOME": str(kafka_home() or "")}
    with endpoints() as models:
        settings = {**models, "broker": {"kind": request.param}}
        with running_up(tmp_path / "home", settings, env=env) as wheel:
            bodies = [
                {"text": f"How much is {n} + {n}?", "reference_answer": str(2 * n)}
                for n in range(10)
            ]
            wheel.submit([*bodies, {"text": "How much is it?"}])
            wheel.drained()
            promote(wheel)
            yield wheel


def promote(wheel: Wheel) -> None:
    """Announce a promotion as the training service does; generation takes the model in."""
    stronger = Pool.from_log(wheel.store.pool_log()).ranked()[0]
    promotion = Promotion(
        cycle_id="cycle-1",
        model_name=wheel.settings.registered_model,
        version="1",
        replaces=None,
        generator=stronger.model_copy(update={"name": "promoted", "lineage_depth": 1}),
        promoted_at=wiring.system_clock().now(),
    )
    wheel.store.add_promotion(promotion)
    producer = wiring.open_producer(wheel.settings)
    producer.publish([encode(promotion, wheel="default", service="training")])
    producer.close()
    wait_for(
        lambda: "promoted" in Pool.from_log(wheel.store.pool_log()).promoted,
        what="the promoted generator joins the pool",
    )


def read_with_confluent(wheel: Wheel, topics: list[str], count: int) -> list[Message]:
    from confluent_kafka import Consumer

    consumer = Consumer(
        {
            "bootstrap.servers": wheel.run["broker"],
            "group.id": "foreign",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    messages: list[Message] = []
    consumer.subscribe(topics)
    try:

        def poll() -> bool:
            record = consumer.poll(0.5)
            if record is not None and record.error() is None:
                headers = {name: value.decode() for name, value in record.headers() or ()}
                key = record.key().decode()
                messages.append(Message(record.topic(), key, headers, record.value()))
            return len(messages) >= count

        wait_for(poll, timeout_s=60, what=f"{count} messages of {topics}")
    finally:
        consumer.close()
    return messages


def read_with_kcat(wheel: Wheel, topic: str) -> list[Message]:
    argv = ["kcat", "-b", wheel.run["broker"], "-C", "-t", topic, "-e", "-q", "-J"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    messages = []
    for line in done.stdout.splitlines():
        record = json.loads(line)
        flat = record["headers"]
        headers = dict(zip(flat[::2], flat[1::2], strict=True))
        messages.append(Message(topic, record["key"], headers, record["payload"].encode()))
    return messages


def is_on_kafka(wheel: Wheel) -> bool:
    return wheel.settings.broker.kind is BrokerKind.LOCAL_KAFKA


def test_every_message_validates_for_a_foreign_client(wheel: Wheel) -> None:
    names = [topic.of("default") for topic in CARRYING]
    progress = wheel.store.progress()
    slot_ends = 2 * progress.prompts
    count = progress.prompts + progress.traces + slot_ends + progress.pairs + 1
    messages = read_with_confluent(wheel, names, count)
    for message in messages:
        check(message)
    assert {message.topic for message in messages} == set(names)
    known = {kind.name for kind in EVENT_TYPES}
    assert {message.headers["ce_type"] for message in messages} <= known
    if is_on_kafka(wheel):
        for name in names:
            read = read_with_kcat(wheel, name)
            assert read, name
            for message in read:
                check(message)


def test_dead_letter_keeps_the_original_bytes_and_says_why(wheel: Wheel) -> None:
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": wheel.run["broker"]})
    producer.produce("default.traces", key=b"stranger", value=GARBAGE, headers={"own": b"1"})
    producer.flush(10)

    def letters() -> dict[str, DeadLetter]:
        return {it.service: it for it in wheel.store.dead_letters(10) if it.value == GARBAGE}

    wait_for(lambda: letters().keys() == {"judging", "monitoring"}, what="both who read it bury it")
    before = wheel.store.progress()
    wheel.submit([{"text": "How much is 77 + 77?", "reference_answer": "154"}])
    wheel.drained()
    assert wheel.store.progress().closed == before.closed + 1, "later records flow"

    topic = Topic.DEAD_LETTERS.of("default")
    read = read_with_confluent(wheel, [topic], wheel.store.progress().dead_letters)
    buried = {m.headers["__connect.errors.stage"]: m for m in read if m.value == GARBAGE}
    assert buried.keys() == letters().keys()
    for service, message in buried.items():
        assert message.key == "stranger"
        assert message.headers["own"] == "1"
        assert message.headers["__connect.errors.topic"] == "default.traces"
        assert message.headers["__connect.errors.exception.class.name"] == "InvalidRecordError"
        reason = message.headers["__connect.errors.exception.message"]
        assert "ce_type" in reason
        assert reason == letters()[service].reason
    if is_on_kafka(wheel):
        assert GARBAGE in [message.value for message in read_with_kcat(wheel, topic)]
