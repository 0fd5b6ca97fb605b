"""Settings of the stream: who is asked, and which pairs are kept."""

import math
from decimal import Decimal
from enum import StrEnum

from pydantic import Field, field_validator

from deltawheel.contracts.generator import GeneratorRole, Sampling
from deltawheel.contracts.record import CanonicalDecimal, Name
from deltawheel.contracts.settings.models import ModelSettings
from deltawheel.contracts.settings.section import Section
from deltawheel.contracts.settings.values import Adapter, Endpoint

__all__ = [
    "SANDBOX_POOL",
    "CurationSettings",
    "Explore",
    "GenerationSettings",
    "GeneratorSettings",
    "RotationPolicy",
    "RotationSettings",
]


class GeneratorSettings(ModelSettings):
    """A declared member of the pool: an adapter on one of our servers, or any endpoint's model."""

    replicas: tuple[Endpoint, ...] = Field(
        default=(),
        description="Base URLs of further servers that serve the endpoint's model; requests that "
        "begin alike go to the same one, as long as it has not much more to do than others.",
    )
    adapter: Adapter | None = Field(
        default=None, description="LoRA adapter folder, or sandbox:<name> for one that ships."
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
    weight: float = Field(
        default=1.0, ge=0, allow_inf_nan=False, description="Share in weighted rotation."
    )
    sampling: Sampling = Field(default=Sampling(), description="How it is asked.")
    size_b: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="Billions of parameters, for people."
    )
    role: GeneratorRole = Field(
        default=GeneratorRole.ANY,
        description="Side of a pair that it is dealt for: any, stronger, weaker.",
    )
    prompt_price: CanonicalDecimal = Field(
        default=Decimal(0), ge=0, description="Money for a million tokens that it reads."
    )
    completion_price: CanonicalDecimal = Field(
        default=Decimal(0), ge=0, description="Money for a million tokens that it writes."
    )
    domains: tuple[Name, ...] | None = Field(
        default=None,
        min_length=1,
        description="Only prompts of these domains are dealt to it; unset means all.",
    )
    max_in_flight: int | None = Field(
        default=None, ge=1, description="Most requests to it at the same time; unset: no limit."
    )
    max_tokens_per_day: int | None = Field(
        default=None,
        ge=1,
        description="Tokens, read and written, of a UTC day; then it pauses until the next. Those "
        "of stored traces count; those of probes, checks and refused or failed answers do not.",
    )


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


class RotationPolicy(StrEnum):
    """Which generator pair a prompt is dealt to."""

    ROUND_ROBIN = "round-robin"
    WEIGHTED = "weighted"
    DELTA_TARGETING = "delta-targeting"


class Explore(StrEnum):
    """How delta-targeting tries pairs of which little is known."""

    THOMPSON = "thompson"
    UCB = "ucb"


class RotationSettings(Section):
    """How prompts are dealt to generators."""

    policy: RotationPolicy = Field(
        default=RotationPolicy.ROUND_ROBIN,
        description=(
            "round-robin: evenly over the generator pairs; weighted: by the product of their "
            "weights; delta-targeting: the most capable pair whose generator delta falls into "
            "target_delta, tried the more the less is known of it."
        ),
    )
    target_delta: tuple[float, float] = Field(
        default=(0.5, 2.0),
        description="Band of the generator delta that delta-targeting aims at, on the ladder.",
    )
    explore: Explore = Field(
        default=Explore.THOMPSON,
        description=(
            "How delta-targeting tries what is unsure. thompson: each pair by its chance of being "
            "right, prompt by prompt; ucb: the pair that may be the best, until more is known."
        ),
    )
    max_active: int | None = Field(
        default=None,
        ge=2,
        description="Most members that are dealt to in one window of turnover; unset: all of them.",
    )
    turnover_s: float = Field(
        default=3_600, gt=0, description="After so long other members are active, by weight."
    )
    pairs: tuple[tuple[Name, Name], ...] | None = Field(
        default=None, description="Generator pairs to deal over; unset means every two of the pool."
    )

    @field_validator("target_delta")
    @classmethod
    def _is_a_band(cls, band: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= band[0] <= band[1] < math.inf:
            raise ValueError(f"{list(band)} is no band; give two numbers from 0 up, as [0.5, 2.0]")
        return band


class GenerationSettings(Section):
    """Asking the generators."""

    concurrency: int = Field(default=96, ge=1, description="Prompts in work at the same time.")
    request_timeout_s: float = Field(default=60, gt=0, description="Longest wait for one trace.")
    max_in_flight_per_server: int | None = Field(
        default=None,
        ge=1,
        description="Most requests to one model server at the same time; where it answers 429 or "
        "503, or late, it is given fewer by itself. Unset: two for each prompt in work.",
    )
    expire_after_s: float = Field(
        default=86_400, gt=0, description="Open slots end as expired after this; the last resort."
    )
    health_interval_s: float = Field(
        default=15.0,
        ge=0,
        description="A member of the pool that writes nothing for so long is asked for one token; "
        "0: never.",
    )
    health_failures: int = Field(
        default=3,
        ge=1,
        description="Failed health checks in a row after which a member leaves until it answers.",
    )

    @property
    def most_in_flight(self) -> int:
        """Most requests to one server at the same time: every prompt is asked of two generators."""
        return self.max_in_flight_per_server or 2 * self.concurrency


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
