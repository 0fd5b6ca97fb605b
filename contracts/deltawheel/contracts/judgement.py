"""Judgements: scores on every dimension of a rubric, and the slots and prompts that got none."""

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import FailFast, Field, model_validator

from deltawheel.contracts.ids import content_id
from deltawheel.contracts.prompt import PromptKey
from deltawheel.contracts.record import MAX_COUNT, Count, Record, UtcTime
from deltawheel.contracts.trace import Trace

__all__ = ["JudgedTrace", "Judgement", "Opinion", "PromptFailed", "Score", "SlotFailed"]


class Score(Record):
    """One dimension's score, 1 (worst) to 5 (best), with its uncertainty.

    `coverage` is the probability mass that the judge put on legal scores, where that is known.
    """

    mean: float = Field(ge=1, le=5, allow_inf_nan=False)
    variance: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    num_votes: int = Field(default=1, ge=1)
    coverage: float | None = Field(default=None, ge=0, le=1)


class Opinion(Record):
    """What one judge of a jury found of a trace, or why it found nothing."""

    judge: str
    judge_revision: str
    scores: Annotated[Mapping[str, Score], FailFast()] = Field(
        default={}, description="Empty where there are none."
    )
    fault: str | None = Field(default=None, description="Why there are none.")


class Judgement(Record):
    """What one judge, at one revision, found of one trace under one rubric."""

    trace_id: str
    prompt_id: str
    round: Count
    slot: Count
    judge: str
    judge_revision: str
    rubric_digest: str
    scores: Annotated[Mapping[str, Score], FailFast()] = Field(min_length=1)
    is_correct: bool | None = Field(
        default=None,
        description="What a verifier says of the answer; beside the dimensions, never among them.",
    )
    is_same_family: bool | None = Field(
        default=None,
        description="Whether a judge is of the generator's family; null where that is not known.",
    )
    opinions: Annotated[tuple[Opinion, ...], FailFast()] = Field(
        default=(),
        description="What each judge found, the first one's first, where several were asked.",
    )
    accepted_at: UtcTime
    judged_at: UtcTime

    @property
    def key(self) -> PromptKey:
        """The (prompt, round) that the trace answers."""
        return PromptKey(self.prompt_id, self.round)

    @property
    def judgement_id(self) -> str:
        """One judgement per trace, judge revision and rubric; votes lie inside it."""
        return content_id("judgement", 1, self.trace_id, self.judge_revision, self.rubric_digest)


class JudgedTrace(Record):
    """A trace and what was found of it."""

    trace: Trace
    judgement: Judgement

    @model_validator(mode="after")
    def _judgement_is_of_this_trace(self) -> Self:
        if self.trace.trace_id != self.judgement.trace_id:
            raise ValueError(
                f"judgement of {self.judgement.trace_id} does not belong to {self.trace.trace_id}"
            )
        return self


class SlotFailed(Record):
    """A slot that ended without a judged trace, and why: cut off, refused, no longer served."""

    prompt_id: str
    round: Count
    slot: Count
    attempt: int = Field(default=1, ge=1, le=MAX_COUNT)
    reason: str
    is_expired: bool = Field(default=False, description="Ended by waiting alone, the last resort.")
    accepted_at: UtcTime
    failed_at: UtcTime

    @property
    def key(self) -> PromptKey:
        """The (prompt, round) whose slot this was."""
        return PromptKey(self.prompt_id, self.round)


class PromptFailed(Record):
    """A prompt for which no assignment was possible, and why."""

    prompt_id: str
    round: Count
    attempt: int = Field(default=1, ge=1, le=MAX_COUNT)
    reason: str
    accepted_at: UtcTime
    failed_at: UtcTime

    @property
    def key(self) -> PromptKey:
        """The (prompt, round) that nobody was asked."""
        return PromptKey(self.prompt_id, self.round)
