"""The wire: what goes out comes back the same, and garbage is refused with a reason."""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from deltawheel.contracts.errors import InvalidRecordError
from deltawheel.contracts.events import (
    InboundMessage,
    decode,
    encode,
    event_id,
    key_of,
    most_wire_bytes,
    num_wire_bytes,
)
from deltawheel.contracts.generated import generated_files
from deltawheel.contracts.prompt import PromptKey
from deltawheel.contracts.record import MAX_COUNT, Record
from deltawheel.contracts.topics import EVENT_TYPES, EventType, Topic
from tests.contracts.strategies import EVENTS
from tests.records import (
    WHEEL,
    a_generator,
    a_judgement,
    a_pair,
    a_promotion,
    a_prompt,
    a_prompt_failure,
    a_quarantined_pair,
    a_slot_failure,
    a_trace,
    an_assignment,
    seconds,
)

EXAMPLES: dict[str, Record] = {
    type(record).__name__: record
    for record in (
        a_prompt(),
        a_trace(),
        a_judgement(),
        a_slot_failure(),
        a_prompt_failure(),
        a_pair(),
        a_quarantined_pair(),
        a_promotion(),
    )
}
FILES = generated_files()
SCHEMAS = {kind.name: json.loads(FILES[f"schemas/{kind.name}.json"]) for kind in EVENT_TYPES}
every_event_type = pytest.mark.parametrize("kind", EVENT_TYPES, ids=lambda kind: str(kind.name))
quickly = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def as_received(record: Record, **changes: Any) -> InboundMessage:
    """Return the record as a broker gives it, or falsified."""
    sent = encode(record, wheel=WHEEL, service="test")
    given_back = {
        "topic": sent.topic,
        "partition": 0,
        "offset": 0,
        "key": sent.key,
        "value": sent.value,
        "headers": sent.headers,
    }
    return InboundMessage(**{**given_back, **changes})


def body_of(record: Record) -> Any:
    return json.loads(as_received(record).value or b"")


def refusal_of(message: InboundMessage) -> str:
    """Return the reason for which a message is refused; any other end fails the test."""
    with pytest.raises(InvalidRecordError) as caught:
        decode(message, wheel=WHEEL)
    assert str(caught.value)
    return str(caught.value)


def accepts_or_refuses(message: InboundMessage) -> None:
    """Decode; nothing but a record or a refusal may come of it."""
    with suppress(InvalidRecordError):
        encode(decode(message, wheel=WHEEL), wheel=WHEEL, service="test")


@every_event_type
@quickly
@given(data=st.data())
def test_decoding_what_was_encoded_gives_the_same_record(
    kind: EventType, data: st.DataObject
) -> None:
    record = data.draw(EVENTS[kind.record])
    assert decode(as_received(record), wheel=WHEEL) == record


@every_event_type
@quickly
@given(data=st.data())
def test_encoding_what_was_decoded_gives_the_same_bytes(
    kind: EventType, data: st.DataObject
) -> None:
    message = as_received(data.draw(EVENTS[kind.record]))
    again = as_received(decode(message, wheel=WHEEL))
    assert (again.key, again.value, again.headers) == (message.key, message.value, message.headers)


@every_event_type
@settings(parent=quickly, max_examples=10)
@given(data=st.data())
def test_what_is_sent_is_what_its_schema_promises(kind: EventType, data: st.DataObject) -> None:
    schema = SCHEMAS[kind.name]
    Draft202012Validator(schema).validate(body_of(data.draw(EVENTS[kind.record])))


@every_event_type
def test_headers_are_the_attributes_of_a_cloud_event(kind: EventType) -> None:
    record = EXAMPLES[kind.record.__name__]
    headers = dict(as_received(record).headers)
    assert headers == {
        "ce_specversion": b"1.0",
        "ce_id": event_id(record).encode(),
        "ce_source": b"/deltawheel/test/test",
        "ce_type": kind.name.encode(),
        "content-type": b"application/json",
    }


@every_event_type
def test_headers_of_others_and_their_order_do_not_matter(kind: EventType) -> None:
    record = EXAMPLES[kind.record.__name__]
    headers = (("traceparent", b"\xff"), *reversed(as_received(record).headers))
    assert decode(as_received(record, headers=headers), wheel=WHEEL) == record


# What cannot be read


@every_event_type
@quickly
@given(data=st.data())
def test_truncated_payload_is_refused(kind: EventType, data: st.DataObject) -> None:
    record = EXAMPLES[kind.record.__name__]
    whole = as_received(record).value or b""
    value = whole[: data.draw(st.integers(0, len(whole) - 1))]
    assert f"not a valid {kind.record.__name__}: payload: Invalid JSON" in refusal_of(
        as_received(record, value=value)
    )


@every_event_type
@quickly
@given(value=st.binary())
def test_bytes_of_any_kind_are_refused(kind: EventType, value: bytes) -> None:
    refusal_of(as_received(EXAMPLES[kind.record.__name__], value=value))


@every_event_type
@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"1",
        b'"text"',
        b"\xff\xfe{}",
        b"\x00" * 100,
        b"NaN",
        b"9" * 10_000,
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"prompt_id": "\xc3\x28"}',
        b'{"prompt_id": "\x00"}',
        b'{"prompt_id": "\\ud800"}',
    ],
    ids=lambda value: repr(value[:16]),
)
def test_payload_that_is_no_such_record_is_refused(kind: EventType, value: bytes) -> None:
    reason = refusal_of(as_received(EXAMPLES[kind.record.__name__], value=value))
    assert reason.startswith(f"not a valid {kind.record.__name__}: ")
    assert len(reason) < 1_000


@every_event_type
def test_message_without_payload_is_refused(kind: EventType) -> None:
    message = as_received(EXAMPLES[kind.record.__name__], value=None)
    assert refusal_of(message) == f"{kind.name} came without a payload"


GARBAGE = {
    "null": "null",
    "list": "[]",
    "mapping": "{}",
    "text": '"x"',
    "NUL": '"\\u0000"',
    "lone surrogate": '"\\ud800"',
    "true": "true",
    "minus one": "-1",
    "fraction": "0.5",
    "NaN": "NaN",
    "infinity": "Infinity",
    "NaN as text": '"NaN"',
    "larger than a column": "99999999999999999999999999",
    "larger than a float": "1e400",
    "smaller than a float": "1e-999999",
    "longer than an integer may be": "9" * 5_000,
    "after the last year in UTC": '"9999-12-31T23:59:59-23:00"',
    "before the first year in UTC": '"0001-01-01T00:00:00+23:00"',
    "nested deeply": "[" * 5_000 + "]" * 5_000,
}
_HOLE = "@hole@"


def falsified(body: Any, garbage: str) -> Iterator[tuple[str, bytes]]:
    """Yield the payload once for each of its values, with the garbage in that value's place."""
    for holder, key, path in _places(body, ""):
        kept, holder[key] = holder[key], _HOLE
        yield path, json.dumps(body).replace(f'"{_HOLE}"', garbage).encode()
        holder[key] = kept


def _places(body: Any, path: str) -> Iterator[tuple[Any, Any, str]]:
    for key in list(body) if isinstance(body, dict) else range(len(body)):
        yield body, key, f"{path}.{key}"
        if isinstance(body[key], dict | list):
            yield from _places(body[key], f"{path}.{key}")


@every_event_type
@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_in_any_place_is_read_or_refused_and_nothing_else(
    kind: EventType, garbage: str
) -> None:
    record = EXAMPLES[kind.record.__name__]
    for path, value in falsified(body_of(record), garbage):
        try:
            accepts_or_refuses(as_received(record, value=value))
        except Exception as error:
            raise AssertionError(f"{garbage[:40]} in {path} is not refused: {error!r}") from error


@every_event_type
def test_no_field_may_be_missing_unless_it_has_a_default(kind: EventType) -> None:
    record = EXAMPLES[kind.record.__name__]
    for name, field in kind.record.model_fields.items():
        body = body_of(record)
        del body[name]
        message = as_received(record, value=json.dumps(body).encode())
        if field.is_required():
            assert f"{name}: Field required" in refusal_of(message)
        else:
            decode(message, wheel=WHEEL)


@pytest.mark.parametrize(
    ("record", "path"),
    [
        (a_prompt(), "round"),
        (a_trace(), "round"),
        (a_trace(), "slot"),
        (a_trace(), "prompt_tokens"),
        (a_trace(), "completion_tokens"),
        (a_judgement(), "round"),
        (a_judgement(), "slot"),
        (a_slot_failure(), "round"),
        (a_slot_failure(), "slot"),
        (a_slot_failure(), "attempt"),
        (a_prompt_failure(), "round"),
        (a_prompt_failure(), "attempt"),
    ],
)
@pytest.mark.parametrize("number", [-1, MAX_COUNT + 1, 2**63, 10**30])
def test_number_that_no_integer_column_holds_is_refused_before_it_reaches_the_store(
    record: Record, path: str, number: int
) -> None:
    value = json.dumps({**body_of(record), path: number}).encode()
    assert f"{path}: Input should be" in refusal_of(as_received(record, value=value))


@pytest.mark.parametrize("at", ["9999-12-31T23:59:59-00:01", "0001-01-01T00:00:00+00:01"])
def test_time_that_utc_cannot_say_is_refused(at: str) -> None:
    value = json.dumps({**body_of(a_prompt()), "accepted_at": at}).encode()
    reason = refusal_of(as_received(a_prompt(), value=value))
    assert "accepted_at: Value error, lies outside of the years 1 to 9999" in reason


def test_time_without_zone_is_refused() -> None:
    value = json.dumps({**body_of(a_prompt()), "accepted_at": "2026-01-01T00:00:00"}).encode()
    assert "accepted_at: Input should have timezone" in refusal_of(
        as_received(a_prompt(), value=value)
    )


def test_score_that_is_no_number_is_refused() -> None:
    body = body_of(a_judgement())
    body["scores"]["factuality"]["mean"] = float("nan")
    reason = refusal_of(as_received(a_judgement(), value=json.dumps(body).encode()))
    assert "scores.factuality.mean: Input should be a finite number" in reason


def test_refusal_of_many_faults_names_five_of_them() -> None:
    reason = refusal_of(as_received(a_trace(), value=b"{}"))
    assert reason.count("Field required") == 5


@every_event_type
def test_fields_of_a_later_version_are_ignored_on_every_level(kind: EventType) -> None:
    record = EXAMPLES[kind.record.__name__]

    def extended(value: Any) -> Any:
        if isinstance(value, list):
            return [extended(item) for item in value]
        if not isinstance(value, dict):
            return value
        grown = {key: extended(item) for key, item in value.items()}
        # scores and deltas are mappings by dimension, in which every key means something
        return grown if "factuality" in grown else {**grown, "new_in_v1_1": [1, {"a": None}]}

    value = json.dumps(extended(body_of(record))).encode()
    assert value.count(b"new_in_v1_1") >= 1
    assert decode(as_received(record, value=value), wheel=WHEEL) == record


def test_what_the_bus_could_not_read_is_refused_for_the_reason_it_gives() -> None:
    message = as_received(a_trace(), key=None, value=None, headers=(), fault="unknown codec")
    assert refusal_of(message) == "unknown codec"


# What stands in the headers


def with_type(type_name: bytes) -> InboundMessage:
    return as_received(a_trace(), headers=(("ce_type", type_name),))


def test_message_without_type_is_refused_naming_what_its_topic_carries() -> None:
    reason = refusal_of(as_received(a_trace(), headers=()))
    assert "no ce_type header" in reason
    assert "io.deltawheel.trace.generated.v1" in reason
    assert "io.deltawheel.trace.judged.v1" not in reason


@pytest.mark.parametrize(
    "type_name", [b"", b"x", b"io.deltawheel.trace.generated.v2", b"\x00", b"x" * 1_000_000]
)
def test_unknown_type_is_refused_and_shown_shortened(type_name: bytes) -> None:
    reason = refusal_of(with_type(type_name))
    assert reason.startswith(f"unknown event type {type_name[:200]!r}: this topic carries")
    assert len(reason) < 1_100


def test_type_that_is_not_utf_8_is_refused() -> None:
    assert refusal_of(with_type(b"\xff\xfe")) == "the ce_type header is not UTF-8"


@every_event_type
def test_event_on_another_topic_is_refused_naming_its_own(kind: EventType) -> None:
    record = EXAMPLES[kind.record.__name__]
    for topic in set(Topic) - {kind.topic}:
        reason = refusal_of(as_received(record, topic=topic.of(WHEEL)))
        assert f"{kind.name} belongs on {kind.topic.of(WHEEL)}, not on test.{topic}" in reason


def test_event_of_another_wheel_is_refused() -> None:
    sent = encode(a_trace(), wheel="other", service="test")
    assert "not on other.traces" in refusal_of(as_received(a_trace(), topic=sent.topic))


# Ids and keys


def some_events() -> list[Record]:
    """Return events of which no two are the same, though many are alike."""
    prompts = [a_prompt("1+1="), a_prompt("1+2="), a_prompt("1+1=", round=1)]
    assignments = [an_assignment(prompt) for prompt in prompts]
    newer = [a_generator("strong", revision="r2"), a_generator("weak")]
    traces = [a_trace(assignment, slot) for assignment in assignments for slot in (0, 1)]
    traces.append(a_trace(an_assignment(prompts[0], generators=newer)))
    second = {"attempt": 2}
    failures: list[Record] = [
        *(a_slot_failure(assignment, slot) for assignment in assignments for slot in (0, 1)),
        *(a_prompt_failure(prompt) for prompt in prompts),
        a_slot_failure(assignments[0]).model_copy(update=second),
        a_prompt_failure(prompts[0]).model_copy(update=second),
    ]
    judgements = [a_judgement(trace) for trace in traces]
    judgements.append(a_judgement(traces[0], judge_revision="2"))
    judgements.append(judgements[0].model_copy(update={"rubric_digest": "sha256:other"}))
    pairs = [a_pair(prompt) for prompt in prompts]
    held = [a_quarantined_pair(pair) for pair in pairs]
    promotions = [a_promotion(version="1"), a_promotion(version="2")]
    return [*prompts, *traces, *failures, *judgements, *pairs, *held, *promotions]


def test_different_events_have_different_ids() -> None:
    events = some_events()
    assert len({event_id(event) for event in events}) == len(events)


@every_event_type
@quickly
@given(data=st.data())
def test_same_event_has_one_id_whoever_sends_it(kind: EventType, data: st.DataObject) -> None:
    record = data.draw(EVENTS[kind.record])
    ids = {
        dict(encode(event, wheel=WHEEL, service=service).headers)["ce_id"]
        for event in (record, decode(as_received(record), wheel=WHEEL))
        for service in ("judging", "curation")
    }
    assert len(ids) == 1
    assert re.fullmatch(rb"event_[0-9a-f]{32}", ids.pop())


def test_what_was_sampled_and_when_it_happened_do_not_change_an_id() -> None:
    assert event_id(a_trace(answer="2")) == event_id(a_trace(answer="3"))
    assert event_id(a_trace()) == event_id(a_trace(generated_at=seconds(99)))
    assert event_id(a_judgement(level=1)) == event_id(a_judgement(level=5))
    assert event_id(a_pair()) == event_id(a_pair(paired_at=seconds(99)))
    mirror = a_pair(chosen_slot=1)
    assert event_id(a_pair()) == event_id(mirror)


def test_everything_about_one_prompt_has_one_key_and_so_one_partition() -> None:
    for round_ in (0, 1):
        prompt = a_prompt(round=round_)
        assignment = an_assignment(prompt)
        about = [
            prompt,
            a_trace(assignment, 0),
            a_trace(assignment, 1),
            a_judgement(a_trace(assignment, 1)),
            a_slot_failure(assignment),
            a_prompt_failure(prompt),
            a_pair(prompt),
            a_quarantined_pair(a_pair(prompt)),
        ]
        assert {as_received(event).key for event in about} == {a_prompt().prompt_id.encode()}
        assert {key_of(event) for event in about} == {PromptKey(prompt.prompt_id, round_)}


def test_other_prompt_has_another_key() -> None:
    assert as_received(a_prompt("1+1=")).key != as_received(a_prompt("1+2=")).key


def test_promotion_is_keyed_by_its_model_and_speaks_of_no_prompt() -> None:
    assert as_received(a_promotion()).key == b"deltawheel-test"
    assert key_of(a_promotion()) is None


def test_key_of_the_message_is_not_trusted() -> None:
    message = as_received(a_trace(), key=b"somebody else")
    assert decode(message, wheel=WHEEL) == a_trace()


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_most_that_an_event_can_take_is_more_than_it_takes(name: str) -> None:
    record = EXAMPLES[name]
    sent = encode(record, wheel="w" * 64, service="a-service-of-ours")
    assert num_wire_bytes(sent) <= most_wire_bytes(record) < num_wire_bytes(sent) + 1_000
