"""Settings of judging: which judge scores the traces, on what, and what decides who is chosen."""

from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from deltawheel.contracts.record import CanonicalDecimal, Name
from deltawheel.contracts.rubric import PAPER_DIMENSIONS
from deltawheel.contracts.settings.section import Section
from deltawheel.contracts.settings.values import AnswerPattern

__all__ = ["SCORED_BY", "JudgeKind", "JudgeSettings", "RubricSettings"]


class JudgeKind(StrEnum):
    """Which judge scores the traces."""

    SANDBOX = "sandbox"
    EXACT_MATCH = "exact-match"


SCORED_BY: Mapping[JudgeKind, Mapping[str, str]] = {
    JudgeKind.SANDBOX: PAPER_DIMENSIONS,
    JudgeKind.EXACT_MATCH: {"factuality": PAPER_DIMENSIONS["factuality"]},
}
"""The dimensions that each judge can score, with the question that each asks."""


class JudgeSettings(Section):
    """The judge, and the faults that the sandbox's judge can be given on purpose."""

    kind: JudgeKind = Field(
        default=JudgeKind.SANDBOX,
        description=(
            "sandbox: parses and recomputes every step of chained arithmetic; "
            "exact-match: compares with the prompt's reference answer, as text or as a number."
        ),
    )
    answer_pattern: AnswerPattern | None = Field(
        default=None,
        description="Regular expression whose first group is the answer, for exact-match; "
        "unset takes the last number, or else as many last lines as the reference answer has.",
    )
    numeric_tolerance: float = Field(
        default=1e-9, ge=0, description="Largest relative difference at which numbers are the same."
    )
    inverted: bool = Field(
        default=False, description="Sabotage: every score becomes 6 minus itself. For trials only."
    )
    noise: float = Field(
        default=0.0, ge=0, description="Planted seeded noise, standard deviation in points."
    )
    length_bias: float = Field(
        default=0.0, description="Planted points per 100 characters of trace."
    )
    self_preference: float = Field(
        default=0.0, description="Planted points for traces of the generator named as favourite."
    )
    favourite: Name | None = Field(default=None, description="The generator that is preferred.")
    seed: int = Field(default=0, description="Seed of the planted noise.")
    concurrency: int = Field(default=256, ge=1, description="Traces in work at the same time.")

    @field_validator("favourite")
    @classmethod
    def _preference_is_for_somebody(cls, favourite: str | None, info: ValidationInfo) -> str | None:
        if favourite is None and (points := info.data.get("self_preference")):
            raise ValueError(
                f"judge.self_preference is {points}, so name the generator to prefer, or set that "
                "to 0"
            )
        return favourite


class RubricSettings(Section):
    """What is scored, and what decides who is chosen. A change starts a new rubric digest."""

    name: Name = Field(default="paper-five", description="Name of the rubric.")
    dimensions: Mapping[str, str] | None = Field(
        default=None,
        min_length=1,
        description="Dimensions with the question each asks; unset takes those of the judge.",
    )
    order_by: Mapping[str, Annotated[CanonicalDecimal, Field(gt=0)]] | None = Field(
        default=None,
        min_length=1,
        description="Relative weights over dimensions that decide the chosen side.",
    )
    tie_width: CanonicalDecimal = Field(
        default=Decimal(0), ge=0, le=4, description="Differences up to this are ties, in points."
    )
