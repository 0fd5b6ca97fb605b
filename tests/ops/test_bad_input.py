"""What is wrong ends in one sentence and its exit code."""

import socket
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from deltawheel.infra import wiring
from tests.components import require
from tests.records import a_prompt
from tests.wheels import leftovers, run_cli

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


def a_config(tmp_path: Path, **settings: object) -> str:
    config = tmp_path / "deltawheel.yaml"
    content = {"home": str(tmp_path / "home"), "gateway": {"port": 0}, **settings}
    config.write_text(yaml.safe_dump(content))
    return str(config)


def test_port_in_use_is_named_with_its_key(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_cli("--config", a_config(tmp_path, gateway={"port": port}), "up")
    assert done.returncode == 2
    assert f"gateway.port: port {port}" in done.stderr
    assert "Traceback" not in done.stderr


def test_unknown_generator_in_settings_is_named(tmp_path: Path) -> None:
    config = a_config(tmp_path, rotation={"pairs": [["strong", "nobody"]]})
    done = run_cli("--config", config, "up")
    assert done.returncode == 2
    assert "rotation.pairs: unknown generator 'nobody'" in done.stderr


def test_corrupt_state_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    config = a_config(tmp_path)
    store = tmp_path / "home" / "state" / "store.db"
    store.parent.mkdir(parents=True)
    store.write_bytes(b"this is no database, but somebody may want it back" * 100)
    done = run_cli("--config", config, "up")
    assert done.returncode == 1
    assert f"{store} is not a database" in done.stderr
    assert "Traceback" not in done.stderr
    assert store.read_bytes().startswith(b"this is no database")


def test_vllm_that_never_comes_up_ends_the_run_and_loses_nothing(tmp_path: Path) -> None:
    require("vllm")
    config = a_config(tmp_path, servers=[{"name": "local", "boot_timeout_s": 1}])
    settings = wiring.load_settings(Path(config))
    accepted = a_prompt()
    with closing(wiring.open_store(settings)) as store:
        store.add_prompts([accepted])
    done = run_cli("--config", config, "up")
    assert done.returncode == 1
    assert "vllm-local did not answer within 1 s (servers.local.boot_timeout_s)" in done.stderr
    assert "vllm-local.log" in done.stderr
    assert "Traceback" not in done.stderr
    with closing(wiring.open_store(settings)) as store:
        assert [row.key for row in store.evidence()] == [accepted.key]
    assert leftovers(tmp_path) == []


def test_server_without_a_model_is_named_with_its_key(tmp_path: Path) -> None:
    same = {"base": str(tmp_path)}
    done = run_cli("--config", a_config(tmp_path, servers=[same], training=same), "up")
    assert done.returncode == 2
    assert "servers.local.base: no model in" in done.stderr


def test_reading_a_home_where_no_wheel_has_run_says_how_to_start_one(tmp_path: Path) -> None:
    for command in (["status"], ["audit"], ["pairs", "list"], ["cycle", "list"]):
        done = run_cli("--config", a_config(tmp_path), *command)
        assert done.returncode == 2, command
        assert "deltawheel up" in done.stderr


def test_ingest_without_a_running_wheel_says_so(tmp_path: Path) -> None:
    done = run_cli("--config", a_config(tmp_path), "ingest", "-", stdin='{"text": "x"}')
    assert done.returncode == 1
    assert "no wheel runs" in done.stderr
