"""Rubrics as files: all of every dimension, or a sentence that names what is missing."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from deltawheel.contracts.errors import ConfigError
from deltawheel.infra.rubric_file import SHIPPED_RUBRIC, read_rubric
from deltawheel.infra.settings_file import (
    load_settings,
    save_settings,
    settings_faults,
    write_commented_settings,
)
from tests.judged import judged_by

GOOD: dict[str, Any] = {
    "name": "mine",
    "dimensions": {"tone": {"question": "Is it kind?", **{n: f"kind by {n}" for n in range(1, 6)}}},
    "order_by": {"tone": 2},
}


def a_file(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "rubric.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def spoilt(**changes: Any) -> dict[str, Any]:
    tone = {key: value for key, value in {**GOOD["dimensions"]["tone"], **changes}.items() if value}
    return {**GOOD, "dimensions": {"tone": tone}}


def test_file_says_all_of_a_rubric(tmp_path: Path) -> None:
    told = read_rubric(a_file(tmp_path, GOOD))
    assert told["dimensions"] == {"tone": "Is it kind?"}
    assert told["anchors"]["tone"]["4"] == "kind by 4"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({**GOOD, "dimensions": {}}, "dimensions: "),
        ({**GOOD, "order_by": {"tone": -1}}, "order_by.tone: "),
        ({**GOOD, "colour": 1}, "colour: Extra inputs"),
        ("no mapping", "file: Input should be"),
    ],
)
def test_fault_is_told_with_its_place(content: object, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        read_rubric(a_file(tmp_path, content))


def test_missing_and_unknown_scores_are_named(tmp_path: Path) -> None:
    tone = dict(GOOD["dimensions"]["tone"])
    del tone[3]
    with pytest.raises(ConfigError, match="'tone' does not say what score 3 means"):
        read_rubric(a_file(tmp_path, {**GOOD, "dimensions": {"tone": tone}}))
    with pytest.raises(ConfigError, match=r"unknown keys \['6'\]"):
        read_rubric(a_file(tmp_path, spoilt(**{"6": "more than kind"})))


def judged(tmp_path: Path, **rubric: object) -> Path:
    return judged_by("http://h:1/v1", tmp_path, rubric=rubric)


def test_model_that_judges_takes_the_rubric_that_ships(tmp_path: Path) -> None:
    rubric = load_settings(judged(tmp_path)).make_rubric()
    assert rubric.anchors == read_rubric(SHIPPED_RUBRIC)["anchors"]


def test_rubric_of_a_running_wheel_does_not_change_with_its_file(tmp_path: Path) -> None:
    file = a_file(tmp_path, GOOD)
    settings = load_settings(judged(tmp_path, file=str(file), tie_width=0.5))
    assert settings.make_rubric().tie_width == settings.rubric.tie_width
    resolved = tmp_path / "resolved.yaml"
    save_settings(settings, resolved)
    file.unlink()
    assert load_settings(resolved).make_rubric() == settings.make_rubric()
    assert settings.make_rubric().name == "mine"


def test_file_counts_beside_the_commented_settings_with_every_key(tmp_path: Path) -> None:
    path = tmp_path / "deltawheel.yaml"
    write_commented_settings(path, keeps_old=False)
    content = yaml.safe_load(path.read_text())
    content["judge"] |= {"kind": "llm", "model": {"name": "g", "server": "local"}}
    content["training"]["is_enabled"] = False
    path.write_text(yaml.safe_dump(content))
    assert load_settings(path).make_rubric().anchors == read_rubric(SHIPPED_RUBRIC)["anchors"]
    content["rubric"] |= {"file": str(a_file(tmp_path, GOOD)), "order_by": {"tone": 3}}
    path.write_text(yaml.safe_dump(content))
    rubric = load_settings(path).make_rubric()
    assert (rubric.name, rubric.anchors["tone"]["4"]) == ("mine", "kind by 4")
    assert rubric.order_by == {"tone": 3}


def test_file_named_in_the_environment_counts_and_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, resolved = a_file(tmp_path, GOOD), tmp_path / "resolved.yaml"
    monkeypatch.setenv("DELTAWHEEL_RUBRIC__FILE", str(file))
    settings = load_settings(judged(tmp_path))
    assert settings.make_rubric().name == "mine"
    save_settings(settings, resolved)
    monkeypatch.delenv("DELTAWHEEL_RUBRIC__FILE")
    file.unlink()
    assert load_settings(resolved).make_rubric() == settings.make_rubric()


@pytest.mark.parametrize(
    ("rubric", "said"),
    [
        ({"anchors": {"zzz": {"1": "a"}}}, r"rubric.anchors: unknown ['zzz']"),
        ({"anchors": {"factuality": {"1": "a"}}}, "say what every score from 1 to 5 means of"),
    ],
)
def test_anchors_that_leave_something_open_are_refused(
    rubric: dict[str, Any], said: str, tmp_path: Path
) -> None:
    assert any(said in fault for fault in settings_faults(judged(tmp_path, **rubric)))


def test_dimensions_outside_a_file_are_refused_for_a_model(tmp_path: Path) -> None:
    [fault] = settings_faults(judged(tmp_path, dimensions={"tone": "Kind?"}, order_by={"tone": 1}))
    assert "put dimensions into a file" in fault


def test_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    [fault] = settings_faults(judged(tmp_path, file="/nowhere.yaml"))
    assert fault.startswith("rubric.file: /nowhere.yaml cannot be read")
