"""Settings of a training cycle: when it starts, how it trains, what it is measured by."""

from decimal import Decimal

from pydantic import Field, field_validator

from deltawheel.contracts.evaluation import SuiteRole
from deltawheel.contracts.gate import GateThresholds
from deltawheel.contracts.generator import Sampling
from deltawheel.contracts.record import CanonicalDecimal, Name
from deltawheel.contracts.settings.section import Section, refuse, repeated
from deltawheel.contracts.settings.values import (
    SANDBOX,
    AnswerPattern,
    CrontabLine,
    SuiteItems,
)
from deltawheel.contracts.slices import ORDER_BY

__all__ = [
    "EvaluationSettings",
    "GateSettings",
    "SuiteSettings",
    "TrainingSettings",
]


class SuiteSettings(Section):
    """One evaluation suite."""

    name: Name = Field(description="Name of the suite.")
    role: SuiteRole = Field(description="out-of-domain, in-domain or guard.")
    items: SuiteItems = Field(
        description="sandbox:<suite>, or a JSONL file of lines with prompt and reference_answer."
    )


_SANDBOX_SUITES = (
    SuiteSettings(name="in-domain", role=SuiteRole.IN_DOMAIN, items="sandbox:in_domain"),
    SuiteSettings(name="times", role=SuiteRole.OUT_OF_DOMAIN, items="sandbox:out_of_domain_times"),
    SuiteSettings(name="mixed", role=SuiteRole.OUT_OF_DOMAIN, items="sandbox:out_of_domain_mixed"),
    SuiteSettings(name="max-min", role=SuiteRole.GUARD, items="sandbox:guard"),
)


class EvaluationSettings(Section):
    """How champion and candidate are compared."""

    suites: tuple[SuiteSettings, ...] = Field(
        default=_SANDBOX_SUITES, description="At least one of them must be out-of-domain."
    )
    items_per_suite: int = Field(default=1_000, ge=50, description="Items of each suite.")
    answer_pattern: AnswerPattern = Field(
        default=r"A:(-?\d+)", description="Regular expression whose first group is the answer."
    )
    max_tokens: int = Field(default=64, ge=1, description="Longest answer, in tokens.")
    temperature: float = Field(
        default=0.0, ge=0, le=2, description="As deployed; 0 is greedy decoding."
    )
    concurrency: int = Field(default=64, ge=1, description="Requests at the same time.")

    @field_validator("suites")
    @classmethod
    def _measure_transfer(cls, suites: tuple[SuiteSettings, ...]) -> tuple[SuiteSettings, ...]:
        faults = repeated("evaluation.suites", [suite.name for suite in suites])
        if not any(suite.role is SuiteRole.OUT_OF_DOMAIN for suite in suites):
            faults.append("evaluation.suites: at least one suite must have the role out-of-domain")
        refuse(faults)
        return suites


class GateSettings(Section):
    """What a candidate must show. Accuracies and differences are shares, 0 to 1."""

    alpha: float = Field(default=0.025, gt=0, lt=0.5, description="Error rate of each bound.")
    min_gain: float = Field(
        default=0.02, ge=0, lt=1, description="A gain that is surely below this is a rejection."
    )
    max_harm: float = Field(
        default=0.02, gt=0, lt=1, description="Non-inferiority margin, in-domain and guard."
    )
    max_suite_harm: float = Field(
        default=0.05, gt=0, lt=1, description="No single suite may surely fall by more."
    )
    num_resamples: int = Field(default=4_000, ge=200, description="Bootstrap resamples.")

    def thresholds(self, seed: int) -> GateThresholds:
        """Return the record that stands in the decision."""
        return GateThresholds(seed=seed, **self.model_dump())


class TrainingSettings(Section):
    """When a cycle starts and how it trains."""

    is_enabled: bool = Field(default=True, description="Whether cycles start by themselves.")
    cron: CrontabLine | None = Field(
        default="0 3 * * *", description="Crontab of scheduled cycles, UTC; unset for none."
    )
    min_new_pairs: int | None = Field(
        default=5_000,
        ge=1,
        description="Pairs stored since the last cycle that start one; or unset.",
    )
    base: str = Field(
        default=SANDBOX,
        description="Folder of the base model, the reference of the epoch; the server's own base.",
    )
    server: Name = Field(default="local", description="The one of `servers` that evaluates.")
    top_share: CanonicalDecimal = Field(
        default=Decimal("0.3"), gt=0, le=1, description="Share of the pairs, highest delta first."
    )
    dimension: str = Field(
        default=ORDER_BY, description="Whose delta ranks the pairs: order_by, or a dimension."
    )
    min_pairs: int = Field(default=50, ge=2, description="Smaller slices are not trained on.")
    learning_rate: float = Field(default=5e-4, gt=0, description="About ten times full training's.")
    beta: float = Field(default=5.0, gt=0, description="DPO's beta, length-normalised loss.")
    batch_size: int = Field(default=32, ge=1, description="Pairs per optimiser step.")
    passes: int = Field(default=1, ge=1, description="How often the slice is gone through.")
    warmup_steps: int = Field(default=3, ge=0, description="Linear warm-up, in steps.")
    lora_rank: int = Field(default=16, ge=1, description="Rank of the adapter.")
    max_length: int = Field(
        default=128, ge=8, description="Longer pairs are dropped and counted, tokens."
    )
    threads: int = Field(
        default=1, ge=1, description="CPU threads; more than are free is slower, not faster."
    )
    pause_generation: bool = Field(
        default=True,
        description="Hold generation while a cycle trains and evaluates on the same machine.",
    )
    lease_s: float = Field(
        default=15.0, gt=2, description="A killed step can be taken over after so long."
    )
    seed: int = Field(default=0, description="Seed of initialisation and order.")
    sampling: Sampling = Field(
        default=Sampling(max_tokens=64), description="How a promoted model is asked."
    )
    step_timeout_s: float = Field(default=3_600, gt=0, description="Longest a step may take.")
    max_step_attempts: int = Field(default=5, ge=1, description="Tries before the cycle fails.")
