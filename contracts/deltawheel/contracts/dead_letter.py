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
        """The same bytes of a topic, refused by a service with the same error, are one letter.

        Where there are no bytes, only the place in the topic tells two letters apart.
        """
        has_bytes = self.key is not None or self.value is not None
        return content_id(
            "letter",
            1,
            self.topic,
            self.service,
            self.error,
            None if self.value is None else digest_of(self.value),
            None if self.key is None else digest_of(self.key),
            *(() if has_bytes else (self.partition, self.offset)),
        )
