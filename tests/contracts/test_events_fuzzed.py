"""Whatever comes from a topic is read or refused: nothing else, and in little memory."""

import json
import tracemalloc
from collections import Counter
from dataclasses import replace
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deltawheel.contracts.errors import InvalidRecordError
from deltawheel.contracts.events import OutboundMessage, decode, encode
from deltawheel.contracts.record import Record
from deltawheel.contracts.topics import EVENT_TYPES, EventType, Topic
from tests.fuzz import FAULTS, Fault, as_polled, fuzzed, fuzzed_messages, unspoilt, valid_messages
from tests.records import WHEEL

every_topic = pytest.mark.parametrize("topic", Topic)
every_event_type = pytest.mark.parametrize("kind", EVENT_TYPES, ids=lambda kind: str(kind.name))
thoroughly = settings(
    max_examples=200, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def read_or_refuse(message: OutboundMessage) -> Record | str:
    """Return the record, or the reason for which there is none; any other end fails the test."""
    try:
        return decode(as_polled(message), wheel=WHEEL)
    except InvalidRecordError as error:
        reason = str(error)
    assert reason.encode()
    assert len(reason) < 2_500
    return reason


@every_topic
@thoroughly
@given(data=st.data())
def test_spoilt_message_is_read_or_refused(topic: Topic, data: st.DataObject) -> None:
    found = read_or_refuse(data.draw(fuzzed(topic, wheel=WHEEL)))
    if isinstance(found, Record):
        again = encode(found, wheel=WHEEL, service="test")
        assert decode(as_polled(again), wheel=WHEEL) == found


@pytest.mark.integration
@every_topic
def test_ten_thousand_spoilt_messages_are_read_or_refused(topic: Topic) -> None:
    messages = fuzzed_messages(topic, 10_000, wheel=WHEEL, seed=0)
    found = Counter(isinstance(read_or_refuse(message), Record) for message in messages)
    assert found.total() == 10_000
    assert found[False] > 5_000
    assert found[True] > 1_000 or topic is Topic.DEAD_LETTERS


def test_same_seed_spoils_alike_and_another_one_does_not() -> None:
    first, same, other = (
        list(fuzzed_messages(Topic.TRACES, 50, wheel=WHEEL, seed=seed)) for seed in (0, 0, 1)
    )
    assert first == same != other


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: getattr(fault, "__name__", "?"))
def test_every_fault_spoils_something(fault: Fault) -> None:
    random = Random(0)
    spoilt = [fault(random, message) for message in valid_messages(Topic.PROMPTS, wheel=WHEEL)]
    is_changed = spoilt != list(valid_messages(Topic.PROMPTS, wheel=WHEEL))
    assert is_changed == (fault is not unspoilt)


@every_topic
@settings(parent=thoroughly, max_examples=50)
@given(data=st.data())
def test_large_payload_is_read_as_the_same_in_small_is(topic: Topic, data: st.DataObject) -> None:
    message = data.draw(fuzzed(topic, wheel=WHEEL))
    padded = replace(message, value=message.value and message.value + b" " * 100_000)
    small, large = read_or_refuse(message), read_or_refuse(padded)
    if isinstance(small, Record):
        assert large == small
    else:
        assert isinstance(large, str)


WRONG = (f"[{','.join(['1'] * 100_000)}]", json.dumps(dict.fromkeys(range(20_000), 1)))
"""200 KB of elements, each of which may be wrong on its own, as a list and as a mapping."""


@every_event_type
@pytest.mark.parametrize("wrong", WRONG, ids=["list", "mapping"])
def test_many_faults_in_one_record_cost_little_memory(kind: EventType, wrong: str) -> None:
    """Described one by one, they took 3 GB and 15 s for a record of 4 MB."""
    message = next(
        message
        for message in valid_messages(kind.topic, wheel=WHEEL)
        if dict(message.headers)["ce_type"] == kind.name.encode()
    )
    spoilt = [f'{{"later":{wrong}}}']
    for name in (*kind.record.model_fields, "later"):
        whole = json.loads(message.value or b"")
        whole[name] = "@hole@"
        spoilt.append(json.dumps(whole).replace('"@hole@"', wrong))
    for text in spoilt:
        assert traced_peak_bytes(replace(message, value=text.encode())) < 10_000_000


def traced_peak_bytes(message: OutboundMessage) -> int:
    """Return how much memory reading the message took at most."""
    tracemalloc.start()
    try:
        read_or_refuse(message)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_name_as_long_as_its_record_is_shown_shortened() -> None:
    [message, *_] = (
        message
        for message in valid_messages(Topic.JUDGEMENTS, wheel=WHEEL)
        if dict(message.headers)["ce_type"] == b"io.deltawheel.trace.judged.v1"
    )
    body = json.loads(message.value or b"")
    body["scores"] = {"x" * 1_000_000: 1}
    reason = read_or_refuse(replace(message, value=json.dumps(body).encode()))
    assert isinstance(reason, str)
    assert reason.startswith("not a valid Judgement: scores.xxx")
    assert len(reason) < 500
