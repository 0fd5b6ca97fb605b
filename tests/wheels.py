"""A real wheel for integration tests: `deltawheel up` as a user runs it, on free ports."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from deltawheel.contracts.settings import Settings
from deltawheel.contracts.store import Store
from deltawheel.infra import wiring
from deltawheel.ops.supervisor.child import read_last_lines
from tests.waiting import wait_for

DELTAWHEEL = str(Path(sys.executable).with_name("deltawheel"))


def run_cli(
    *arguments: str, stdin: str | None = None, timeout_s: float = 600, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [DELTAWHEEL, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        cwd=cwd,
    )


@dataclass
class Wheel:
    """A running `deltawheel up`."""

    config: Path
    process: subprocess.Popen[bytes]
    log: Path
    _store: Store | None = field(default=None, init=False)

    @property
    def run(self) -> dict[str, Any]:
        """What `status` says of the run."""
        shown = run_cli("--config", str(self.config), "status", "--json")
        assert shown.returncode == 0, shown.stderr
        run: dict[str, Any] = json.loads(shown.stdout)["run"]
        return run

    @property
    def settings(self) -> Settings:
        """The settings with the ports of this run."""
        home = wiring.load_settings(self.config).home
        return wiring.load_settings(home / "state" / "run" / "settings.yaml")

    @property
    def store(self) -> Store:
        """The wheel's store, opened by the test."""
        if self._store is None:
            self._store = wiring.open_store(self.settings)
        return self._store

    @property
    def gateway(self) -> str:
        """The gateway's URL."""
        return f"http://127.0.0.1:{self.settings.gateway.port}"

    def cli(self, *arguments: str, stdin: str | None = None) -> Any:
        """Run a command on this wheel and return its JSON; it must succeed."""
        done = run_cli("--config", str(self.config), *arguments, "--json", stdin=stdin)
        assert done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
        return json.loads(done.stdout)

    def submit(self, bodies: list[dict[str, Any]], *, timeout_s: float = 60) -> list[str]:
        """POST prompts; return their ids."""
        request = urllib.request.Request(
            f"{self.gateway}/v1/prompts",
            data=json.dumps({"prompts": bodies}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=timeout_s) as response:
            assert response.status == 202
            return [accepted["prompt_id"] for accepted in json.load(response)["accepted"]]

    def service_pid(self, name: str) -> int:
        """Return the pid of a service's own process, below its guard."""
        path = self.settings.state / "run" / f"{name}.json"
        pid: int = json.loads(path.read_text())["pid"]
        return pid

    def process_of(self, name: str) -> psutil.Process:
        """Return the process that a guard runs: a broker, a vLLM server or a service."""
        [state] = [state for state in self.run["processes"] if state["name"] == name]
        [child] = psutil.Process(state["guard"]["pid"]).children()
        return child

    def metric(self, service: str, name: str, **labels: str) -> float:
        """Return the sum of a service's samples of a metric that have these labels."""
        return sum_metric(self.metrics(service), name, **labels)

    def metrics(self, service: str) -> str:
        """Return a service's metrics page, or nothing while it is away."""
        try:
            path = self.settings.state / "run" / f"{service}.json"
            port = json.loads(path.read_text())["health_port"]
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page:
                text: str = page.read().decode()
        except (OSError, ValueError):
            return ""
        return text

    def kill(self, pid: int) -> None:
        """SIGKILL, and wait until the process is gone."""
        process = psutil.Process(pid)
        process.kill()
        wait_for(lambda: _is_gone(process), what=f"{pid} is gone")

    def drained(self, *, timeout_s: float = 180) -> None:
        """Wait until every prompt has its outcome."""
        wait_for(lambda: self.store.progress().is_drained, timeout_s=timeout_s, what="drained")


def _is_gone(process: psutil.Process) -> bool:
    """Whether a process has ended, whoever is to ask how."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def sum_metric(page: str, name: str, **labels: str) -> float:
    """Sum the samples of a metric on a Prometheus page that have these labels."""
    total = 0.0
    for line in page.splitlines():
        if line.startswith((f"{name} ", f"{name}{{")) and all(
            f'{key}="{value}"' in line for key, value in labels.items()
        ):
            total += float(line.rsplit(" ", 1)[1])
    return total


@contextmanager
def running_up(
    home: Path,
    settings: Mapping[str, Any],
    *,
    env: Mapping[str, str] | None = None,
    ready_timeout_s: float = 300,
) -> Iterator[Wheel]:
    """Run `deltawheel up` on a home until the block ends; nothing of it may be left then.

    If the block fails, the last lines of every log are printed.
    """
    home.mkdir(parents=True, exist_ok=True)
    config = home / "deltawheel.yaml"
    content = {"home": str(home), "gateway": {"port": 0}, **settings}
    config.write_text(yaml.safe_dump(content))
    log = home.parent / f"{home.name}-up.log"
    start = log.stat().st_size if log.exists() else 0
    with log.open("ab") as output:
        process = subprocess.Popen(
            [DELTAWHEEL, "--config", str(config), "up"],
            stdout=output,
            stderr=output,
            env={**os.environ, **(env or {})},
        )
    wheel = Wheel(config=config, process=process, log=log)
    try:

        def is_ready() -> bool:
            assert process.poll() is None, log.read_text()
            return "ready: prompts go to" in log.read_bytes()[start:].decode()

        wait_for(is_ready, timeout_s=ready_timeout_s, what="the wheel is ready")
        yield wheel
    except BaseException:
        for written in (log, *sorted((home / "state" / "logs").glob("*.log"))):
            sys.stdout.write(f"{written.name} ends with:\n{read_last_lines(written)}\n")
        raise
    finally:
        if wheel._store is not None:
            wheel._store.close()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(90)


def leftovers(home: Path) -> list[str]:
    """Return processes whose command line names the home, and vLLM's engines."""
    found = []
    for process in psutil.process_iter(["cmdline", "name", "status"]):
        if process.info["status"] == psutil.STATUS_ZOMBIE:
            continue  # it has ended; only its parent has not asked how
        line = " ".join(process.info["cmdline"] or [])
        if (
            str(home) in line
            or "EngineCore" in line
            or "EngineCore" in (process.info["name"] or "")
        ):
            found.append(f"{process.pid} {line}")
    return found
