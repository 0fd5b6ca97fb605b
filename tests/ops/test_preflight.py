"""What `up` and `config check` find before any process starts."""

import json
import re
import socket
from pathlib import Path
from typing import Any

import pytest
import yaml

from deltawheel.contracts.errors import ConfigError
from deltawheel.infra.credentials import TOKEN_VARIABLE
from deltawheel.infra.settings_file import load_settings
from deltawheel.ops.preflight import file_faults, require_secrets
from tests.ops.terminals import Shell

ELSEWHERE: dict[str, Any] = {
    "servers": [],
    "training": {"is_enabled": False},
    "generators": [
        {"name": "a", "endpoint": "http://127.0.0.1:9/v1", "model": "m", "revision": "r1"},
        {"name": "b", "endpoint": "http://127.0.0.1:9/v1", "model": "m"},
    ],
}


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    return Shell(patch=monkeypatch)


def a_config(tmp_path: Path, **settings: Any) -> Path:
    path = tmp_path / "deltawheel.yaml"
    content = {"home": str(tmp_path / "home"), "gateway": {"port": 0}, **settings}
    path.write_text(yaml.safe_dump(content))
    return path


def test_up_without_the_gateways_token_starts_nothing(shell: Shell, tmp_path: Path) -> None:
    done = shell.on(a_config(tmp_path, gateway={"host": "0.0.0.0"})).run("up")
    assert done.code == 2
    assert done.sentence.startswith("gateway.host is 0.0.0.0, which others can reach: set DELTA")
    assert not (tmp_path / "home").exists()


def test_up_without_the_key_of_an_endpoint_starts_nothing(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KEY_OF_TEST", raising=False)
    first, second = ELSEWHERE["generators"]
    asked = {**ELSEWHERE, "generators": [first, {**second, "api_key_env": "KEY_OF_TEST"}]}
    done = shell.on(a_config(tmp_path, **asked)).run("up")
    assert done.code == 2
    assert "generators.b.api_key_env: the environment variable KEY_OF_TEST is not" in done.sentence
    assert not (tmp_path / "home").exists()


def test_all_missing_secrets_are_named_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("KEY_OF_TEST", raising=False)
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    keyed = [{**one, "api_key_env": "KEY_OF_TEST"} for one in ELSEWHERE["generators"]]
    content = {**ELSEWHERE, "generators": keyed, "gateway": {"host": "::"}}
    settings = load_settings(a_config(tmp_path, **content))
    with pytest.raises(ConfigError) as caught:
        require_secrets(settings)
    assert len(str(caught.value).splitlines()) == 3
    monkeypatch.setenv("KEY_OF_TEST", "x")
    monkeypatch.setenv(TOKEN_VARIABLE, "x")
    require_secrets(settings)


def test_files_that_cannot_be_used_are_named_each(tmp_path: Path) -> None:
    (tmp_path / "wrong.jsonl").write_text('{"prompt": "x"}\n')
    (tmp_path / "right.jsonl").write_text('{"prompt": "x", "reference_answer": 1}\n')
    same = {"base": str(tmp_path / "base")}
    content = {
        "servers": [same],
        "training": same,
        "generators": [
            {"name": "a", "server": "local", "adapter": str(tmp_path / "adapter")},
            {"name": "b", "server": "local", "adapter": "sandbox:weak"},
        ],
        "evaluation": {
            "suites": [
                {"name": name, "role": "out-of-domain", "items": str(tmp_path / f"{name}.jsonl")}
                for name in ("wrong", "right", "gone")
            ]
        },
    }
    faults = file_faults(load_settings(a_config(tmp_path, **content)))
    said = (
        r"servers\.local\.base: no model in .*/base \(config\.json is missing\)",
        r"generators\.a\.adapter: .* holds no adapter_model\.safetensors",
        r"evaluation\.suites\.wrong\.items: line 1 of .* reference_answer",
        r"evaluation\.suites\.gone\.items: .* cannot be read",
    )
    assert len(faults) == len(said)
    for fault, expected in zip(faults, said, strict=True):
        assert re.match(expected, fault), fault
    assert file_faults(load_settings(a_config(tmp_path))) == []


def test_config_check_names_files_that_cannot_be_used(shell: Shell, tmp_path: Path) -> None:
    same = {"base": str(tmp_path / "base")}
    path = a_config(tmp_path, servers=[same], training=same)
    done = shell.run("config", "check", str(path))
    assert done.code == 2
    assert f"{path}: servers.local.base: no model in" in done.err


def test_config_check_warns_of_each_member_without_revision(shell: Shell, tmp_path: Path) -> None:
    path = a_config(tmp_path, **ELSEWHERE)
    done = shell.run("config", "check", str(path))
    assert (done.code, done.out) == (0, f"{path}: valid\n")
    [warning] = done.err.splitlines()
    assert warning.startswith(f"{path}: warning: generators.b.revision: none is given")
    answer = json.loads(shell.run("config", "check", str(path), "--json").out)
    assert answer["faults"] == []
    assert len(answer["warnings"]) == 1


def test_up_warns_of_each_member_without_revision(shell: Shell, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:  # so that `up` ends at once
        port = taken.getsockname()[1]
        done = shell.on(a_config(tmp_path, **ELSEWHERE, gateway={"port": port})).run("up")
    warning, error = done.err.splitlines()
    assert warning.startswith("warning: generators.b.revision: none is given")
    assert error.startswith(f"deltawheel: gateway.port: port {port}")


def test_config_show_hides_passwords(shell: Shell, tmp_path: Path) -> None:
    urls = {
        "store": {"url": "postgresql://u:secret@h/d"},
        "registry": {"uri": "http://u:secret@mlflow"},
    }
    shown = shell.on(a_config(tmp_path, **urls))
    for done in (shown.run("config", "show"), shown.run("config", "show", "--json")):
        assert done.code == 0
        assert "postgresql://u:***@h/d" in done.out
        assert "secret" not in done.out + done.err


def test_error_of_a_command_hides_passwords(shell: Shell, tmp_path: Path) -> None:
    path = a_config(tmp_path, store={"url": "mysql://u:secret@h/d"})
    done = shell.on(path).run("audit")
    assert done.code == 2
    assert "mysql://u:***@h/d" in done.sentence
