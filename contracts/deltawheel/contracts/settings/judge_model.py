"""Settings of a model that judges, whether alone or in a jury."""

from enum import StrEnum

from pydantic import Field, ValidationInfo, field_validator

from deltawheel.contracts.settings.models import ModelSettings

__all__ = ["JUDGE_KEY", "Grammar", "JudgeMode", "JudgeModelSettings"]

JUDGE_KEY = "judge.model"
"""Where the settings name the model that judges."""


class JudgeMode(StrEnum):
    """How a model that judges is read."""

    EXPECTED = "expected"
    VOTES = "votes"


class Grammar(StrEnum):
    """How the form of its answer is fixed."""

    REGEX = "regex"
    JSON_SCHEMA = "json-schema"


class JudgeModelSettings(ModelSettings):
    """The model that judges, and how it is asked."""

    mode: JudgeMode = Field(
        default=JudgeMode.EXPECTED,
        description=(
            "expected: the mean over the probabilities of the score's tokens, one call a trace; "
            "votes: several samples, until their mean is sure enough."
        ),
    )
    grammar: Grammar = Field(
        default=Grammar.REGEX,
        description=(
            "regex: vLLM's structured_outputs, the shortest answer; json-schema: response_format, "
            "for servers that know only that."
        ),
    )
    max_tokens: int = Field(default=256, ge=16, description="Longest answer of the judge, tokens.")
    request_timeout_s: float = Field(default=60, gt=0, description="Longest wait for one answer.")
    min_coverage: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Expected scores with less probability on legal tokens are asked for as votes.",
    )
    min_votes: int = Field(default=3, ge=2, description="Votes that are asked for at once.")
    max_votes: int = Field(default=9, ge=2, description="Most votes of one judgement.")
    vote_stderr: float = Field(
        default=0.3,
        gt=0,
        description="No more votes once every mean's standard error is below; in points.",
    )
    temperature: float = Field(default=0.7, gt=0, le=2, description="Of votes.")
    control_tokens: tuple[str, ...] = Field(
        default=(),
        description="Control tokens of its chat template beside the usual ones, to be defused in "
        "what it judges.",
    )

    @field_validator("max_votes")
    @classmethod
    def _is_no_less_than_the_first(cls, max_votes: int, info: ValidationInfo) -> int:
        if max_votes < (least := info.data.get("min_votes", 2)):
            raise ValueError(f"it is {max_votes}, but min_votes is {least}; give at least that")
        return max_votes
