"""Prompts: what clients hand in, and what the wheel makes of it."""

from functools import cached_property
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import (
    FailFast,
    Field,
    ValidationError,
    computed_field,
    field_validator,
    model_validator,
)

from deltawheel.contracts.ids import content_id
from deltawheel.contracts.record import Count, Domain, Name, Record, UtcTime

__all__ = ["Message", "Prompt", "PromptKey", "PromptSubmission"]


class PromptKey(NamedTuple):
    """One asking of one prompt. Everything downstream hangs on it."""

    prompt_id: str
    round: int


class Message(Record):
    """One turn of a conversation, as OpenAI-compatible servers take it."""

    role: Literal["system", "user", "assistant"]
    content: str = Field(min_length=1)


class PromptSubmission(Record):
    """A prompt as a client sends it: either `text` (one user message) or whole `messages`.

    The same submission twice is one prompt. To have it answered again on purpose, raise `round`.
    """

    domain: Domain = "general"
    text: str | None = Field(default=None, min_length=1, description="Short for one user message.")
    messages: Annotated[tuple[Message, ...], FailFast()] = Field(
        default=(), description="The conversation to continue."
    )
    reference_answer: str | None = Field(
        default=None, description="The right answer, where there is one to compare with."
    )
    round: Count = Field(default=0, description="Raise it to have the same prompt asked again.")

    @field_validator("reference_answer")
    @classmethod
    def _is_unicode(cls, value: str | None) -> str | None:
        # Fields with a least length are checked by pydantic itself.
        if value is not None and any("\ud800" <= character <= "\udfff" for character in value):
            raise ValueError("holds half of a surrogate pair, which no encoding can carry")
        return value

    @model_validator(mode="after")
    def _asks_exactly_one_way(self) -> Self:
        if (self.text is None) == (not self.messages):
            raise ValueError("give either 'text' or 'messages', one of the two")
        if self.messages and self.messages[-1].role != "user":
            raise ValueError("the last of 'messages' must have the role 'user'")
        return self

    @classmethod
    def parse(cls, body: object, *, max_chars: int) -> "PromptSubmission":
        """Validate what a client sent, with one sentence about the first fault.

        Raises:
            ValueError: the body is no submission, or longer than `max_chars` characters.
        """
        try:
            submission = cls.model_validate(body)
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(map(str, fault["loc"]))
            said = fault["msg"].removeprefix("Value error, ")
            raise ValueError(f"{where}: {said}" if where else said) from error
        texts = [submission.text or "", submission.reference_answer or ""]
        size = sum(map(len, texts)) + sum(len(m.content) for m in submission.messages)
        if size > max_chars:
            raise ValueError(
                f"the prompt and its reference answer have {size} characters, "
                f"but gateway.max_prompt_chars is {max_chars}"
            )
        return submission

    def accept(self, *, wheel: str, accepted_at: UtcTime) -> "Prompt":
        """Make the record that the wheel keeps; `accepted_at` is set here, once and for ever."""
        messages = self.messages or (Message(role="user", content=self.text or ""),)
        return Prompt(
            wheel=wheel,
            domain=self.domain,
            messages=messages,
            reference_answer=self.reference_answer,
            round=self.round,
            accepted_at=accepted_at,
        )


class Prompt(Record):
    """One accepted (prompt, round): the wheel owes it exactly one current outcome."""

    wheel: Name
    domain: Domain
    messages: Annotated[tuple[Message, ...], FailFast()] = Field(min_length=1)
    reference_answer: str | None = None
    round: Count = 0
    accepted_at: UtcTime

    @computed_field  # type: ignore[prop-decorator]
    @cached_property
    def prompt_id(self) -> str:
        """What is asked, whatever the round and whenever it came."""
        messages = [[message.role, message.content] for message in self.messages]
        return content_id("prompt", 1, self.wheel, self.domain, messages, self.reference_answer)

    @property
    def key(self) -> PromptKey:
        """The pair that every later record of this asking carries."""
        return PromptKey(self.prompt_id, self.round)
