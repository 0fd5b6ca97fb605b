import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.components import require
from tests.wheels import run_cli


@dataclass(frozen=True)
class DemoRun:
    """One run of the demo, as a user ran it."""

    home: Path
    process: subprocess.CompletedProcess[str]

    @property
    def summary(self) -> dict[str, Any]:
        """The figures that it printed."""
        summary: dict[str, Any] = json.loads(self.process.stdout)
        return summary

    def cli(self, *arguments: str) -> Any:
        """Run a command on the stopped wheel that the demo left."""
        done = run_cli("--config", str(self.home / "deltawheel.yaml"), *arguments, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)


def run_demo(home: Path, *options: str) -> DemoRun:
    require("vllm")
    process = run_cli("--home", str(home), "demo", "--json", *options, timeout_s=900)
    return DemoRun(home=home, process=process)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> DemoRun:
    """The demo, run once for all tests that look at what it left."""
    return run_demo(tmp_path_factory.mktemp("demo") / "home")


@pytest.fixture(scope="session")
def sabotage(tmp_path_factory: pytest.TempPathFactory) -> DemoRun:
    """The demo with an inverted judge, run once."""
    return run_demo(tmp_path_factory.mktemp("sabotage") / "home", "--sabotage")
