"""`deltawheel doctor`, as a person, a script and a running wheel meet it."""

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deltawheel.infra.listening import find_free_port
from tests.ops.doctor.sites import KAFKA_IMPORTED, listed
from tests.ops.stopped import a_config, a_stopped_wheel
from tests.ops.terminals import CONTROL, Shell
from tests.servers import stub_server
from tests.wheels import run_cli, running_up

pytestmark = KAFKA_IMPORTED

LINE = re.compile(r"(ok     |warning|failure)  (\w+) +(.+?)(?: → (.+))?")


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Shell:
    for name in ("DELTAWHEEL_CONFIG", "DELTAWHEEL_HOME", "DELTAWHEEL_GATEWAY_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return Shell(patch=monkeypatch)


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody else holds."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def write_config(folder: Path, **settings: Any) -> Path:
    path = folder / "deltawheel.yaml"
    content = {"home": str(folder / "home"), "gateway": {"port": 0}, **settings}
    path.write_text(yaml.safe_dump(content))
    return path


def test_each_check_is_a_line_and_the_last_one_counts_them(shell: Shell, tmp_path: Path) -> None:
    done = shell.on(a_config(tmp_path)).run("doctor")
    assert done.err == ""
    *lines, last = done.out.splitlines()
    parts = [LINE.fullmatch(line) for line in lines]
    assert all(parts), lines
    for found in filter(None, parts):
        assert (found[1].strip() == "ok") == (found[4] is None), found[0]
    assert re.fullmatch(r"\d+ ok, \d+ warning, 0 failure", last)
    assert done.code == 0


def test_failure_exits_1_and_says_what_to_do(shell: Shell, tmp_path: Path, taken: int) -> None:
    done = shell.on(write_config(tmp_path, gateway={"port": taken})).run("doctor")
    assert done.code == 1
    [line] = [line for line in done.out.splitlines() if line.startswith("failure")]
    assert f"gateway.port: port {taken} on 127.0.0.1 is in use" in line
    assert "→ stop that process, or set gateway.port to another port" in line


def test_json_holds_what_the_lines_say(shell: Shell, tmp_path: Path, taken: int) -> None:
    done = shell.on(write_config(tmp_path, gateway={"port": taken})).run("doctor", "--json")
    assert done.code == 1
    answer = json.loads(done.out)
    assert answer["is_healthy"] is False
    [failed] = [one for one in answer["findings"] if one["level"] == "failure"]
    assert failed["check"] == "ports"
    assert failed["todo"].startswith("stop that process")
    fine = shell.on(a_config(tmp_path)).run("doctor", "--json")
    assert (fine.code, json.loads(fine.out)["is_healthy"]) == (0, True)
    assert {one["todo"] for one in json.loads(fine.out)["findings"] if one["level"] == "ok"} == {
        None
    }


def test_every_wrong_key_is_a_failure(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text('gateway: {prot: 1}\njudge: {nois: 1, "\\x1b[2J": 2}\n')
    done = shell.on(path).run("doctor", at_terminal=True)
    assert done.code == 1
    assert CONTROL.findall(done.out) == []
    *lines, last = done.out.splitlines()
    assert all(line.startswith(f"failure  settings  {path}: ") for line in lines)
    assert "did you mean 'port'?" in lines[0]
    assert last == "0 ok, 0 warning, 3 failure"


def test_home_on_the_command_line_is_the_one_that_is_looked_at(
    shell: Shell, tmp_path: Path
) -> None:
    there = Shell(patch=shell.patch, options=("--home", str(tmp_path / "there")))
    assert f"{tmp_path}/there can be made" in there.run("doctor").out


def test_looking_leaves_an_empty_home_empty(shell: Shell, tmp_path: Path) -> None:
    config = a_config(tmp_path)
    shell.on(config).run("doctor")
    assert [path for path, _ in listed(tmp_path)] == [config]


def test_looking_changes_nothing_of_a_stopped_wheel(shell: Shell, tmp_path: Path) -> None:
    config = a_stopped_wheel(tmp_path)
    before = listed(tmp_path)
    assert shell.on(config).run("doctor").code == 0
    assert listed(tmp_path) == before


def test_passwords_are_not_shown(shell: Shell, tmp_path: Path) -> None:
    uri = f"http://u:secret@127.0.0.1:{find_free_port()}"
    shown = shell.on(write_config(tmp_path, registry={"uri": uri}))
    for done in (shown.run("doctor"), shown.run("doctor", "--json")):
        assert done.code == 1
        assert "secret" not in done.out + done.err


@pytest.mark.integration
@pytest.mark.timeout(300)
def test_running_wheel_is_looked_at_as_it_runs(tmp_path: Path) -> None:
    with stub_server("doubles") as right, stub_server("guesses") as wrong:
        settings: dict[str, Any] = {
            "servers": [],
            "training": {"is_enabled": False},
            "judge": {"kind": "exact-match"},
            "gateway": {"port": find_free_port()},
            "generators": [
                {"name": "right", "endpoint": right, "model": "doubles", "revision": "1"},
                {"name": "wrong", "endpoint": wrong, "model": "guesses", "revision": "1"},
            ],
        }
        with running_up(tmp_path / "home", settings) as wheel:
            findings = wheel.cli("doctor")["findings"]
            found = {one["check"]: one["found"] for one in findings}
            assert {one["level"] for one in findings} == {"ok"}, findings
            assert "processes are ready" in found["run"]
            assert f"gateway {wheel.settings.gateway.port}" in found["ports"]
            assert found["broker"].endswith("answers")
        done = run_cli("--config", str(wheel.config), "doctor", "--json")
        assert done.returncode == 0, done.stdout
        found = {one["check"]: one["found"] for one in json.loads(done.stdout)["findings"]}
        assert found["run"] == "no wheel runs here, and none was killed"
        assert found["ports"] == f"free: gateway.port {settings['gateway']['port']}"
