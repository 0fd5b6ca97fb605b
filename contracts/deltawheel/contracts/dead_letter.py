"""Dead letters: records that could not be processed, kept as the bytes they were."""

from pydantic import Field

from deltawheel.contracts.ids import content_id, digest_of
from deltawheel.contracts.prompt import PromptKey
from deltawheel.contracts.record import Record, UtcTime

__all__ = ["DeadLetter"]


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
    died_at: UtcTime

    @property
    def letter_id(self) -> str:
        """The same bytes refused by the same service for the same reason are one letter."""
        return content_id(
            "letter",
            1,
            self.topic,
            self.service,
            self.error,
            digest_of(self.value or b""),
            digest_of(self.key or b""),
        )
