"""`deltawheel judge anchors`: a judge that has moved is told of until its level is accepted."""

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from deltawheel.contracts.rubric import PAPER_DIMENSIONS
from deltawheel.infra import wiring
from deltawheel.infra.settings_file import load_settings
from deltawheel.infra.store.store import SqlStore
from deltawheel.infra.stub_model_server import StubModelServer
from deltawheel.ops.doctor.examine import site_of
from deltawheel.ops.doctor.flow import check_flow
from deltawheel.ops.operator import operator_name
from tests.judged import judged_by
from tests.ops.terminals import Done, Shell
from tests.servers import stub_in_thread


class Watched:
    """A stopped wheel whose judge gives every text the same score."""

    def __init__(self, stub: StubModelServer, shell: Shell, config: Path) -> None:
        self._stub = stub
        self.shell = shell
        self.config = config
        self.scores(3)

    def scores(self, level: int) -> None:
        answer = json.dumps(dict.fromkeys(PAPER_DIMENSIONS, level))
        self._stub.models["grader"] = lambda _: answer

    def anchors(self, *options: str) -> Done:
        return self.shell.run("judge", "anchors", *options)

    def told(self, *options: str, code: int = 0) -> dict[str, Any]:
        done = self.anchors(*options, "--json")
        assert done.code == code, done.err
        told: dict[str, Any] = json.loads(done.out)
        return told


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    with stub_in_thread("echo") as (stub, url):
        config = judged_by(url, tmp_path, mode="votes", min_votes=2, max_votes=2)
        monkeypatch.setenv("DELTAWHEEL_HOME", str(tmp_path / "home"))
        settings = load_settings(config)
        settings.state.mkdir(parents=True)
        wiring.open_store(settings).close()
        yield Watched(stub, Shell(patch=monkeypatch).on(config), config)


def test_runs_are_made_listed_and_compared(watched: Watched) -> None:
    assert watched.told() == {"drift": None, "runs": []}
    told = watched.told("--run")
    assert [(it["verdict"], it["texts"], it["num_repeats"]) for it in told["runs"]] == [
        ("baseline", 42, 3)
    ]
    newest, _ = watched.told("--run")["runs"]
    assert (newest["verdict"], newest["shifts"]["factuality"]) == ("steady", 0)
    shown = watched.anchors()
    assert "2 runs of the anchors" in shown.out
    assert "+0.00, may be 0.25" in shown.out


def test_drift_is_told_with_its_window_by_every_command_that_looks(watched: Watched) -> None:
    watched.told("--run")
    watched.scores(4)
    drift = watched.told("--run", code=1)["drift"]
    assert "judge grader" in drift
    assert "step_coherence by +1.00" in drift
    assert "has drifted" in watched.anchors().out
    status = watched.shell.run("status")
    assert "drifted: judge grader" in status.out
    told = json.loads(watched.shell.run("status", "--json").out)["judge_drift"]
    assert told["shifts"]["factuality"] == 1
    assert told["last_good_at"] < told["first_bad_at"]
    [finding] = check_flow(site_of(load_settings(watched.config), watched.config))
    assert "judge grader" in finding.found


def test_new_level_is_accepted_with_name_and_reason(watched: Watched) -> None:
    watched.told("--run")
    watched.scores(4)
    watched.told("--run", code=1)
    told = watched.told("--accept", "--reason", "new weights")
    assert told["drift"] is None
    assert (told["runs"][0]["accepted_by"], told["runs"][0]["reason"]) == (
        operator_name(),
        "new weights",
    )
    assert watched.told("--run")["runs"][0]["verdict"] == "steady"
    assert "drifted" not in watched.shell.run("status").out


def test_nothing_is_accepted_without_a_reason_or_a_drift(watched: Watched) -> None:
    done = watched.anchors("--accept")
    assert done.code == 2
    assert "--accept needs --reason" in done.err
    done = watched.anchors("--accept", "--reason", "why not")
    assert done.code == 1
    assert "there is no new level to accept" in done.err


def test_level_that_somebody_else_has_accepted_meanwhile_is_not_accepted_again(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched.told("--run")
    watched.scores(4)
    watched.told("--run", code=1)
    accept = SqlStore.accept_anchor_run

    def second(self: SqlStore, run_id: str, *, by: str, reason: str, at: datetime) -> Any:
        assert accept(self, run_id, by="ann", reason="was faster", at=at)
        return accept(self, run_id, by=by, reason=reason, at=at)

    monkeypatch.setattr(SqlStore, "accept_anchor_run", second)
    done = watched.anchors("--accept", "--reason", "new weights")
    assert done.code == 1
    assert "somebody else has accepted this level" in done.err
