"""The wire format: JSON payloads with CloudEvents attributes in Kafka headers (binary mode).

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md
"""

from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError
from pydantic_core import from_json

from deltawheel.contracts.errors import InvalidRecordError
from deltawheel.contracts.ids import content_id
from deltawheel.contracts.judgement import Judgement, PromptFailed, SlotFailed
from deltawheel.contracts.pair import PreferencePair, QuarantinedPair
from deltawheel.contracts.promotion import Promotion
from deltawheel.contracts.prompt import Prompt, PromptKey
from deltawheel.contracts.record import MAX_COUNT, Record
from deltawheel.contracts.topics import EVENT_TYPES, event_type_of
from deltawheel.contracts.trace import Trace

__all__ = [
    "ATTEMPT_HEADER",
    "InboundMessage",
    "OutboundMessage",
    "attempt_of",
    "decode",
    "encode",
    "event_id",
    "key_of",
    "most_wire_bytes",
    "num_wire_bytes",
]

Headers = tuple[tuple[str, bytes], ...]

ATTEMPT_HEADER: Final = "deltawheel_attempt"
"""On a dead letter's record that was published again: which attempt at it this is, from 2."""

_MARGIN_BYTES: Final = 1_000
"""What a record takes on the wire above its key, value and headers, generously."""
_ENVELOPE_BYTES: Final = 1_000
"""More than key and headers of any record take: ids are digests, and names are short."""

_RECORD_OF_TYPE = {event_type.name: event_type for event_type in EVENT_TYPES}
_LARGE_BYTES = 100_000
_SHOWN_CHARS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class InboundMessage:
    """A record as the broker gave it: nothing decoded, because decoding may fail.

    `fault` says why even the bus could not read it; then there is neither key nor value, and the
    offset is the last one that could not be read.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    fault: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboundMessage:
    """A record ready for the broker."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


def event_id(record: Record) -> str:
    """Return the CloudEvents id: the same event published twice carries the same one.

    Raises:
        LookupError: no topic carries records of this class.
    """
    return content_id("event", 1, event_type_of(record).name, *_identity_of(record))


def _identity_of(record: Record) -> tuple[str | int, ...]:
    match record:
        case Prompt():
            return record.prompt_id, record.round
        case Trace():
            return (record.trace_id,)
        case Judgement():
            return record.trace_id, record.judge_revision, record.rubric_digest
        case SlotFailed():
            return record.prompt_id, record.round, record.slot, record.attempt
        case PromptFailed():
            return record.prompt_id, record.round, record.attempt
        case PreferencePair():
            return (record.pair_id,)
        case QuarantinedPair():
            return (record.pair.pair_id,)
        case Promotion():
            return (record.promotion_id,)
        case _:
            raise LookupError(f"nothing says what makes a {type(record).__name__} the same event")


def _key_of(record: Record) -> str:
    match record:
        case PreferencePair():
            return record.prompt.prompt_id
        case QuarantinedPair():
            return record.pair.prompt.prompt_id
        case Promotion():
            return record.model_name
        case _:
            return str(record.prompt_id)  # type: ignore[attr-defined]


def encode(record: Record, *, wheel: str, service: str) -> OutboundMessage:
    """Turn a record into bytes and headers, keyed so that one prompt stays on one partition."""
    event_type = event_type_of(record)
    headers = {
        "ce_specversion": "1.0",
        "ce_id": event_id(record),
        "ce_source": f"/deltawheel/{wheel}/{service}",
        "ce_type": event_type.name,
        "content-type": "application/json",
    }
    return OutboundMessage(
        topic=event_type.topic.of(wheel),
        key=_key_of(record).encode(),
        value=record.wire.encode(),
        headers=tuple((name, text.encode()) for name, text in headers.items()),
    )


def num_wire_bytes(message: OutboundMessage) -> int:
    """Return at most how many bytes a message takes on the wire, as brokers limit them."""
    headers = sum(len(name.encode()) + len(value) for name, value in message.headers)
    return len(message.key or b"") + len(message.value or b"") + headers + _MARGIN_BYTES


def most_wire_bytes(record: Record) -> int:
    """Return at most how many bytes a record's event takes on the wire, without encoding it."""
    return len(record.wire.encode()) + _ENVELOPE_BYTES + _MARGIN_BYTES


def decode(message: InboundMessage, *, wheel: str) -> Record:
    """Turn a message into the record that its type names.

    Raises:
        InvalidRecordError: the bus could not read it, the type is missing, unknown or on the wrong
            topic, or the payload is not a valid record of it. It always will be, so the message is
            a dead letter.
    """
    if message.fault is not None:
        raise InvalidRecordError(message.fault)
    headers = dict(message.headers)
    try:
        type_name = headers["ce_type"].decode()
        event_type = _RECORD_OF_TYPE[type_name]
    except KeyError as error:
        known = sorted(
            name for name, kind in _RECORD_OF_TYPE.items() if kind.topic.of(wheel) == message.topic
        )
        found = headers.get("ce_type", b"no ce_type header")[:200]
        raise InvalidRecordError(
            f"unknown event type {found!r}: this topic carries {known}"
        ) from error
    except UnicodeDecodeError as error:
        raise InvalidRecordError("the ce_type header is not UTF-8") from error
    if event_type.topic.of(wheel) != message.topic:
        raise InvalidRecordError(
            f"{type_name} belongs on {event_type.topic.of(wheel)}, not on {message.topic}"
        )
    if message.value is None:
        raise InvalidRecordError(f"{type_name} came without a payload")
    return _parse(message.value, event_type.record)


def _parse(value: bytes, kind: type[Record]) -> Record:
    """Read a payload; a large one in two steps.

    In one step pydantic copies the whole payload into the description of each missing field: 4 MB
    of something else would take a gigabyte.
    """
    try:
        if len(value) < _LARGE_BYTES:
            return kind.model_validate_json(value)
        return kind.model_validate(from_json(value))
    except ValidationError as error:
        raise InvalidRecordError(f"not a valid {kind.__name__}: {_problems(error)}") from error
    except ValueError as error:
        raise InvalidRecordError(
            f"not a valid {kind.__name__}: payload: Invalid JSON: {error}"
        ) from error


def _problems(error: ValidationError) -> str:
    """Name the first faults; a name may be as long as its record, so each is cut."""
    return "; ".join(
        f"{'.'.join(map(str, fault['loc']))[:_SHOWN_CHARS] or 'payload'}: "
        f"{fault['msg'][:_SHOWN_CHARS]}"
        for fault in error.errors(include_url=False, include_input=False)[:5]
    )


def attempt_of(message: InboundMessage) -> int:
    """Return which attempt at a record this is: 1, unless a replay says more."""
    text = dict(message.headers).get(ATTEMPT_HEADER, b"")
    if not text.isdigit() or len(text) > len(str(MAX_COUNT)):
        return 1
    return min(max(int(text), 1), MAX_COUNT)


def key_of(record: Record) -> PromptKey | None:
    """Return the (prompt, round) that a record speaks of, where it speaks of one."""
    key = getattr(record, "key", None)
    return key if isinstance(key, PromptKey) else None
