"""Settings of the stream: who is asked, how it is judged, which pairs are kept."""

from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from deltawheel.contracts.generator import Sampling
from deltawheel.contracts.record import CanonicalDecimal, Name
from deltawheel.contracts.rubric import PAPER_DIMENSIONS
from deltawheel.contracts.settings.section import Section
from deltawheel.contracts.settings.values import (
    Adapter,
    AnswerPattern,
    Endpoint,
)

__all__ = [
    "SANDBOX_POOL",
    "SCORED_BY",
    "CurationSettings",
    "GenerationSettings",
    "GeneratorSettings",
    "JudgeKind",
    "JudgeSettings",
    "RotationSettings",
    "RubricSettings",
]


class GeneratorSettings(Section):
    """A declared member of the pool: an adapter on one of our servers, or any endpoint's model."""

    name: Name = Field(description="What rotation, metrics and tables call it.")
    server: Name | None = Field(default=None, description="One of `servers`; or give `endpoint`.")
    endpoint: Endpoint | None = Field(
        default=None,
        description="Base URL of an OpenAI-compatible API, for example http://host:8000/v1.",
    )
    model: str | None = Field(
        default=None, description="Model name at the endpoint, or the server's base if unset."
    )
    adapter: Adapter | None = Field(
        default=None, description="LoRA adapter folder, or sandbox:<name> for one that ships."
    )
    revision: str | None = Field(
        default=None,
        description="Exact revision of an endpoint's model, to be changed with its weights; own "
        "servers' models have the digest of theirs.",
    )
    capability: float = Field(
        default=0.0,
        allow_inf_nan=False,
        description="Declared prior on the ladder; higher is more capable.",
    )
    capability_stderr: float = Field(
        default=0.5,
        ge=0,
        allow_inf_nan=False,
        description="How unsure that prior is, on the same ladder.",
    )
    api_key_env: str | None = Field(
        default=None, description="Name of the environment variable with the endpoint's key."
    )
    sampling: Sampling = Field(default=Sampling(), description="How it is asked.")

    @field_validator("endpoint")
    @classmethod
    def _is_somewhere(cls, endpoint: str | None, info: ValidationInfo) -> str | None:
        if "server" in info.data and (info.data["server"] is None) == (endpoint is None):
            raise ValueError("give either 'server' or 'endpoint', one of the two")
        return endpoint

    @field_validator("model")
    @classmethod
    def _is_named_there(cls, model: str | None, info: ValidationInfo) -> str | None:
        if info.data.get("endpoint") is not None and model is None:
            raise ValueError("an endpoint needs 'model', the name to ask for there")
        return model


_SANDBOX_SAMPLING = Sampling(max_tokens=64)


SANDBOX_POOL = tuple(
    GeneratorSettings(
        name=name,
        server="local",
        adapter=f"sandbox:{name}",
        capability=capability,
        sampling=_SANDBOX_SAMPLING,
    )
    for name, capability in (("strong", 2.0), ("mid", 1.0), ("weak", 0.0))
)


class RotationSettings(Section):
    """How prompts are dealt to generators."""

    policy: Literal["round-robin"] = Field(
        default="round-robin", description="Deals prompts evenly over the generator pairs."
    )
    pairs: tuple[tuple[Name, Name], ...] | None = Field(
        default=None, description="Generator pairs to deal over; unset means every two of the pool."
    )


class GenerationSettings(Section):
    """Asking the generators."""

    concurrency: int = Field(default=96, ge=1, description="Prompts in work at the same time.")
    request_timeout_s: float = Field(default=60, gt=0, description="Longest wait for one trace.")
    expire_after_s: float = Field(
        default=86_400, gt=0, description="Open slots end as expired after this; the last resort."
    )


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


class CurationSettings(Section):
    """Closing groups, checking pairs, and publishing again what is owed."""

    batch_max_pairs: int = Field(
        default=1_000,
        ge=1,
        description="Largest micro-batch; a check costs about 25 ms whatever its size.",
    )
    batch_max_wait_s: float = Field(
        default=0.5, gt=0, description="Longest wait for a micro-batch to fill."
    )
    max_text_chars: int = Field(default=100_000, ge=1, description="Longer traces are quarantined.")
    max_length_ratio: float = Field(
        default=50.0, gt=1, description="Longer over shorter side; pairs above it are quarantined."
    )
    republish_after_s: float = Field(
        default=30.0, gt=0, description="Owed events older than this are published again."
    )
