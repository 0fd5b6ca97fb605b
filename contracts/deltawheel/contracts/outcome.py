"""How a (prompt, round) can end."""

from enum import StrEnum
from typing import Self

from pydantic import Field, model_validator

from deltawheel.contracts.prompt import PromptKey
from deltawheel.contracts.record import Record, UtcTime

__all__ = ["Closing", "Outcome", "UnpairedCause"]


class Outcome(StrEnum):
    """The four ends of an accepted prompt, in their order of precedence."""

    PAIRED = "paired"
    QUARANTINED = "quarantined"
    UNPAIRED = "unpaired"
    DEAD_LETTERED = "dead-lettered"


class UnpairedCause(StrEnum):
    """Why judged traces made no pair."""

    TIE = "tie"
    SINGLE_SURVIVOR = "single-survivor"
    JUDGED_OTHERWISE = "judged-otherwise"
    """Fewer than two were judged under curation's rubric by the judges of the assignment."""


class Closing(Record):
    """The end of one attempt at one (prompt, round); the highest attempt's is the current one.

    `reason` is for people; `cause` is what is counted, and only unpaired prompts have one.
    """

    prompt_id: str
    round: int
    attempt: int = Field(default=1, ge=1)
    outcome: Outcome
    cause: UnpairedCause | None = None
    reason: str
    closed_at: UtcTime

    @model_validator(mode="after")
    def _only_unpaired_has_a_cause(self) -> Self:
        if (self.outcome is Outcome.UNPAIRED) != (self.cause is not None):
            raise ValueError(
                f"outcome {self.outcome.value} with cause {self.cause}: unpaired needs one of "
                f"{[cause.value for cause in UnpairedCause]}, the others have none"
            )
        return self

    @property
    def key(self) -> PromptKey:
        """The (prompt, round) that ended."""
        return PromptKey(self.prompt_id, self.round)
