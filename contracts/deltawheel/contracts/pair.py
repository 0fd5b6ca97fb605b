"""Preference pairs: two judged traces of one prompt, the better one first."""

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Self

from pydantic import FailFast, Field, computed_field, model_validator

from deltawheel.contracts.generator import GeneratorDelta
from deltawheel.contracts.ids import content_id
from deltawheel.contracts.judgement import JudgedTrace
from deltawheel.contracts.prompt import Prompt, PromptKey
from deltawheel.contracts.record import Record, UtcTime

__all__ = ["PreferencePair", "QuarantinedPair", "SampleDelta"]

_ROUNDING = 1e-9
"""By how much a difference of two scores may be off."""


class SampleDelta(Record):
    """Chosen minus rejected on one dimension, in points of the 1–5 scale, with its variance."""

    delta: float = Field(ge=-4, le=4, allow_inf_nan=False)
    variance: float = Field(default=0.0, ge=0, allow_inf_nan=False)


class PreferencePair(Record):
    """Two judged traces of one prompt with full provenance, the better one first.

    One that says otherwise cannot be built. It holds that:

    - both sides answer this prompt in this round, are two traces, and neither was cut off;
    - both were judged under this rubric by the same revision of the judge, on the same dimensions;
    - `deltas` has these dimensions, and each delta is the score of chosen minus that of rejected,
      within 1e-9;
    - `order_delta` is above 0, and no smaller or larger than every delta, as the weighted mean is.

    The weights lie in the rubric, which only its digest stands for here: whether `order_delta` is
    the mean by exactly these is up to who makes the pair, and so are the variances.
    """

    prompt: Prompt
    chosen: JudgedTrace
    rejected: JudgedTrace
    rubric_digest: str
    deltas: Annotated[Mapping[str, SampleDelta], FailFast()] = Field(min_length=1)
    order_delta: float = Field(gt=0, le=4, description="Difference by the rubric's order_by.")
    generator_delta: GeneratorDelta
    calibration_id: str | None = Field(
        default=None,
        description="The test-retest that the variances are from; null: the judgements' own.",
    )
    accepted_at: UtcTime
    paired_at: UtcTime

    @model_validator(mode="after")
    def _traces_answer_the_same_prompt_under_one_rubric(self) -> Self:
        for side in (self.chosen, self.rejected):
            if side.trace.key != self.prompt.key:
                raise ValueError(f"{side.trace.trace_id} does not answer {self.prompt.prompt_id}")
            if side.judgement.rubric_digest != self.rubric_digest:
                raise ValueError(f"{side.trace.trace_id} was judged under another rubric")
            if side.trace.is_cut_off:
                raise ValueError(
                    f"{side.trace.trace_id} was cut off ({side.trace.finish_reason.value}): "
                    "such a trace enters no pair"
                )
        if self.chosen.trace.trace_id == self.rejected.trace.trace_id:
            raise ValueError(f"{self.chosen.trace.trace_id} cannot be paired with itself")
        revisions = [side.judgement.judge_revision for side in (self.chosen, self.rejected)]
        if revisions[0] != revisions[1]:
            raise ValueError(f"the sides were judged by two revisions: {', '.join(revisions)}")
        return self

    @model_validator(mode="after")
    def _deltas_are_chosen_minus_rejected(self) -> Self:
        chosen, rejected = self.chosen.judgement.scores, self.rejected.judgement.scores
        if not chosen.keys() == rejected.keys() == self.deltas.keys():
            raise ValueError(
                f"the dimensions differ: chosen has {sorted(chosen)}, rejected {sorted(rejected)}, "
                f"deltas {sorted(self.deltas)}"
            )
        for name, given in self.deltas.items():
            difference = chosen[name].mean - rejected[name].mean
            if abs(given.delta - difference) > _ROUNDING:
                raise ValueError(
                    f"the delta of {name} is {given.delta}, but chosen minus rejected is "
                    f"{difference}"
                )
        deltas = [given.delta for given in self.deltas.values()]
        if not min(deltas) - _ROUNDING <= self.order_delta <= max(deltas) + _ROUNDING:
            raise ValueError(
                f"order_delta is {self.order_delta}, but a mean of the deltas lies between "
                f"{min(deltas)} and {max(deltas)}"
            )
        return self

    @computed_field  # type: ignore[prop-decorator]
    @cached_property
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
    expectations: Annotated[tuple[str, ...], FailFast()] = Field(min_length=1)
    quarantined_at: UtcTime

    @property
    def key(self) -> PromptKey:
        """The (prompt, round) that both sides answer."""
        return self.pair.key
