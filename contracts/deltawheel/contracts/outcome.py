"""How a (prompt, round) can end."""

from enum import StrEnum

from pydantic import Field

from deltawheel.contracts.prompt import PromptKey
from deltawheel.contracts.record import Record, UtcTime

__all__ = ["Closing", "Outcome"]


class Outcome(StrEnum):
    """The four ends of an accepted prompt, in their order of precedence."""

    PAIRED = "paired"
    QUARANTINED = "quarantined"
    UNPAIRED = "unpaired"
    DEAD_LETTERED = "dead-lettered"


class Closing(Record):
    """The end of one attempt at one (prompt, round); the highest attempt's is the current one."""

    prompt_id: str
    round: int
    attempt: int = Field(default=1, ge=1)
    outcome: Outcome
    reason: str
    closed_at: UtcTime

    @property
    def key(self) -> PromptKey:
        """The (prompt, round) that ended."""
        return PromptKey(self.prompt_id, self.round)
