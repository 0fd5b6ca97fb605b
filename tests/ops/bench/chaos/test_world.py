"""The wheel that is killed: its prompts, its settings, and a folder that is nobody else's."""

from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from deltawheel.contracts.errors import ConfigError
from deltawheel.contracts.outcome import Outcome
from deltawheel.contracts.prompt import PromptSubmission
from deltawheel.contracts.settings import Settings
from deltawheel.ops.bench.chaos.world import (
    MARKER,
    chaos_prompts,
    chaos_settings,
    expected_outcome,
    prepare_home,
    remove_state,
)


def test_prompts_are_valid_and_each_is_another() -> None:
    bodies = list(islice(chaos_prompts(), 500))
    assert len({body["text"] for body in bodies}) == 500
    for body in bodies:
        PromptSubmission.parse(body, max_chars=1_000)


def test_some_prompts_tie_and_some_cannot_be_judged() -> None:
    bodies = list(islice(chaos_prompts(), 500))
    assert sum(not any(map(str.isdigit, body["text"])) for body in bodies) == 25
    assert sum("reference_answer" not in body for body in bodies) == 20


def test_ties_and_what_nobody_can_judge_are_not_expected_to_give_a_pair() -> None:
    ends = Counter(expected_outcome(body) for body in islice(chaos_prompts(), 500))
    assert ends == {Outcome.PAIRED: 460, Outcome.UNPAIRED: 20, Outcome.DEAD_LETTERED: 20}


def test_settings_of_the_environment_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DELTAWHEEL_STORE__URL", "postgresql://elsewhere/wheel")
    with pytest.raises(ConfigError, match="DELTAWHEEL_STORE__URL in the environment"):
        chaos_settings(tmp_path, "http://127.0.0.1:1/v1")


def test_missing_kafka_is_said_before_anything_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KAFKA_HOME", raising=False)
    with pytest.raises(ConfigError, match="KAFKA_HOME names no unpacked Apache Kafka"):
        chaos_settings(tmp_path / "home", "http://127.0.0.1:1/v1")
    assert list(tmp_path.iterdir()) == []


def test_folder_of_an_earlier_run_is_emptied(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    prepare_home(settings)
    (settings.state / "postgres").mkdir(parents=True)
    (settings.home / "report.md").write_text("an old report")
    prepare_home(settings)
    assert not settings.state.exists()
    assert not (settings.home / "report.md").exists()
    assert (settings.home / "failpoints").is_dir()
    assert (settings.home / "deltawheel.yaml").is_file()


def test_folder_that_no_run_made_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "deltawheel.yaml").write_text("wheel: mine")
    with pytest.raises(ConfigError, match=f"no {MARKER} of this bench's own"):
        prepare_home(Settings(home=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["deltawheel.yaml"]


def test_reports_outlive_the_state(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    prepare_home(settings)
    settings.state.mkdir()
    for name in ("report.md", "report.json", "up.log"):
        (tmp_path / name).write_text("kept")
    remove_state(tmp_path)
    kept = {path.name for path in tmp_path.iterdir()}
    assert kept == {MARKER, "report.md", "report.json", "up.log"}
