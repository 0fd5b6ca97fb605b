"""`deltawheel judge try`: the way of the service, shown, and stored nowhere."""

import asyncio
import json
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from deltawheel.contracts.errors import DeltawheelError
from deltawheel.contracts.rubric import PAPER_DIMENSIONS
from deltawheel.contracts.settings import Settings
from deltawheel.infra import wiring
from deltawheel.infra.settings_file import load_settings
from deltawheel.ops.judge_trial import Trial, read_subjects, run_trials
from tests.judged import judged_by
from tests.servers import stub_in_thread

LINE = {"text": "17+8=", "answer": "It is 25.", "reference_answer": "25"}


def exact_match(tmp_path: Path) -> Settings:
    return Settings(
        home=tmp_path / "home",
        judge={"kind": "exact-match"},
        training={"is_enabled": False},
    )


def a_file(tmp_path: Path, *lines: object) -> str:
    path = tmp_path / "traces.jsonl"
    path.write_text("\n".join(it if isinstance(it, str) else json.dumps(it) for it in lines))
    return str(path)


def tried(named: str, settings: Settings) -> tuple[list[Trial], dict[int, str]]:
    subjects, refused = read_subjects(named, settings)
    return asyncio.run(run_trials(subjects, settings, say=lambda text: None)), refused


def test_every_line_is_judged_and_wrong_ones_are_named(tmp_path: Path) -> None:
    wrong = {**LINE, "answer": "It is 26."}
    half = '{"text": "a", "answer": "\\ud800"}'
    named = a_file(tmp_path, LINE, "{", "", {"text": "no answer"}, [], wrong, half)
    trials, refused = tried(named, exact_match(tmp_path))
    assert [trial.subject for trial in trials] == ["line 1", "line 6"]
    assert [trial.told()["is_correct"] for trial in trials] == [True, False]
    assert refused.keys() == {2, 4, 5, 7}
    assert "no 'answer'" in refused[4]


def test_line_that_cannot_be_judged_keeps_the_others(tmp_path: Path) -> None:
    unjudged = {"text": "What is art?", "answer": "Art."}
    trials, _ = tried(a_file(tmp_path, unjudged, LINE), exact_match(tmp_path))
    assert "has no reference_answer" in str(trials[0].fault)
    assert trials[1].told()["scores"]["factuality"]["mean"] == 5


def test_name_of_nothing_says_what_there_could_be(tmp_path: Path) -> None:
    settings = exact_match(tmp_path)
    settings.state.mkdir(parents=True)
    with (
        closing(wiring.open_store(settings)),
        pytest.raises(DeltawheelError, match="neither a file"),
    ):
        read_subjects("trace-0", settings)


def test_model_that_judges_is_shown_with_its_request_and_its_answer(tmp_path: Path) -> None:
    scores = json.dumps(dict.fromkeys(PAPER_DIMENSIONS, 4))
    with stub_in_thread("echo") as (stub, url):
        stub.models["grader"] = lambda _: scores
        settings = load_settings(judged_by(url, tmp_path, mode="votes"))
        [trial], _ = tried(a_file(tmp_path, LINE), settings)
    told: Mapping[str, Any] = trial.told()
    assert told["fault"] is None
    exchange, _ = told["exchanges"]
    assert exchange["answers"] == [scores] * 3
    assert "It is 25." in exchange["request"]["messages"][1]["content"]
    assert told["scores"]["step_coherence"]["num_votes"] == 6
