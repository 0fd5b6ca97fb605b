"""What `up` starts, from the settings."""

import http.server
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from deltawheel.contracts.settings import BrokerKind, BrokerSettings, ServerSettings, Settings
from deltawheel.infra.processes import Command
from deltawheel.ops.supervisor.plan import (
    SERVICES,
    ProcessKind,
    ServiceProbe,
    make_plans,
    plan_broker,
    service_environment,
)
from tests.ops.supervisor.wheels import some_settings


def a_broker_command() -> Command:
    return Command(argv=("broker",), env={})


def test_whole_wheel_stops_from_the_gateway_to_the_broker(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, servers=(ServerSettings(port=8123),))
    broker = plan_broker(settings, make_command=a_broker_command, is_ready=lambda: True)
    plans = make_plans(settings, tmp_path / "settings.yaml", broker=broker)
    names = [plan.name for plan in sorted(plans, key=lambda plan: plan.stop_order)]
    assert names == [*SERVICES, "vllm-local", "broker"]


@pytest.mark.parametrize("kind", [BrokerKind.EMBEDDED, BrokerKind.LOCAL_KAFKA])
def test_only_the_embedded_broker_forgets(tmp_path: Path, kind: BrokerKind) -> None:
    settings = Settings(home=tmp_path, broker=BrokerSettings(kind=kind))
    plan = plan_broker(settings, make_command=a_broker_command, is_ready=lambda: True)
    assert plan.is_memory_only is (kind is BrokerKind.EMBEDDED)


def test_wheel_without_servers_needs_no_vllm(tmp_path: Path) -> None:
    plans = make_plans(some_settings(tmp_path), tmp_path / "settings.yaml", broker=None)
    assert {plan.kind for plan in plans} == {ProcessKind.SERVICE}


def test_service_is_told_its_settings_file(tmp_path: Path) -> None:
    plans = make_plans(some_settings(tmp_path), tmp_path / "settings.yaml", broker=None)
    argv = {plan.name: plan.make_command().argv for plan in plans}["judging"]
    assert argv[-4:] == (
        "-m",
        "deltawheel.services.judging",
        "--settings",
        str(tmp_path / "settings.yaml"),
    )


def test_service_inherits_secrets_and_no_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DELTAWHEEL_GATEWAY__PORT", "0")
    monkeypatch.setenv("DELTAWHEEL_GATEWAY_TOKEN", "secret")
    environment = service_environment()
    assert "DELTAWHEEL_GATEWAY__PORT" not in environment
    assert environment["DELTAWHEEL_GATEWAY_TOKEN"] == "secret"
    assert environment["PATH"] == os.environ["PATH"]


@pytest.mark.parametrize(("given", "expected"), [(None, "2"), ("8", "8")])
def test_service_has_few_heaps_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, given: str | None, expected: str
) -> None:
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    if given is not None:
        monkeypatch.setenv("MALLOC_ARENA_MAX", given)
    assert service_environment()["MALLOC_ARENA_MAX"] == expected


class Readyz(http.server.BaseHTTPRequestHandler):
    """Answers /readyz, and nothing else."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/readyz" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def health_port() -> Iterator[int]:
    with http.server.HTTPServer(("127.0.0.1", 0), Readyz) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_service_is_ready_when_the_port_in_its_file_answers(
    tmp_path: Path, health_port: int
) -> None:
    run_file = tmp_path / "judging.json"
    probe = ServiceProbe(run_file)
    assert not probe()
    run_file.write_text(json.dumps({"pid": 1, "health_port": health_port}))
    assert probe()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"health_port": null}', "\0"])
def test_service_with_a_half_written_file_is_not_ready(tmp_path: Path, content: str) -> None:
    (tmp_path / "judging.json").write_text(content)
    assert not ServiceProbe(tmp_path / "judging.json")()
