"""`deltawheel pairs release`: quarantined pairs are checked again, and nobody is asked anything."""

import json
from pathlib import Path
from typing import Any

import pytest

from deltawheel.contracts.outcome import Outcome
from deltawheel.contracts.store import GroupEnd
from deltawheel.contracts.transition import TransitionKind
from deltawheel.infra import wiring
from tests.ops.stopped import PAIRED, QUARANTINED, a_stopped_wheel, settings_in
from tests.ops.terminals import Shell
from tests.records import a_closing, a_pair

PAIR = a_pair(QUARANTINED)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return a_stopped_wheel(tmp_path)


@pytest.fixture
def shell(config: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    return Shell(patch=monkeypatch).on(config)


def run_json(shell: Shell, *arguments: str) -> Any:
    done = shell.run("pairs", *arguments, "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_quarantined_pairs_are_listed_with_the_checks_that_they_failed(shell: Shell) -> None:
    [held] = run_json(shell, "quarantined")
    assert held["pair"]["pair_id"] == PAIR.pair_id
    assert held["expectations"] == ["expect_answers_to_differ"]
    assert run_json(shell, "quarantined", "--after", PAIR.pair_id) == []
    shown = shell.run("pairs", "quarantined").out
    assert "1 pairs in quarantine" in shown
    assert "expect_answers_to_differ" in shown


def test_release_opens_an_attempt_that_has_only_to_be_closed(shell: Shell, config: Path) -> None:
    released = run_json(shell, "release", PAIR.pair_id, "--by", "ann", "--reason", "check mended")
    [transition] = released["opened"]
    assert transition["kind"] == TransitionKind.RELEASE.value
    assert (transition["attempt"], transition["by"]) == (2, "ann")
    assert transition["reason"] == "check mended"
    assert run_json(shell, "release", PAIR.pair_id)["opened"] == [], "it is under way"
    store = wiring.open_store(settings_in(config))
    group = store.group(QUARANTINED.key)
    assert group is not None
    assert group.has_ended, "both traces stay judged"
    assert len(group.owed) == 1
    closing = a_closing(QUARANTINED, outcome=Outcome.PAIRED, attempt=2)
    store.close_groups([GroupEnd(closing=closing, pairs=(PAIR,))])
    store.close()
    assert run_json(shell, "quarantined") == []
    assert run_json(shell, "release", PAIR.pair_id)["opened"] == [], "it is stored"


def test_stopped_wheel_says_that_it_is_done_later(shell: Shell) -> None:
    done = shell.run("pairs", "release", PAIR.pair_id)
    assert done.code == 0
    assert "1 of 1 are checked again" in done.out
    assert "the wheel is stopped, and its broker with it" in done.err


@pytest.mark.parametrize("pair_id", ["pair_0", "a\0b", a_pair(PAIRED).pair_id])
def test_pair_that_is_not_in_quarantine_exits_1(shell: Shell, pair_id: str) -> None:
    done = shell.run("pairs", "release", pair_id)
    assert done.code == 1
    assert done.sentence.endswith("is in quarantine; `deltawheel pairs quarantined` names some")
