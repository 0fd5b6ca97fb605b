"""`deltawheel migrate`: up, back, and the question whether there is anything to do."""

import io
import json
import os
import sys
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from deltawheel.contracts.clock import Clock
from deltawheel.infra import wiring
from deltawheel.infra.store.schema import REVISIONS, VERSION_TABLE
from deltawheel.ops.supervisor.ports import resolve_ports
from deltawheel.ops.supervisor.runfile import RunFile
from tests.ops.stopped import PAIRED, a_config, a_stopped_wheel, database, settings_in
from tests.ops.terminals import Shell

NEWEST = REVISIONS[-1]


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> Shell:
    for name in ("DELTAWHEEL_CONFIG", "DELTAWHEEL_HOME"):
        monkeypatch.delenv(name, raising=False)
    return Shell(patch=monkeypatch)


def set_revision(config: Path, revision: str) -> None:
    engine = create_engine(settings_in(config).store_url)
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '{revision}'"))
    engine.dispose()


def test_migrate_makes_the_store_of_a_wheel_that_never_ran(shell: Shell, tmp_path: Path) -> None:
    config = a_config(tmp_path)
    done = shell.on(config).run("migrate")
    assert (done.code, done.out) == (0, f"the store {database(config)}: base -> {NEWEST}\n")
    assert shell.on(config).run("status").code == 0


def test_check_of_a_wheel_that_never_ran_makes_nothing(shell: Shell, tmp_path: Path) -> None:
    done = shell.on(a_config(tmp_path)).run("migrate", "--check")
    assert done.code == 2
    assert "no wheel has run here yet" in done.err
    assert os.listdir(tmp_path) == ["deltawheel.yaml"]


def test_migrate_of_what_is_up_to_date_changes_nothing(shell: Shell, tmp_path: Path) -> None:
    config = a_stopped_wheel(tmp_path)
    for options in ((), ("--check",)):
        done = shell.on(config).run("migrate", *options, "--json")
        assert done.code == 0
        said = {"store": str(database(config)), "was": NEWEST, "is": NEWEST, "newest": NEWEST}
        assert json.loads(done.out) == said
    with closing(wiring.open_store(settings_in(config))) as store:
        assert store.group(PAIRED.key) is not None


def test_schema_is_taken_back_only_on_a_yes_and_then_up_again(shell: Shell, tmp_path: Path) -> None:
    config = a_stopped_wheel(tmp_path)
    wheel = shell.on(config)
    shell.patch.setattr(sys, "stdin", io.StringIO("n\n"))
    asked = wheel.run("migrate", "--down-to", "base")
    assert (asked.code, "back to base?" in asked.err) == (130, True)
    assert wheel.run("audit").code == 0
    done = wheel.run("migrate", "--down-to", "base", "--yes")
    assert (done.code, done.out) == (0, f"the store {database(config)}: {NEWEST} -> base\n")
    assert "no wheel has run here yet" in wheel.run("audit").err
    assert wheel.run("migrate").code == 0
    assert json.loads(wheel.run("status", "--json").out)["prompts"] == 0


@pytest.mark.parametrize("command", [("migrate",), ("migrate", "--check"), ("status",)])
def test_newer_schema_is_refused_with_what_to_do(
    shell: Shell, tmp_path: Path, command: tuple[str, ...]
) -> None:
    config = a_stopped_wheel(tmp_path)
    set_revision(config, "9999")
    done = shell.on(config).run(*command)
    assert done.code == 2
    assert f"has schema 9999, but this deltawheel knows {NEWEST}: install" in done.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--down-to", "7"), "'7' is none of base, 0001"),
        (("--check", "--down-to", "base"), "--check changes nothing"),
    ],
)
def test_wrong_options_are_named(
    shell: Shell, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    done = shell.on(a_stopped_wheel(tmp_path)).run("migrate", *options)
    assert done.code == 2
    assert said in done.err


def test_schema_of_a_wheel_that_runs_is_not_taken_back(shell: Shell, tmp_path: Path) -> None:
    config = a_stopped_wheel(tmp_path)
    settings = resolve_ports(settings_in(config))
    clock: Clock = wiring.system_clock()
    run_file = RunFile(settings, clock)
    run_file.claim()
    run_file.begin(settings)
    try:
        done = shell.on(config).run("migrate", "--down-to", "base", "--yes")
        assert done.code == 2
        assert "runs: stop it before you take its schema back" in done.err
        assert shell.on(config).run("migrate", "--check").code == 0
    finally:
        run_file.release()
