"""Settings of judging: which judge scores the traces, on what, and what decides who is chosen."""

from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, ValidationInfo, field_validator

from deltawheel.contracts.record import CanonicalDecimal, Name
from deltawheel.contracts.rubric import PAPER_DIMENSIONS
from deltawheel.contracts.settings.judge_model import JUDGE_KEY, JudgeModelSettings
from deltawheel.contracts.settings.jury import Combination, JurySettings
from deltawheel.contracts.settings.section import Section
from deltawheel.contracts.settings.values import AnswerPattern

__all__ = ["SCORED_BY", "JudgeKind", "JudgeSettings", "RubricSettings", "SameFamily"]


class JudgeKind(StrEnum):
    """Which judge scores the traces."""

    SANDBOX = "sandbox"
    EXACT_MATCH = "exact-match"
    LLM = "llm"


SCORED_BY: Mapping[JudgeKind, Mapping[str, str]] = {
    JudgeKind.SANDBOX: PAPER_DIMENSIONS,
    JudgeKind.EXACT_MATCH: {"factuality": PAPER_DIMENSIONS["factuality"]},
}
"""The dimensions that a program can score, with the question that each asks; a model takes any."""


class SameFamily(StrEnum):
    """What becomes of a trace by a generator that is of a judge's own family."""

    RECORD = "record"
    REFUSE = "refuse"


class JudgeSettings(Section):
    """The judge, and the faults that the sandbox's judge can be given on purpose."""

    kind: JudgeKind = Field(
        default=JudgeKind.SANDBOX,
        description=(
            "sandbox: parses and recomputes every step of chained arithmetic; "
            "exact-match: compares with the prompt's reference answer, as text or as a number; "
            "llm: asks the model that judge.model names."
        ),
    )
    model: JudgeModelSettings | None = Field(
        default=None,
        description="The model that judges, for kind llm.",
        examples=[JudgeModelSettings(name="grader", server="local")],
    )
    jury: JurySettings = Field(
        default=JurySettings(), description="Further judges beside judge.model, for kind llm."
    )
    cache: bool = Field(
        default=True,
        description="Whether a model's scores are kept, so that the same text as an answer to the "
        "same prompt is judged once.",
    )
    same_family: SameFamily = Field(
        default=SameFamily.RECORD,
        description=(
            "Models prefer their own family. record: a judgement says whether a judge is of the "
            "generator's; refuse: no such generator may be declared or added, and no such trace "
            "is judged."
        ),
    )
    verifier: Name = Field(
        default="answer",
        description=(
            "Program whose verdict is kept beside the scores of a model that judges. answer: the "
            "reference answer, as text or number; choice: its letter; sandbox: chained "
            "arithmetic; or one that a package adds (entry point deltawheel.verifiers)."
        ),
    )
    answer_pattern: AnswerPattern | None = Field(
        default=None,
        description="Regular expression whose first group is the answer, for answers compared; "
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

    @property
    def models(self) -> Mapping[str, JudgeModelSettings]:
        """The models that judge, each by the key that names it, the first of them first."""
        if self.kind is not JudgeKind.LLM or self.model is None:
            return {}
        return {JUDGE_KEY: self.model, **self.jury.keyed}

    @property
    def counted(self) -> Self:
        """These without judges whose scores decide nothing: a jury's, where the first counts."""
        if self.jury.combine is Combination.MEAN:
            return self
        return self.model_copy(update={"jury": JurySettings()})

    def shares_family(self, family: str | None) -> bool | None:
        """Whether a judge is of a generator's family; None where one of the families is not known.

        Programs have none.
        """
        judges = [model.family for model in self.models.values()]
        if family is None or not judges:
            return None
        if family.casefold() in [judge.casefold() for judge in judges if judge is not None]:
            return True
        return None if None in judges else False

    def refuses(self, family: str | None) -> bool:
        """Whether generators of this family may not be judged."""
        return self.same_family is SameFamily.REFUSE and bool(self.shares_family(family))

    @property
    def planted(self) -> list[str]:
        """Names of the faults that are planted."""
        faults = ("inverted", "noise", "length_bias", "self_preference")
        return [name for name in faults if getattr(self, name)]

    @field_validator("model")
    @classmethod
    def _is_there_to_judge(
        cls, model: JudgeModelSettings | None, info: ValidationInfo
    ) -> JudgeModelSettings | None:
        if info.data.get("kind") is JudgeKind.LLM and model is None:
            raise ValueError(
                "judge.kind is llm, so name the model: 'name', and 'server' or 'endpoint'"
            )
        return model

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

    file: Path | None = Field(
        default=None,
        description="YAML file with all of the rubric, for a model that judges; unset takes the "
        "one that ships.",
    )
    name: Name = Field(default="paper-five", description="Name of the rubric.")
    dimensions: Mapping[str, str] | None = Field(
        default=None,
        min_length=1,
        description="Dimensions with the question each asks; unset takes those of the judge.",
    )
    anchors: Mapping[str, Mapping[str, str]] | None = Field(
        default=None, description="What each score from 1 to 5 means, by dimension; of the file."
    )
    order_by: Mapping[str, Annotated[CanonicalDecimal, Field(gt=0)]] | None = Field(
        default=None,
        min_length=1,
        description="Relative weights over dimensions that decide the chosen side.",
    )
    tie_width: CanonicalDecimal = Field(
        default=Decimal(0), ge=0, le=4, description="Differences up to this are ties, in points."
    )
