"""What becomes of a record that can never be processed."""

from datetime import datetime
from typing import Protocol

from deltawheel.contracts.dead_letter import DeadLetter
from deltawheel.contracts.events import InboundMessage, OutboundMessage, key_of
from deltawheel.contracts.judgement import Judgement, SlotFailed
from deltawheel.contracts.record import Record
from deltawheel.contracts.topics import Topic

__all__ = ["DeadLetterLedger", "as_message", "make_letter"]

_PREFIX = "__connect.errors."
_MAX_REASON_CHARS = 2_000
_MARGIN_BYTES = 1_000
"""What a record takes on the wire above its key, value and headers, generously."""


class DeadLetterLedger(Protocol):
    """What the loop itself needs of the store, and nothing more."""

    def add_dead_letter(
        self, letter: DeadLetter, slot_failure: SlotFailed | None = None
    ) -> SlotFailed | Judgement | None:
        """Store a dead letter and, in the same transaction, the slot end that it causes.

        Return what ended the slot, which may be something earlier; None where it causes none.

        Raises:
            RetryLaterError: the database is busy or away.
        """
        ...


def make_letter(
    message: InboundMessage, record: Record | None, error: Exception, *, service: str, at: datetime
) -> DeadLetter:
    """Keep the original bytes, where they stood, and why nothing could be made of them."""
    return DeadLetter(
        topic=message.topic,
        partition=message.partition,
        offset=message.offset,
        key=message.key,
        value=message.value,
        headers=message.headers,
        service=service,
        error=type(error).__name__,
        reason=str(error)[:_MAX_REASON_CHARS],
        prompt_key=key_of(record) if record is not None else None,
        died_at=at,
    )


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
    if _num_bytes(message) <= max_bytes:
        return message
    return OutboundMessage(topic=message.topic, key=own_key, value=None, headers=added)


def _num_bytes(message: OutboundMessage) -> int:
    headers = sum(len(name.encode()) + len(value) for name, value in message.headers)
    return len(message.key or b"") + len(message.value or b"") + headers + _MARGIN_BYTES
