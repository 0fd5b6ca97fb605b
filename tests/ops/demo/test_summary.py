"""The summary: every figure of the run, and in words what became of the candidate."""

import json
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from deltawheel.contracts.cycle import Cycle, CycleState, StepName, StepState
from deltawheel.contracts.evaluation import SuiteRole
from deltawheel.contracts.gate import Comparison, GateDecision, Verdict
from deltawheel.contracts.outcome import Outcome
from deltawheel.contracts.settings import GateSettings, Settings
from deltawheel.contracts.slices import ORDER_BY
from deltawheel.contracts.store import DeltaStats, Progress
from deltawheel.ops.console import print_json
from deltawheel.ops.demo.summary import DemoResult, mean_deltas, print_summary
from tests.records import a_cycle

SLICE = {
    "num_pairs": 321,
    "num_candidates": 1_070,
    "mean_delta": 2.718,
    "mean_delta_of_candidates": 1.618,
}
CONTROLS = [
    {
        "arm": arm,
        "num_pairs": pairs,
        "accuracy": {"times": accuracy, "mixed": 0.111},
        "difference": 0.123,
        "lower": 0.101,
        "upper": 0.145,
    }
    for arm, pairs, accuracy in (("top-delta", 321, 0.432), ("shuffled-labels", 320, 0.234))
]


def a_comparison(role: SuiteRole, suite: str | None, *, champion: float) -> Comparison:
    return Comparison(
        suite=suite,
        role=role,
        num_items=1_000,
        champion_accuracy=champion,
        candidate_accuracy=champion + 0.125,
        difference=0.125,
        lower=0.0625,
        upper=0.1875,
    )


def a_decision(verdict: Verdict = Verdict.PROMOTE) -> GateDecision:
    return GateDecision(
        cycle_id=a_cycle().cycle_id,
        evaluation_digest="sha256:0",
        thresholds=GateSettings().thresholds(seed=0),
        comparisons=(
            a_comparison(SuiteRole.GUARD, "max-min", champion=0.75),
            a_comparison(SuiteRole.GUARD, None, champion=0.75),
            a_comparison(SuiteRole.OUT_OF_DOMAIN, "times", champion=0.25),
            a_comparison(SuiteRole.OUT_OF_DOMAIN, None, champion=0.5),
        ),
        smallest_visible_gain=0.02,
        verdict=verdict,
        reasons=("the first reason", "the second reason"),
    )


def an_ended_cycle(
    results: Mapping[StepName, Mapping[str, Any]],
    *,
    state: CycleState = CycleState.ENDED,
    verdict: Verdict | None = None,
    error: str | None = None,
) -> Cycle:
    cycle = a_cycle()
    steps = tuple(
        step.model_copy(update={"state": StepState.DONE, "result": results.get(step.name, {})})
        for step in cycle.steps
    )
    return cycle.model_copy(
        update={"steps": steps, "state": state, "verdict": verdict, "error": error}
    )


def deltas_of(chosen: str, rejected: str, *, num_pairs: int, mean: float) -> list[DeltaStats]:
    return [
        DeltaStats(
            chosen_generator=chosen,
            rejected_generator=rejected,
            dimension=dimension,
            num_pairs=num_pairs,
            mean_delta=mean,
            mean_generator_delta=1.0,
        )
        for dimension in (ORDER_BY, "factuality")
    ]


def a_result(cycle: Cycle, decision: GateDecision | None, **changes: Any) -> DemoResult:
    fields: dict[str, Any] = {
        "settings": Settings(home=Path("/tmp/demo-home")),
        "progress": Progress(
            prompts=4_004,
            assigned=4_004,
            traces=8_005,
            judgements=8_001,
            slot_failures=7,
            pairs=1_070,
            dead_letters=3,
            completion_tokens=99,
            outcomes={Outcome.PAIRED: 1_070, Outcome.QUARANTINED: 17, Outcome.UNPAIRED: 2_911},
            quarantined={"expect_answers_to_differ": 11, "expect_text_to_fit": 6},
        ),
        "deltas": [
            *deltas_of("strong", "weak", num_pairs=900, mean=1.5),
            *deltas_of("weak", "strong", num_pairs=100, mean=0.5),
        ],
        "generator_deltas": {"strong/weak": "+2.00 ± 0.71 (declared-prior)"},
        "cycle": cycle,
        "decision": decision,
        "controls": (),
        "elapsed_s": 321.6,
        "state_bytes": 42_000_000,
        "peak_memory_bytes": 5_600_000_000,
    }
    return DemoResult(**{**fields, **changes})


def a_promotion_result(**changes: Any) -> DemoResult:
    results: Mapping[StepName, Mapping[str, Any]] = {
        StepName.SELECT: SLICE,
        StepName.REGISTER: {"version": "6"},
    }
    cycle = an_ended_cycle(results, verdict=Verdict.PROMOTE)
    return a_result(cycle, a_decision(Verdict.PROMOTE), **changes)


def a_refusal(verdict: Verdict) -> DemoResult:
    cycle = an_ended_cycle({StepName.SELECT: SLICE}, verdict=verdict)
    return a_result(cycle, a_decision(verdict))


@pytest.fixture
def summary_of(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("COLUMNS", "160")

    def summarise(result: DemoResult) -> str:
        print_summary(result)
        return capsys.readouterr().out

    return summarise


def rows_of(summary: str) -> list[list[str]]:
    return [line.split() for line in summary.splitlines()]


def test_summary_tells_where_each_prompt_ended(summary_of: Any) -> None:
    summary = summary_of(a_promotion_result())
    assert "4004 prompts, and where each ended" in summary
    rows = rows_of(summary)
    for outcome, count in (
        ("paired", "1070"),
        ("quarantined", "17"),
        ("unpaired", "2911"),
        ("dead-lettered", "0"),
        ("open", "6"),
    ):
        assert [outcome, count] in rows


def test_summary_tells_how_many_pairs_and_why_others_were_quarantined(summary_of: Any) -> None:
    assert (
        "1070 pairs stored; quarantined: expect_answers_to_differ 11, expect_text_to_fit 6\n"
        in summary_of(a_promotion_result())
    )


def test_summary_without_quarantine_says_so(summary_of: Any) -> None:
    progress = Progress(
        prompts=1,
        assigned=1,
        traces=2,
        judgements=2,
        slot_failures=0,
        pairs=1,
        dead_letters=0,
        completion_tokens=1,
        outcomes={Outcome.PAIRED: 1},
    )
    assert "1 pairs stored; quarantined: none\n" in summary_of(
        a_promotion_result(progress=progress)
    )


def test_mean_delta_weighs_each_generator_pair_by_its_pairs() -> None:
    means = mean_deltas(a_promotion_result().deltas)
    assert means == pytest.approx({ORDER_BY: 1.4, "factuality": 1.4})
    assert mean_deltas([]) == {}


def test_summary_tells_both_deltas_of_each_generator_pair(summary_of: Any) -> None:
    summary = summary_of(a_promotion_result())
    rows = rows_of(summary)
    assert ["factuality", "+1.400"] in rows
    assert ["order_by", "+1.400"] in rows
    strong = ["strong", "over", "weak", "900", "+1.500", "+2.00", "±", "0.71", "(declared-prior)"]
    weak = ["weak", "over", "strong", "100", "+0.500"]
    assert rows.index(strong) < rows.index(weak)


def test_summary_tells_what_the_trainer_read(summary_of: Any) -> None:
    assert "slice: 321 of 1070 pairs, mean delta 2.718 (all pairs 1.618)\n" in summary_of(
        a_promotion_result()
    )


def test_summary_shows_every_comparison_out_of_domain_first_and_overall_first(
    summary_of: Any,
) -> None:
    rows = rows_of(summary_of(a_promotion_result()))
    interval = ["+0.125", "[+0.062,", "+0.188]"]
    expected = [
        ["out-of-domain,", "all", "1000", "0.500", "0.625", *interval],
        ["times", "1000", "0.250", "0.375", *interval],
        ["guard,", "all", "1000", "0.750", "0.875", *interval],
        ["max-min", "1000", "0.750", "0.875", *interval],
    ]
    places = [rows.index(row) for row in expected]
    assert places == sorted(places)


def test_promotion_is_told_with_its_reasons_and_its_version(summary_of: Any) -> None:
    summary = summary_of(a_promotion_result())
    assert "verdict: promote, because the first reason; the second reason\n" in summary
    assert "MLflow: deltawheel-default version 6, alias champion\n" in summary
    assert "failed" not in summary


@pytest.mark.parametrize("verdict", [Verdict.REJECT, Verdict.INCONCLUSIVE])
def test_refusal_says_that_the_champion_stays(verdict: Verdict, summary_of: Any) -> None:
    summary = summary_of(a_refusal(verdict))
    assert f"verdict: {verdict.value}, because the first reason; the second reason\n" in summary
    assert "MLflow: no new version; the champion is who it was\n" in summary
    assert "alias champion" not in summary


def test_cycle_that_failed_before_the_gate_says_why(summary_of: Any) -> None:
    cycle = an_ended_cycle({}, state=CycleState.FAILED, error="train: no slice \x1b[2J")
    summary = summary_of(a_result(cycle, None))
    assert "the cycle failed: train: no slice \\x1b[2J\n" in summary
    assert "verdict" not in summary
    assert "slice:" not in summary


def test_cycle_that_failed_after_the_gate_said_promote_claims_no_version(summary_of: Any) -> None:
    cycle = an_ended_cycle(
        {StepName.SELECT: SLICE}, state=CycleState.FAILED, error="register: MLflow is away"
    )
    summary = summary_of(a_result(cycle, a_decision(Verdict.PROMOTE)))
    assert "the cycle failed: register: MLflow is away\n" in summary
    assert "MLflow: deltawheel" not in summary
    assert "out-of-domain, all" in summary


def test_controls_are_shown_beside_the_candidate(summary_of: Any) -> None:
    summary = summary_of(a_promotion_result(controls=CONTROLS))
    assert "controls, from the same pairs at equal budget" in summary
    rows = rows_of(summary)
    assert any(row[:5] == ["trained", "on", "pairs", "times", "mixed"] for row in rows)
    gain = ["+0.123", "[+0.101,", "+0.145]"]
    assert ["top-delta", "321", "0.432", "0.111", *gain] in rows
    assert ["shuffled-labels", "320", "0.234", "0.111", *gain] in rows


def test_summary_without_controls_speaks_of_none(summary_of: Any) -> None:
    assert "controls" not in summary_of(a_promotion_result())


def test_summary_tells_what_it_took_and_where_to_look_next(summary_of: Any) -> None:
    summary = summary_of(a_promotion_result())
    assert "took 322 s, at most 5.6 GB of memory; /tmp/demo-home holds 42 MB\n" in summary
    config = "deltawheel --config /tmp/demo-home/deltawheel.yaml"
    for command in ("pairs list", "audit", "up"):
        assert f"{config} {command}" in summary
    assert "mlflow ui --backend-store-uri sqlite:////tmp/demo-home/registry/mlflow.db" in summary
    assert summary.endswith("the store is /tmp/demo-home/state/store.db\n")


def programs_in(summary: str) -> list[str]:
    """Return what the commands under `where to look next` start."""
    _, told = summary.split("where to look next:\n")
    lines = [line for line in told.splitlines() if line.startswith("  ")]
    return [shlex.split(line, comments=True)[0] for line in lines]


def test_commands_to_look_next_are_this_installations_whatever_the_path_finds(
    summary_of: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("deltawheel", "mlflow"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    own = Path(sys.executable).parent
    named = [str(own / name) for name in ("deltawheel", "deltawheel", "mlflow", "deltawheel")]
    for path in ("/nowhere", str(tmp_path), os.path.relpath(own)):
        monkeypatch.setenv("PATH", path)
        assert programs_in(summary_of(a_promotion_result())) == named


def test_commands_to_look_next_are_short_where_the_path_finds_the_same_files(
    summary_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    short = ["deltawheel", "deltawheel", "mlflow", "deltawheel"]
    assert programs_in(summary_of(a_promotion_result())) == short


def test_commands_to_look_next_can_be_pasted_whatever_the_folder_is_called(
    summary_of: Any,
) -> None:
    settings = Settings(home=Path("/tmp/my demo's"))
    _, told = summary_of(a_promotion_result(settings=settings)).split("where to look next:\n")
    words = [shlex.split(line, comments=True) for line in told.splitlines()[:4]]
    assert words[0][1:] == ["--config", "/tmp/my demo's/deltawheel.yaml", "pairs", "list"]
    assert words[2][1:] == [
        "ui",
        "--backend-store-uri",
        "sqlite:////tmp/my demo's/registry/mlflow.db",
    ]


@pytest.mark.parametrize(
    "result",
    [
        a_promotion_result(controls=CONTROLS),
        a_refusal(Verdict.REJECT),
        a_result(an_ended_cycle({}, state=CycleState.FAILED, error="train: no slice"), None),
    ],
    ids=["promote", "reject", "failed"],
)
def test_json_form_serialises_with_the_figures_of_the_text(
    result: DemoResult, capsys: pytest.CaptureFixture[str]
) -> None:
    print_json(result.as_json())
    figures = json.loads(capsys.readouterr().out)
    assert (figures["prompts"], figures["traces"], figures["pairs"]) == (4_004, 8_005, 1_070)
    assert figures["outcomes"] == {"paired": 1_070, "quarantined": 17, "unpaired": 2_911}
    assert figures["quarantined"] == {"expect_answers_to_differ": 11, "expect_text_to_fit": 6}
    assert figures["mean_sample_delta"]["factuality"] == pytest.approx(1.4)
    assert figures["generator_deltas"] == {"strong/weak": "+2.00 ± 0.71 (declared-prior)"}
    assert (figures["elapsed_s"], figures["home_bytes"]) == (321.6, 42_000_000)
    assert (figures["home"], figures["peak_memory_bytes"]) == ("/tmp/demo-home", 5_600_000_000)
    assert figures["controls"] == list(result.controls)
    cycle, decision = figures["cycle"], figures["decision"]
    assert (cycle["cycle_id"], cycle["state"]) == (a_cycle().cycle_id, result.cycle.state.value)
    assert cycle["error"] == result.cycle.error
    assert (decision or {}).get("verdict") == result.cycle.verdict


def test_summary_shows_no_password(summary_of: Any) -> None:
    settings = Settings(
        home=Path("/tmp/demo-home"),
        store={"url": "postgresql://u:secret@h/d"},
        registry={"uri": "postgresql://u:secret@h/m"},
    )
    summary = summary_of(a_promotion_result(settings=settings))
    assert "the store is postgresql://u:***@h/d" in summary
    assert "secret" not in summary
