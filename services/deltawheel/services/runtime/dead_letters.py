"""What becomes of a record that can never be processed."""

from collections.abc import Sequence
from datetime import datetime

from deltawheel.contracts.dead_letter import DeadLetter
from deltawheel.contracts.events import (
    InboundMessage,
    OutboundMessage,
    attempt_of,
    key_of,
    num_wire_bytes,
)
from deltawheel.contracts.judgement import SlotFailed
from deltawheel.contracts.record import Record
from deltawheel.contracts.topics import Topic

__all__ = ["as_message", "as_text", "make_letter"]

_PREFIX = "__connect.errors."
_MAX_REASON_CHARS = 2_000


def make_letter(
    message: InboundMessage,
    record: Record | None,
    error: Exception,
    *,
    service: str,
    at: datetime,
    caused: Sequence[SlotFailed] = (),
) -> DeadLetter:
    """Keep the original bytes, where they stood, and why nothing could be made of them.

    The attempt is that of the slot ends that it causes, or what a replay wrote on the message.
    """
    return DeadLetter(
        topic=message.topic,
        partition=message.partition,
        offset=message.offset,
        key=message.key,
        value=message.value,
        headers=message.headers,
        service=service,
        error=type(error).__name__,
        reason=as_text(str(error)[:_MAX_REASON_CHARS]),
        prompt_key=key_of(record) if record is not None else None,
        attempt=max([attempt_of(message), *(end.attempt for end in caused)]),
        died_at=at,
    )


def as_text(reason: str) -> str:
    """Write halves of surrogate pairs, which no encoding carries, as escapes."""
    return reason.encode(errors="backslashreplace").decode()


def as_message(letter: DeadLetter, *, wheel: str, max_bytes: int) -> OutboundMessage:
    """Address a letter to the dead-letters topic under Kafka Connect's header names.

    Key and value stay untouched, so that tools which know Connect's dead letters read ours. Only
    what would be above `max_bytes` goes without its value, which the store has. Since brokers take
    no record without either, a letter that has neither bears its own id as key.
    """
    reasons = {
        "topic": letter.topic,
        "partition": str(letter.partition),
        "offset": str(letter.offset),
        "stage": letter.service,
        "exception.class.name": letter.error,
        "exception.message": letter.reason,
    }
    added = tuple((_PREFIX + name, text.encode()) for name, text in reasons.items())
    own_key = letter.letter_id.encode()
    message = OutboundMessage(
        topic=Topic.DEAD_LETTERS.of(wheel),
        key=own_key if letter.key is None and letter.value is None else letter.key,
        value=letter.value,
        headers=letter.headers + added,
    )
    if num_wire_bytes(message) <= max_bytes:
        return message
    return OutboundMessage(topic=message.topic, key=own_key, value=None, headers=added)
