"""A real wheel on Kafka and PostgreSQL, killed again and again: `make chaos`, only shorter."""

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from deltawheel.ops.bench.chaos.schedule import POINTS
from tests.components import require
from tests.waiting import wait_for
from tests.wheels import DELTAWHEEL, run_cli

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1200)]

NUM_KILLS = 25


@pytest.fixture
def home() -> Iterator[Path]:
    """A home that the user whom PostgreSQL runs as can reach, where root runs the tests."""
    require("kafka")
    require("postgres")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder) / "chaos"


def processes_of(home: Path) -> list[str]:
    """Return the command lines that name the home."""
    lines = (" ".join(found.info["cmdline"] or []) for found in psutil.process_iter(["cmdline"]))
    return [line for line in lines if str(home) in line]


def test_kills_lose_nothing_and_double_nothing(home: Path) -> None:
    sizes = ("--kills", str(NUM_KILLS), "--garbage", "2000", "--members", "4")
    done = run_cli("--home", str(home), "bench", "chaos", *sizes, "--seed", "1", timeout_s=1100)
    assert done.returncode == 0, done.stdout + done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert (result["lost"], result["duplicates"], result["audit_findings"]) == (0, 0, 0)
    assert result["kills"] == sum(result["kills_by_process"].values()) == NUM_KILLS
    assert len(result["kills_at_failpoints"]) == len(POINTS)
    assert result["kills_by_process"]["supervisor"] >= 1
    assert result["outages"] == {"broker": 1, "postgres": 1, "models": 1}
    assert result["prompts"] == sum(result["outcomes"].values()) > 100
    assert result["redeliveries"] > 0
    assert result["dead_letters"] >= 2 * result["garbage"] == 4000
    assert 0 < result["recovery_p50_s"] <= result["recovery_p99_s"]
    assert json.loads((home / "report.json").read_text())["kills"] == NUM_KILLS
    assert "| supervisor |" in (home / "report.md").read_text()
    assert processes_of(home) == []


def test_ctrl_c_ends_everything(home: Path) -> None:
    log = home.parent / "chaos.log"
    with log.open("wb") as output:
        bench = subprocess.Popen(
            [DELTAWHEEL, "--home", str(home), "bench", "chaos", "--kills", "100"],
            stdout=output,
            stderr=output,
        )
    try:
        wait_for(lambda: "kill 1:" in log.read_text(), timeout_s=300, what="the storm begins")
        bench.send_signal(signal.SIGINT)
        assert bench.wait(150) == 130
    finally:
        bench.kill()
    assert log.read_text().rstrip().endswith("stopped")
    assert processes_of(home) == []
