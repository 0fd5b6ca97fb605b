"""`deltawheel init`: a settings file from nothing, and never over one that is there."""

import os
import stat
from pathlib import Path

import pytest

from deltawheel.contracts.settings import Settings
from deltawheel.contracts.settings.template import settings_template
from deltawheel.infra.settings_file import load_settings
from tests.ops.terminals import Shell


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Shell:
    monkeypatch.delenv("DELTAWHEEL_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    return Shell(patch=monkeypatch)


def test_written_settings_are_valid_and_the_defaults(shell: Shell, tmp_path: Path) -> None:
    done = shell.run("init")
    assert (done.code, done.err) == (0, "")
    path = tmp_path / "deltawheel.yaml"
    assert path.read_text() == settings_template()
    assert load_settings(path) == Settings()
    check = shell.run("config", "check")
    assert (check.code, check.out, check.err) == (0, "deltawheel.yaml: valid\n", "")


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_only_this_user_may_read_them(umask: int, shell: Shell, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        shell.run("init")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "deltawheel.yaml").stat().st_mode) == 0o600


def test_what_to_do_next_is_said_in_three_lines(shell: Shell, tmp_path: Path) -> None:
    where, look, run = shell.run("init").out.splitlines()
    assert where.startswith("deltawheel.yaml: ")
    assert look.startswith("`deltawheel doctor` ")
    assert run.startswith("`deltawheel up` ")
    named = shell.run("init", "other.yaml").out
    assert "`deltawheel --config other.yaml doctor` " in named
    assert "`deltawheel --config other.yaml up` " in named


@pytest.mark.parametrize("is_link", [False, True])
def test_file_that_exists_is_left_as_it_is(is_link: bool, shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "deltawheel.yaml"
    if is_link:
        path.symlink_to(tmp_path / "nowhere.yaml")
    else:
        path.write_text("wheel: mine\n")
    done = shell.run("init", str(path))
    assert done.code == 2
    assert done.sentence.startswith(f"{path} exists already and is left as it is; ")
    assert [one.name for one in tmp_path.iterdir()] == ["deltawheel.yaml"]
    assert is_link or path.read_text() == "wheel: mine\n"


def test_force_keeps_every_file_that_it_replaces(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "deltawheel.yaml"
    for name in ("first", "second"):
        path.write_text(f"wheel: {name}\n")
        done = shell.run("init", "--force")
        assert done.code == 0
        assert path.read_text() == settings_template()
    assert done.out.startswith("what was there is now deltawheel.yaml.bak1\n")
    assert (tmp_path / "deltawheel.yaml.bak").read_text() == "wheel: first\n"
    assert (tmp_path / "deltawheel.yaml.bak1").read_text() == "wheel: second\n"


def test_force_where_nothing_is_keeps_nothing(shell: Shell, tmp_path: Path) -> None:
    assert shell.run("init", "--force").code == 0
    assert [one.name for one in tmp_path.iterdir()] == ["deltawheel.yaml"]


def test_folder_that_does_not_exist_is_told(shell: Shell, tmp_path: Path) -> None:
    done = shell.run("init", str(tmp_path / "none" / "deltawheel.yaml"))
    assert done.code == 2
    assert "cannot be written: No such file or directory; name a file in a folder" in done.sentence


def test_file_of_the_global_option_is_the_one_that_is_written(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    assert shell.on(path).run("init").code == 0
    assert load_settings(path) == Settings()
