"""A wheel on a Kafka with TLS, SCRAM and ACLs: its secret stays one, and may change under it."""

from pathlib import Path

import psutil
import pytest

from deltawheel.infra.credentials import BROKER_PASSWORD_VARIABLE
from tests.infra.test_bus_contract import find_kafka
from tests.ops.test_wheel_on_postgres import (
    assert_all_paired,
    processes_of,
    prompts,
)
from tests.secured_kafka import PASSWORD, USER, secured_kafka
from tests.servers import endpoints
from tests.waiting import wait_for
from tests.wheels import Wheel, run_cli, running_up

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning"),
]

RENEWED = "the-renewed-secret"


def test_wheel_on_a_secured_kafka_loses_nothing_when_its_password_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_kafka(monkeypatch)
    home, folder = tmp_path / "home", tmp_path / "kafka"
    folder.mkdir()
    with secured_kafka(folder) as kafka, endpoints() as models:
        kafka.grant(USER, wheel="secured")
        settings = {
            **models,
            "wheel": "secured",
            "broker": kafka.settings(),
            "curation": {"republish_after_s": 3},
        }
        with running_up(home, settings, env={BROKER_PASSWORD_VARIABLE: PASSWORD}) as wheel:
            wheel.submit(prompts(0, 50))
            wheel.drained()
            assert_nowhere_to_be_seen(PASSWORD, wheel, home)
            kafka.set_password(RENEWED)
            judging = home / "state" / "logs" / "judging.log"
            wait_for(lambda: f"refuses user '{USER}'" in judging.read_text(), what="refused")
            wheel.submit(prompts(50, 100))
        with running_up(home, settings, env={BROKER_PASSWORD_VARIABLE: RENEWED}) as wheel:
            assert_all_paired(wheel, 100)
            assert_nowhere_to_be_seen(RENEWED, wheel, home)
    assert processes_of(home) == []


def assert_nowhere_to_be_seen(secret: str, wheel: Wheel, home: Path) -> None:
    for path in [wheel.log, *home.rglob("*")]:
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path
    for process in psutil.process_iter(["cmdline"]):
        assert secret not in " ".join(process.info["cmdline"] or []), process
    for command in ("config", "show"), ("status",):
        shown = run_cli("--config", str(wheel.config), *command, "--json")
        assert shown.returncode == 0, shown.stderr
        assert secret not in shown.stdout + shown.stderr


def test_wheel_without_its_password_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(BROKER_PASSWORD_VARIABLE, raising=False)
    config = tmp_path / "deltawheel.yaml"
    config.write_text(
        f"home: {tmp_path}/home\nservers: []\ntraining: {{is_enabled: false}}\n"
        "judge: {kind: exact-match}\n"
        "generators: [{name: a, endpoint: 'http://h/v1', model: m},"
        " {name: b, endpoint: 'http://h/v1', model: n}]\n"
        "broker:\n  kind: kafka\n  bootstrap: kafka-1:9092\n"
        "  security: {protocol: sasl-ssl, mechanism: PLAIN, username: me, ca_file: /none.pem}\n"
    )
    done = run_cli("--config", str(config), "up")
    assert done.returncode == 2
    assert f"{BROKER_PASSWORD_VARIABLE} is not set; set it to the password of" in done.stderr
    monkeypatch.setenv(BROKER_PASSWORD_VARIABLE, "secret")
    done = run_cli("--config", str(config), "up")
    assert done.returncode == 2
    assert "broker.security.ca_file: /none.pem cannot be read" in done.stderr
