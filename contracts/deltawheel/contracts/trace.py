"""Traces: one model output with its reasoning."""

from enum import StrEnum

from pydantic import Field

from deltawheel.contracts.generator import Sampling
from deltawheel.contracts.prompt import PromptKey
from deltawheel.contracts.record import Count, Record, UtcTime

__all__ = ["FinishReason", "Trace"]


class FinishReason(StrEnum):
    """Why the generator stopped writing."""

    STOP = "stop"
    LENGTH = "length"
    OTHER = "other"


class Trace(Record):
    """What one generator wrote for one slot, and everything needed to ask it again.

    The id does not hang on the text, which is sampled: whoever stores first decides it.
    """

    trace_id: str
    prompt_id: str
    round: Count
    slot: Count
    generator: str
    generator_revision: str
    served_model: str = Field(description="The model name that the server says has answered.")
    sampling: Sampling
    seed: int
    reasoning: str = Field(default="", description="What the server told apart as reasoning.")
    answer: str
    text_digest: str
    prompt_tokens: Count
    completion_tokens: Count
    finish_reason: FinishReason
    lineage_depth: Count
    accepted_at: UtcTime
    generated_at: UtcTime

    @property
    def key(self) -> PromptKey:
        """The (prompt, round) that this answers."""
        return PromptKey(self.prompt_id, self.round)

    @property
    def is_cut_off(self) -> bool:
        """Whether the text ends where a limit fell: such a trace never enters a pair."""
        return self.finish_reason is not FinishReason.STOP

    @property
    def text(self) -> str:
        """The whole output, reasoning first."""
        return f"{self.reasoning}{self.answer}"
