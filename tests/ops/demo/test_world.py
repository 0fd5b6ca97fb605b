"""The demo's prompts, settings and folder."""

import json
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import pytest

from deltawheel.contracts.errors import ConfigError
from deltawheel.contracts.prompt import PromptSubmission
from deltawheel.contracts.settings import Settings
from deltawheel.infra.sandbox.grammar import Family, Problem, is_withheld
from deltawheel.infra.settings_file import load_settings
from deltawheel.ops.demo.world import (
    DOMAIN,
    MARKER,
    demo_prompts,
    demo_settings,
    prepare_home,
)


def texts(count: int, *, seed: int) -> list[str]:
    return [prompt["text"] for prompt in demo_prompts(count, seed=seed)]


def settings_in(home: Path, *, is_sabotaged: bool = False) -> Settings:
    return demo_settings(home, is_sabotaged=is_sabotaged, num_items=200, seed=5)


# Prompts


def test_prompts_are_as_many_as_asked_for_and_distinct() -> None:
    drawn = texts(2_000, seed=0)
    assert len(drawn) == len(set(drawn)) == 2_000


def test_no_prompt_is_withheld_for_evaluation() -> None:
    assert [text for text in texts(2_000, seed=0) if is_withheld(text)] == []


def test_prompts_are_in_domain_and_valid_submissions() -> None:
    for prompt in islice(demo_prompts(200, seed=1), 200):
        problem = Problem.parse(prompt["text"])
        assert Family.IN_DOMAIN.has([operation for operation, _ in problem.steps])
        assert PromptSubmission.parse(prompt, max_chars=100).domain == DOMAIN


def test_same_seed_gives_the_same_prompts_and_fewer_are_a_prefix() -> None:
    assert texts(300, seed=3) == texts(300, seed=3)
    assert texts(300, seed=3)[:100] == texts(100, seed=3)


def test_other_seed_gives_other_prompts() -> None:
    assert texts(100, seed=3) != texts(100, seed=4)


# Settings


def test_settings_lie_in_the_folder_for_the_next_command(tmp_path: Path) -> None:
    settings = settings_in(tmp_path / "demo")
    assert settings.home == tmp_path / "demo"
    assert not settings.home.exists(), "settings are made before anything is touched"
    prepare_home(settings)
    assert load_settings(tmp_path / "demo" / "deltawheel.yaml") == settings


def test_home_is_absolute_so_that_the_next_command_finds_it_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = settings_in(Path("var/demo"))
    prepare_home(settings)
    monkeypatch.chdir("/")
    saved = load_settings(tmp_path / "var" / "demo" / "deltawheel.yaml")
    assert saved.home == tmp_path / "var" / "demo"
    assert str(tmp_path) in saved.store_url


def test_demo_starts_its_one_cycle_itself(tmp_path: Path) -> None:
    training = settings_in(tmp_path).training
    assert (training.is_enabled, training.cron, training.min_new_pairs) == (True, None, None)


def test_options_of_the_demo_reach_the_settings(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    assert (settings.evaluation.items_per_suite, settings.training.seed) == (200, 5)
    assert settings.gateway.port == 0


def test_sabotage_inverts_the_judge_and_changes_nothing_else(tmp_path: Path) -> None:
    honest, sabotaged = settings_in(tmp_path), settings_in(tmp_path, is_sabotaged=True)
    assert (honest.judge.inverted, sabotaged.judge.inverted) == (False, True)
    assert sabotaged.model_copy(update={"judge": honest.judge}) == honest
    assert sabotaged.judge.model_copy(update={"inverted": False}) == honest.judge


@pytest.mark.parametrize(
    "variable",
    [
        "DELTAWHEEL_HOME",
        "DELTAWHEEL_STORE__URL",
        "DELTAWHEEL_REGISTRY__URI",
        "DELTAWHEEL_JUDGE",
        "DELTAWHEEL_WHEEL",
        "deltawheel_store__url",
    ],
)
def test_environment_that_would_override_the_demos_settings_is_refused_by_name(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, str(tmp_path / "precious"))
    with pytest.raises(ConfigError, match=f"{variable} in the environment.*env -u {variable} "):
        settings_in(tmp_path / "demo")
    assert list(tmp_path.iterdir()) == []


def test_secrets_and_switches_of_the_environment_do_not_disturb_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = settings_in(tmp_path)
    for variable in ("DELTAWHEEL_GATEWAY_TOKEN", "DELTAWHEEL_CONFIG", "DELTAWHEEL_FAILPOINTS"):
        monkeypatch.setenv(variable, "x")
    assert settings_in(tmp_path) == before


# The folder

LEFT = ("state/store.db", "state/run/settings.yaml", "registry/mlflow.db", "deltawheel.yaml")


def fill(home: Path, *names: str) -> None:
    for name in names:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("left")


def contents(folder: Path) -> Mapping[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def names_in(home: Path) -> set[str]:
    return {path.name for path in home.iterdir()}


def test_folder_that_is_not_there_is_made_with_a_marker_that_says_what_made_it(
    tmp_path: Path,
) -> None:
    home = tmp_path / "new" / "demo"
    prepare_home(settings_in(home))
    assert names_in(home) == {MARKER, "deltawheel.yaml"}
    assert json.loads((home / MARKER).read_text())["made_by"] == "deltawheel demo"


def test_what_an_earlier_demo_left_is_removed(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    prepare_home(settings)
    fill(tmp_path, *LEFT)
    prepare_home(settings)
    assert names_in(tmp_path) == {MARKER, "deltawheel.yaml"}
    assert load_settings(tmp_path / "deltawheel.yaml") == settings


@pytest.mark.parametrize("left", [LEFT, LEFT[:1], LEFT[-1:]], ids=["all", "state", "settings"])
def test_home_of_a_wheel_that_no_demo_made_is_refused_and_untouched(
    left: tuple[str, ...], tmp_path: Path
) -> None:
    fill(tmp_path, *left)
    before = contents(tmp_path)
    with pytest.raises(ConfigError, match=f"but no {MARKER} of the demo's own") as caught:
        prepare_home(settings_in(tmp_path))
    assert "name an empty folder with --home" in str(caught.value)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "marker",
    [
        "",
        "{}",
        "[]",
        '{"made_by": "me"}',
        '"deltawheel demo"',
        pytest.param("[" * 100_000, id="nested too deeply"),
    ],
)
def test_marker_of_somebody_else_is_none(marker: str, tmp_path: Path) -> None:
    fill(tmp_path, *LEFT)
    (tmp_path / MARKER).write_text(marker)
    before = contents(tmp_path)
    with pytest.raises(ConfigError, match=f"but no {MARKER} of the demo's own"):
        prepare_home(settings_in(tmp_path))
    assert contents(tmp_path) == before


@pytest.mark.parametrize("stranger", ["thesis.tex", ".git", "state.old"])
def test_folder_with_a_strangers_file_is_refused_and_untouched(
    stranger: str, tmp_path: Path
) -> None:
    prepare_home(settings_in(tmp_path))
    fill(tmp_path, stranger, *LEFT)
    before = contents(tmp_path)
    with pytest.raises(ConfigError, match=f"holds {stranger}, which no demo made"):
        prepare_home(settings_in(tmp_path))
    assert contents(tmp_path) == before


def test_refusal_of_a_full_folder_names_three_of_its_files(tmp_path: Path) -> None:
    fill(tmp_path, *"edcba")
    with pytest.raises(ConfigError, match="holds a, b, c, but no"):
        prepare_home(settings_in(tmp_path))


@pytest.mark.parametrize("name", ["state", "registry", "deltawheel.yaml"])
def test_link_in_the_folder_is_removed_and_what_it_points_to_is_kept(
    name: str, tmp_path: Path
) -> None:
    home, target = tmp_path / "demo", tmp_path / "precious"
    prepare_home(settings_in(home))
    fill(target, "kept")
    (home / name).unlink(missing_ok=True)
    (home / name).symlink_to(target)
    prepare_home(settings_in(home))
    assert names_in(home) == {MARKER, "deltawheel.yaml"}
    assert contents(target) == {target / "kept": b"left"}


def test_folder_that_cannot_be_used_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file/demo cannot be used.*name another folder"):
        prepare_home(settings_in(tmp_path / "file" / "demo"))
