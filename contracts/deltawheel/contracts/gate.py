"""The gate's decision: permission to register, with every number it hangs on."""

from enum import StrEnum

from pydantic import Field

from deltawheel.contracts.errors import ExitCode
from deltawheel.contracts.evaluation import SuiteRole
from deltawheel.contracts.record import Name, Record

__all__ = ["Comparison", "GateDecision", "GateThresholds", "Verdict"]


class Verdict(StrEnum):
    """What the gate says of a candidate."""

    PROMOTE = "promote"
    REJECT = "reject"
    INCONCLUSIVE = "inconclusive"

    @property
    def exit_code(self) -> ExitCode:
        """The status with which a command that ran the cycle ends."""
        return {
            Verdict.PROMOTE: ExitCode.DONE,
            Verdict.REJECT: ExitCode.REJECTED,
            Verdict.INCONCLUSIVE: ExitCode.INCONCLUSIVE,
        }[self]


class GateThresholds(Record):
    """What the operator asks of a candidate. Accuracies and differences are shares, 0 to 1."""

    alpha: float = Field(gt=0, lt=0.5, description="Error rate of each one-sided bound.")
    min_gain: float = Field(ge=0, lt=1, description="A gain surely below this is a rejection.")
    max_harm: float = Field(gt=0, lt=1, description="Non-inferiority margin per role.")
    max_suite_harm: float = Field(gt=0, lt=1, description="No single suite may surely fall by it.")
    num_resamples: int = Field(ge=200, description="Bootstrap resamples; 0.1 s per 1,000.")
    seed: int = 0


class Comparison(Record):
    """Candidate minus champion on one suite, or on the macro-average of one role's suites."""

    suite: Name | None = Field(description="None for the macro-average over the role's suites.")
    role: SuiteRole
    num_items: int
    champion_accuracy: float
    candidate_accuracy: float
    difference: float
    lower: float = Field(description="One-sided lower bound at the gate's alpha, paired.")
    upper: float


class GateDecision(Record):
    """A verdict that can be replayed: the same evaluation and thresholds give the same file."""

    cycle_id: str
    evaluation_digest: str
    thresholds: GateThresholds
    comparisons: tuple[Comparison, ...]
    smallest_visible_gain: float = Field(
        description="Out-of-domain gain that this many items would have shown with power 0.8."
    )
    verdict: Verdict
    reasons: tuple[str, ...] = Field(min_length=1)

    def overall(self, role: SuiteRole) -> Comparison:
        """Return the macro-average comparison of a role.

        Raises:
            LookupError: no suite has this role.
        """
        for comparison in self.comparisons:
            if comparison.role is role and comparison.suite is None:
                return comparison
        raise LookupError(f"the evaluation has no suite with the role {role.value}")
