"""Transitions: an operator opens another attempt at a prompt that has ended."""

from enum import StrEnum

from pydantic import Field

from deltawheel.contracts.prompt import PromptKey
from deltawheel.contracts.record import Count, Record, UtcTime

__all__ = ["Transition", "TransitionKind"]


class TransitionKind(StrEnum):
    """What an operator wants of the new attempt."""

    REPLAY = "replay"
    """Try again what failed."""

    RELEASE = "release"
    """Check again what is in quarantine."""


class Transition(Record):
    """Who opened which attempt, why and when. History is only ever added to.

    Keys of slot ends and closings contain the attempt, those of traces, judgements and pairs do
    not: what succeeded is reused, and only failures are tried again (ARCHITECTURE §4).
    """

    prompt_id: str
    round: Count
    attempt: int = Field(ge=2)
    kind: TransitionKind
    by: str
    reason: str
    opened_at: UtcTime
    expires_at: UtcTime = Field(description="When open slots of this attempt end as expired.")

    @property
    def key(self) -> PromptKey:
        """The (prompt, round) that is tried again."""
        return PromptKey(self.prompt_id, self.round)
