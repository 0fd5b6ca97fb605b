"""Dead letters: records that could not be processed, kept as the bytes they were."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import Field

from deltawheel.contracts.events import ATTEMPT_HEADER, OutboundMessage
from deltawheel.contracts.ids import content_id, digest_of
from deltawheel.contracts.judgement import SlotFailed
from deltawheel.contracts.prompt import PromptKey
from deltawheel.contracts.record import MAX_COUNT, Record, UtcTime

__all__ = ["Burial", "DeadLetter"]


class DeadLetter(Record):
    """The original record, where it stood, and why nothing could be made of it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    service: str
    error: str = Field(description="The class of the error.")
    reason: str
    prompt_key: PromptKey | None = Field(
        default=None, description="The asking that it ends, where the record could be understood."
    )
    attempt: int = Field(
        default=1, ge=1, le=MAX_COUNT, description="Raised by every replay, so that it dies anew."
    )
    died_at: UtcTime

    @property
    def letter_id(self) -> str:
        """The same bytes of a topic, refused by a service with the same error, are one letter.

        Where there are no bytes, only the place in the topic tells two letters apart. What is
        refused again after a replay is another one.
        """
        return content_id(
            "letter",
            1,
            self.topic,
            self.service,
            self.error,
            None if self.value is None else digest_of(self.value),
            None if self.key is None else digest_of(self.key),
            *(() if self.has_bytes else (self.partition, self.offset)),
            *(() if self.attempt == 1 else ({"attempt": self.attempt},)),
        )

    @property
    def has_bytes(self) -> bool:
        """Whether there is anything to publish; brokers take no record without key and value."""
        return self.key is not None or self.value is not None

    def original_message(self) -> OutboundMessage:
        """Return the record as it came, but for the header that counts its attempts."""
        own = tuple(header for header in self.headers if header[0] != ATTEMPT_HEADER)
        attempt = str(self.attempt + 1).encode()
        return OutboundMessage(
            topic=self.topic,
            key=self.key,
            value=self.value,
            headers=(*own, (ATTEMPT_HEADER, attempt)),
        )


@dataclass(frozen=True, slots=True)
class Burial:
    """A dead letter with what is written in the same transaction.

    The slots that it ends, and the deferral that it was, if it was one.
    """

    letter: DeadLetter
    slot_failures: Sequence[SlotFailed] = ()
    deferral_id: str | None = None
