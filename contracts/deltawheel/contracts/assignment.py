"""Assignments: who was asked, stored before anybody is asked."""

from pydantic import Field

from deltawheel.contracts.generator import Generator, GeneratorDelta, Sampling
from deltawheel.contracts.ids import content_id
from deltawheel.contracts.prompt import PromptKey
from deltawheel.contracts.record import Record, UtcTime

__all__ = ["Assignment", "Slot"]


class Slot(Record):
    """One place in a prompt's plan, to be filled by one generator at one exact revision."""

    index: int = Field(ge=0)
    generator: Generator

    @property
    def sampling(self) -> Sampling:
        """How this slot is asked."""
        return self.generator.sampling


class Assignment(Record):
    """The plan of one (prompt, round): its slots, its judges and the rubric they read.

    Stored before the first model call, so that a redelivered prompt is asked of the same
    generators whatever has become of the pool since.
    """

    prompt_id: str
    round: int
    slots: tuple[Slot, ...] = Field(min_length=2)
    judge_revisions: tuple[str, ...] = Field(min_length=1)
    rubric_digest: str
    generator_delta: GeneratorDelta = Field(
        description="Of slot 0's generator over slot 1's, as the ladder stood at assignment."
    )
    policy: str
    accepted_at: UtcTime
    assigned_at: UtcTime
    expires_at: UtcTime

    @property
    def key(self) -> PromptKey:
        """The (prompt, round) that this plans."""
        return PromptKey(self.prompt_id, self.round)

    def trace_id(self, slot: int) -> str:
        """Name the trace that will fill a slot: what is asked of whom and how, not its text."""
        generator, sampling = self.slots[slot].generator, self.slots[slot].sampling
        return content_id(
            "trace",
            1,
            self.prompt_id,
            self.round,
            slot,
            generator.name,
            generator.revision,
            sampling.temperature,
            sampling.top_p,
            sampling.max_tokens,
        )
