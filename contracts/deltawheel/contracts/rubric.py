"""Rubrics: which dimensions a judge scores, and which of them decide who is chosen."""

from collections.abc import Mapping
from decimal import Decimal
from functools import cached_property
from typing import Self

from pydantic import Field, model_validator

from deltawheel.contracts.ids import canonical_json, digest_of
from deltawheel.contracts.judgement import Judgement
from deltawheel.contracts.pair import SampleDelta
from deltawheel.contracts.record import CanonicalDecimal, Name, Record

__all__ = ["PAPER_DIMENSIONS", "PAPER_ORDER_BY", "SCORES", "Rubric"]

SCORES = ("1", "2", "3", "4", "5")
"""The legal scores, from worst to best, as a judge writes them."""

PAPER_DIMENSIONS: Mapping[str, str] = {
    "factuality": "Is the final answer right?",
    "strategy_coherence": "Does the plan follow from what was asked, in its order?",
    "step_coherence": "Does each step follow from the one before it?",
    "computational_precision": "Is each shown computation right?",
    "signal_to_noise": "How much of the text belongs to the solution?",
}
"""The five dimensions of arXiv:2604.08723, section 3, each with the question it asks."""

PAPER_ORDER_BY: Mapping[str, Decimal] = dict.fromkeys(
    ("factuality", "step_coherence", "computational_precision"), Decimal(1)
)
"""The weights that decide the chosen side where none are given."""


class Rubric(Record):
    """A versioned scoring sheet. Its digest stands on each judgement and in each pair's id.

    `order_by` are relative weights over dimensions. Their weighted mean decides which trace is
    chosen; a difference within `tie_width` (points of the 1–5 scale) is a tie, and ties are not
    pairs. `anchors` say what each score of a dimension means; models that judge need them.
    """

    name: Name = "paper-five"
    dimensions: Mapping[str, str] = Field(default=PAPER_DIMENSIONS, min_length=1)
    anchors: Mapping[str, Mapping[str, str]] = Field(default={})
    order_by: Mapping[str, CanonicalDecimal] = Field(
        default=PAPER_ORDER_BY,
        min_length=1,
    )
    tie_width: CanonicalDecimal = Field(default=Decimal(0), ge=0, le=4)

    @model_validator(mode="after")
    def _orders_by_known_dimensions(self) -> Self:
        if unknown := sorted(self.order_by.keys() - self.dimensions.keys()):
            raise ValueError(
                f"order_by names {unknown}, but the dimensions are {sorted(self.dimensions)}"
            )
        if unknown := sorted(self.anchors.keys() - self.dimensions.keys()):
            raise ValueError(
                f"anchors names {unknown}, but the dimensions are {sorted(self.dimensions)}"
            )
        if any(weight <= 0 for weight in self.order_by.values()):
            raise ValueError("every weight in order_by must be above 0")
        return self

    @cached_property
    def digest(self) -> str:
        """Names everything that could change a score or a side.

        With anchors a model judges, and it is asked in the order of the dimensions.
        """
        fields = ["rubric", 1, self.name, self.dimensions, self.order_by, self.tie_width]
        if self.anchors:
            fields += [self.anchors, list(self.dimensions)]
        return digest_of(canonical_json(fields))

    def deltas(
        self, first: Judgement, second: Judgement, *, variances: Mapping[str, float] | None = None
    ) -> dict[str, SampleDelta]:
        """Return first minus second on each dimension; independent judgements add variances.

        `variances` of a single score, as test–retest finds them, stand in for what the judgements
        say of themselves.
        """
        known = variances or {}
        sides = (first.scores, second.scores)
        return {
            name: SampleDelta(
                delta=first.scores[name].mean - second.scores[name].mean,
                variance=sum(known.get(name, scores[name].variance) for scores in sides),
            )
            for name in self.dimensions
        }

    def order_delta(self, deltas: Mapping[str, SampleDelta]) -> float:
        """Return the weighted mean of the deltas by `order_by`, in points of the 1–5 scale.

        Rounding can carry a mean past the largest difference that there is; it is held to that.
        """
        total = float(sum(self.order_by.values()))
        mean = sum(float(w) * deltas[name].delta for name, w in self.order_by.items()) / total
        return max(-4.0, min(4.0, mean))

    def is_tie(self, order_delta: float) -> bool:
        """Tell whether the difference is too small to call one side better.

        A billionth is forgiven, for weighted means of equal scores differ by rounding.
        """
        return abs(order_delta) <= float(self.tie_width) + 1e-9
