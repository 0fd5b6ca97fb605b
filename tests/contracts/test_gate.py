import pytest
from pydantic import ValidationError

from deltawheel.contracts.errors import (
    ConfigError,
    CycleError,
    DeltawheelError,
    ExitCode,
    InvalidRecordError,
    RetryLaterError,
)
from deltawheel.contracts.evaluation import SuiteRole
from deltawheel.contracts.gate import Comparison, GateDecision, GateThresholds, Verdict
from deltawheel.contracts.settings import GateSettings


def a_comparison(role: SuiteRole, suite: str | None) -> Comparison:
    return Comparison(
        suite=suite,
        role=role,
        num_items=100,
        champion_accuracy=0.5,
        candidate_accuracy=0.6,
        difference=0.1,
        lower=0.05,
        upper=0.15,
    )


def a_decision(*comparisons: Comparison) -> GateDecision:
    return GateDecision(
        cycle_id="cycle_1",
        evaluation_digest="sha256:0",
        thresholds=GateSettings().thresholds(seed=3),
        comparisons=comparisons,
        smallest_visible_gain=0.02,
        verdict=Verdict.PROMOTE,
        reasons=("it is better",),
    )


def test_exit_code_tells_a_script_what_the_gate_said() -> None:
    assert {verdict.value: int(verdict.exit_code) for verdict in Verdict} == {
        "promote": 0,
        "reject": 3,
        "inconclusive": 4,
    }


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DeltawheelError("x"), ExitCode.FAILURE),
        (InvalidRecordError("x"), ExitCode.FAILURE),
        (RetryLaterError("x"), ExitCode.FAILURE),
        (CycleError("x"), ExitCode.FAILURE),
        (ConfigError("x"), ExitCode.USAGE),
    ],
)
def test_exit_code_of_an_error_tells_who_must_act(error: DeltawheelError, code: ExitCode) -> None:
    assert error.exit_code is code


def test_retry_remembers_for_how_long_the_other_side_asked() -> None:
    assert RetryLaterError("x", retry_after_s=7).retry_after_s == 7
    assert RetryLaterError("x").retry_after_s is None


def test_overall_comparison_of_a_role_is_found_among_its_suites() -> None:
    guard = a_comparison(SuiteRole.GUARD, "max-min")
    overall = a_comparison(SuiteRole.GUARD, None)
    assert a_decision(guard, overall).overall(SuiteRole.GUARD) is overall


def test_role_without_suites_is_named() -> None:
    decision = a_decision(a_comparison(SuiteRole.GUARD, None))
    with pytest.raises(LookupError, match="no suite with the role out-of-domain"):
        decision.overall(SuiteRole.OUT_OF_DOMAIN)


def test_decision_needs_a_reason() -> None:
    fields = a_decision().model_dump()
    with pytest.raises(ValidationError, match="reasons"):
        GateDecision.model_validate({**fields, "reasons": ()})


def test_decision_carries_the_thresholds_of_the_settings() -> None:
    settings = GateSettings(alpha=0.01, min_gain=0.03)
    thresholds = settings.thresholds(seed=3)
    assert thresholds == GateThresholds(seed=3, **settings.model_dump())
    assert (thresholds.alpha, thresholds.min_gain, thresholds.seed) == (0.01, 0.03, 3)


@pytest.mark.parametrize(
    "wrong", [{"alpha": 0.0}, {"alpha": 0.5}, {"min_gain": 1.0}, {"max_harm": 0.0}]
)
def test_threshold_that_decides_nothing_is_refused(wrong: dict[str, float]) -> None:
    fields = GateSettings().thresholds(seed=0).model_dump()
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        GateThresholds(**{**fields, **wrong})
