"""The report: figures, files, and a sentence for whatever is not as promised."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from deltawheel.infra.processes import ProcessId
from deltawheel.ops.bench.chaos.recovery import Recovery
from deltawheel.ops.bench.chaos.report import ChaosResult, write_report
from deltawheel.ops.bench.chaos.wheel import Victim
from tests.ops.bench.chaos.test_verdict import VERDICT


def recovered(name: str, took_s: float | None) -> Recovery:
    victim = Victim(name=name, old=ProcessId(pid=1, started=1))
    end_s = None if took_s is None else 50 + took_s
    return Recovery(cause=name, victim=victim, killed_at_s=50, recovered_at_s=end_s)


RESULT = ChaosResult(
    seed=7,
    wall_s=61.26,
    verdict=replace(VERDICT, prompts=900, outcomes={"paired": 890, "unpaired": 10}),
    kills={"judging": 2, "guard of judging": 1},
    outages={"broker": 1},
    held={"judging.received of judging": 1},
    missed=(),
    recoveries=[
        recovered("judging", 2.0),
        recovered("judging", 4.0),
        recovered("judging", 2.5),
        recovered("broker", 14.0),
    ],
    effects_found=30,
    owed_republished=4,
    unanswered={"RetryLaterError": 5},
    num_garbage=100,
    num_members=3,
    num_given_up=0,
    survivors=(),
)


def test_json_has_the_figures_that_the_last_line_promises() -> None:
    shown = RESULT.as_json()
    promised = {
        "prompts": 900,
        "kills": 3,
        "redeliveries": 34,
        "duplicates": 0,
        "lost": 0,
        "recovery_p50_s": 2.5,
        "recovery_p99_s": 14.0,
        "is_clean": True,
        "seed": 7,
        "wall_s": 61.3,
    }
    assert {name: shown[name] for name in promised} == promised


@pytest.mark.parametrize(
    ("result", "sentence"),
    [
        (replace(RESULT, verdict=replace(VERDICT, open=2)), "2 prompts are open still"),
        (replace(RESULT, verdict=replace(VERDICT, absent=1)), "1 accepted prompts are not in"),
        (replace(RESULT, verdict=replace(VERDICT, duplicates=1)), "1 rows are stored twice"),
        (replace(RESULT, verdict=replace(VERDICT, findings=("p: lost",))), "audit: p: lost"),
        (replace(RESULT, verdict=replace(VERDICT, unexplained=4)), "4 prompts ended as nothing"),
        (replace(RESULT, verdict=replace(VERDICT, outcomes={"unpaired": 1})), "not one prompt"),
        (replace(RESULT, verdict=replace(VERDICT, misburied=5)), "5 records were dead-lettered"),
        (replace(RESULT, verdict=replace(VERDICT, unburied=3)), "3 messages of garbage have no"),
        (replace(RESULT, missed=("training.step of training",)), "could be killed at training"),
        (replace(RESULT, num_given_up=1), "up ended by itself 1 times: look into up.log"),
        (replace(RESULT, survivors=(17, 18)), "processes 17, 18 were left running"),
    ],
)
def test_whatever_is_not_as_promised_is_said_and_fails_the_run(
    result: ChaosResult, sentence: str
) -> None:
    assert RESULT.complaints() == []
    [said] = result.complaints()
    assert sentence in said
    assert not result.is_clean


def test_files_hold_every_recovery_and_a_histogram(tmp_path: Path) -> None:
    late = replace(RESULT, recoveries=[*RESULT.recoveries, recovered("curation", None)])
    write_report(late, tmp_path)
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["recoveries"][-1] == {"cause": "broker", "process": "broker", "seconds": 14.0}
    text = (tmp_path / "report.md").read_text()
    assert "| judging | 3 | 2.5 s | 4.0 s | 4.0 s |" in text
    assert "| judging.received of judging | 1 |" in text
    bars = {line.split("█")[0].strip(): line for line in text.splitlines() if "█" in line}
    assert [line.split()[-1] for line in bars.values()] == ["2", "1", "1"]
