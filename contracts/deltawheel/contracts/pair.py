"""Preference pairs: two judged traces of one prompt, the better one first."""

from collections.abc import Mapping
from typing import Self

from pydantic import Field, computed_field, model_validator

from deltawheel.contracts.generator import GeneratorDelta
from deltawheel.contracts.ids import content_id
from deltawheel.contracts.judgement import JudgedTrace
from deltawheel.contracts.prompt import Prompt, PromptKey
from deltawheel.contracts.record import Record, UtcTime

__all__ = ["PreferencePair", "QuarantinedPair", "SampleDelta"]


class SampleDelta(Record):
    """Chosen minus rejected on one dimension, in points of the 1–5 scale, with its variance."""

    delta: float = Field(ge=-4, le=4, allow_inf_nan=False)
    variance: float = Field(default=0.0, ge=0, allow_inf_nan=False)


class PreferencePair(Record):
    """Two judged traces of one prompt with full provenance.

    A pair whose chosen did not win cannot be built: `order_delta`, the difference by the rubric's
    `order_by` weights, must be above zero.
    """

    prompt: Prompt
    chosen: JudgedTrace
    rejected: JudgedTrace
    rubric_digest: str
    deltas: Mapping[str, SampleDelta] = Field(min_length=1)
    order_delta: float = Field(gt=0, le=4, description="Difference by the rubric's order_by.")
    generator_delta: GeneratorDelta
    accepted_at: UtcTime
    paired_at: UtcTime

    @model_validator(mode="after")
    def _traces_answer_the_same_prompt_under_one_rubric(self) -> Self:
        for side in (self.chosen, self.rejected):
            if side.trace.key != self.prompt.key:
                raise ValueError(f"{side.trace.trace_id} does not answer {self.prompt.prompt_id}")
            if side.judgement.rubric_digest != self.rubric_digest:
                raise ValueError(f"{side.trace.trace_id} was judged under another rubric")
        if self.chosen.trace.trace_id == self.rejected.trace.trace_id:
            raise ValueError(f"{self.chosen.trace.trace_id} cannot be paired with itself")
        return self

    @computed_field  # type: ignore[prop-decorator]
    @property
    def pair_id(self) -> str:
        """Hang on the *unordered* traces, so that no re-judgement can store the mirror image."""
        traces = sorted((self.chosen.trace.trace_id, self.rejected.trace.trace_id))
        return content_id("pair", 1, *traces, self.rubric_digest)

    @property
    def key(self) -> PromptKey:
        """The (prompt, round) that both sides answer."""
        return self.prompt.key


class QuarantinedPair(Record):
    """A pair that failed a data-quality check, with the names of the failed expectations."""

    pair: PreferencePair
    expectations: tuple[str, ...] = Field(min_length=1)
    quarantined_at: UtcTime
