"""How a service begins: what it writes down of itself, and how it ends where it cannot begin."""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from deltawheel.contracts.settings import Settings
from deltawheel.infra import wiring
from deltawheel.infra.clock import SystemClock, SystemRandom
from deltawheel.infra.failpoints import FileFailpoints
from deltawheel.infra.telemetry import PrometheusTelemetry
from deltawheel.services.runtime.dependencies import Dependencies
from deltawheel.services.runtime.entry import Parts
from tests.records import WHEEL

SERVICE = """
from deltawheel.services.runtime.entry import run_process

def serve(parts):
    print("serves", parts.service, parts.settings.wheel, parts.settings_file.name)
    return 7

raise SystemExit(run_process("judging", serve))
"""


def run_service_process(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", SERVICE, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_service_that_can_begin_serves_and_ends_with_its_own_status(tmp_path: Path) -> None:
    settings = tmp_path / "wheel.yaml"
    settings.write_text(f"wheel: test\nhome: {tmp_path / 'home'}\n")
    done = run_service_process("--settings", str(settings))
    assert (done.returncode, done.stdout, done.stderr) == (
        7,
        "serves judging test wheel.yaml\n",
        "",
    )


def test_wrong_settings_end_a_service_with_status_2_and_one_sentence(tmp_path: Path) -> None:
    settings = tmp_path / "wheel.yaml"
    settings.write_text("weel: test\n")
    done = run_service_process("--settings", str(settings))
    assert done.returncode == 2
    assert done.stdout == ""
    line = json.loads(done.stderr)
    assert (line["level"], line["service"]) == ("critical", "judging")
    assert line["logger"] == "deltawheel.runtime"
    assert line["message"].startswith(f"judging stops: {settings}: weel: unknown key; did you mean")
    assert "error" not in line


def test_log_of_a_service_shows_no_password(tmp_path: Path) -> None:
    script = """
import logging
from deltawheel.services.runtime.logs import log_as_json

log_as_json("judging")
try:
    raise ValueError("postgresql://u:secret@h/d")
except ValueError:
    logging.getLogger("deltawheel").exception("no store at %s", "postgresql://u:secret@h/d")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    line = json.loads(done.stderr)
    assert line["message"] == "no store at postgresql://u:***@h/d"
    assert "ValueError: postgresql://u:***@h/d" in line["error"]
    assert "secret" not in done.stderr


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    settings = Settings(wheel=WHEEL, home=tmp_path)
    store = wiring.open_store(settings)
    telemetry = PrometheusTelemetry()
    yield Parts(
        service="judging",
        settings=settings,
        settings_file=tmp_path / "wheel.yaml",
        store=store,
        clock=SystemClock(),
        random=SystemRandom(0),
        telemetry=telemetry,
        failpoints=FileFailpoints({}),
        dependencies=Dependencies(
            clock=SystemClock(),
            random=SystemRandom(0),
            telemetry=telemetry,
            settings=settings.runtime,
        ),
    )
    store.close()


def status_of(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_announced_service_is_found_by_pid_and_health_port(parts: Parts) -> None:
    is_ready = False
    parts.announce(lambda: is_ready)
    [written] = (parts.settings.state / "run").iterdir()
    assert written.name == "judging.json"
    told = json.loads(written.read_text())
    assert told["pid"] == os.getpid()
    url = f"http://127.0.0.1:{told['health_port']}"
    assert status_of(f"{url}/healthz") == 200
    assert status_of(f"{url}/readyz") == 503
    is_ready = True
    assert status_of(f"{url}/readyz") == 200
