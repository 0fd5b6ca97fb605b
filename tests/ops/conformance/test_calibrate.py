"""`deltawheel judge calibrate`: what is measured is stored, for the judge as it is now."""

import itertools
import json
from contextlib import closing
from pathlib import Path

import pytest

from deltawheel.contracts.rubric import PAPER_DIMENSIONS
from deltawheel.infra import wiring
from deltawheel.infra.settings_file import load_settings
from tests.judged import judged_by
from tests.ops.terminals import Shell
from tests.servers import stub_in_thread


def test_spread_of_repeated_judgements_is_stored_for_the_judge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = itertools.count()
    with stub_in_thread("echo") as (stub, url):
        stub.models["grader"] = lambda _: json.dumps(
            dict.fromkeys(PAPER_DIMENSIONS, 2) | {"factuality": 2 + next(turns) // 2 % 2}
        )
        config = judged_by(url, tmp_path, mode="votes", min_votes=2, max_votes=2)
        monkeypatch.setenv("DELTAWHEEL_HOME", str(tmp_path / "home"))
        settings = load_settings(config)
        settings.state.mkdir(parents=True)
        wiring.open_store(settings).close()
        shell = Shell(patch=monkeypatch).on(config)
        done = shell.run("judge", "calibrate", "--repeats", "4", "--cases", "1", "--json")
        shown = shell.run("judge", "calibrate", "grader", "--cases", "1")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["variances"]["factuality"] > 0
    assert told["variances"]["step_coherence"] == 0
    assert (told["num_texts"], told["num_judgements"]) == (7, 28)
    assert "35 judgements of 7 texts" in shown.out
    with closing(wiring.open_store(settings)) as store:
        newest = store.newest_calibration(
            wiring.judge_revision(settings), settings.make_rubric().digest
        )
    assert newest is not None
    assert newest.num_judgements == 35


def test_judge_that_answers_nothing_is_not_calibrated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stub_in_thread("echo") as (stub, url):
        stub.models["grader"] = lambda _: "no JSON"
        config = judged_by(url, tmp_path, mode="votes")
        monkeypatch.setenv("DELTAWHEEL_HOME", str(tmp_path / "home"))
        settings = load_settings(config)
        settings.state.mkdir(parents=True)
        wiring.open_store(settings).close()
        done = Shell(patch=monkeypatch).on(config).run("judge", "calibrate", "--cases", "1")
    assert done.code == 1
    assert "no text was judged twice" in done.err


def test_too_few_judgements_are_no_calibration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stub_in_thread("echo") as (stub, url):
        stub.models["grader"] = lambda _: json.dumps(dict.fromkeys(PAPER_DIMENSIONS, 2))
        config = judged_by(url, tmp_path, mode="votes", min_votes=2, max_votes=2)
        monkeypatch.setenv("DELTAWHEEL_HOME", str(tmp_path / "home"))
        settings = load_settings(config)
        settings.state.mkdir(parents=True)
        wiring.open_store(settings).close()
        shell = Shell(patch=monkeypatch).on(config)
        done = shell.run("judge", "calibrate", "--cases", "1", "--repeats", "2")
    assert done.code == 1
    assert "14 judgements of 7 texts are too few" in done.err
