"""Settings of a jury: further models that judge beside the first, and what their scores do."""

from collections.abc import Mapping
from enum import StrEnum

from pydantic import Field, ValidationInfo, field_validator

from deltawheel.contracts.settings.judge_model import JudgeModelSettings
from deltawheel.contracts.settings.section import Section

__all__ = ["Combination", "JurySettings"]


class Combination(StrEnum):
    """What becomes of the scores of several judges."""

    FIRST = "first"
    MEAN = "mean"


class JurySettings(Section):
    """Judges beside the first, best of other families: where they agree, scores can be trusted."""

    members: tuple[JudgeModelSettings, ...] = Field(
        default=(), description="The further judges; keys as those of judge.model."
    )
    share: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="Share of prompts of which all judges score every trace; the first judge alone "
        "scores the rest. Both sides of a pair have the same judges.",
    )
    combine: Combination = Field(
        default=Combination.FIRST,
        description=(
            "first: the first judge's scores count, and the others' are kept for agreement; mean: "
            "the mean over all judges counts, which needs share 1."
        ),
    )
    patience_s: float = Field(
        default=900.0,
        ge=0,
        description="With combine first, the age of a trace from which on it no longer waits for a "
        "further judge that fails: its opinion is kept as missing.",
    )

    @property
    def keyed(self) -> Mapping[str, JudgeModelSettings]:
        """The members, each by the key that names it."""
        return {f"judge.jury.members.{model.name}": model for model in self.members}

    @field_validator("combine")
    @classmethod
    def _judges_all_alike(cls, combine: Combination, info: ValidationInfo) -> Combination:
        share = info.data.get("share", 1.0)
        if combine is Combination.MEAN and share < 1:
            raise ValueError(
                f"it is mean, but judge.jury.share is {share:g}: means over several judges and "
                "scores of one cannot be compared; set share: 1, or combine: first"
            )
        return combine
