"""A wheel whose store is PostgreSQL, of its own or elsewhere: nothing lost when that goes away."""

import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.components import require
from tests.postgres import postgres_server
from tests.servers import endpoints
from tests.waiting import wait_for
from tests.wheels import Wheel, run_cli, running_up

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


def prompts(first: int, last: int) -> list[dict[str, str]]:
    return [
        {"text": f"How much is {n} + {n}?\0", "reference_answer": str(2 * n)}
        for n in range(first, last)
    ]


def processes_of(home: Path) -> list[str]:
    """Return the command lines that name the home."""
    lines = (" ".join(found.info["cmdline"] or []) for found in psutil.process_iter(["cmdline"]))
    return [line for line in lines if str(home) in line]


def restarts(wheel: Wheel, name: str) -> int:
    [process] = [process for process in wheel.run["processes"] if process["name"] == name]
    number: int = process["num_restarts"]
    return number


def service_starts(wheel: Wheel) -> dict[str, int]:
    """Return how often each service was started again."""
    services = [process for process in wheel.run["processes"] if process["kind"] == "service"]
    assert len(services) == 6
    return {service["name"]: service["num_restarts"] for service in services}


def assert_all_paired(wheel: Wheel, number: int) -> None:
    wheel.drained()
    audit = wheel.cli("audit")
    assert (audit["outcomes"], audit["is_clean"]) == ({"paired": number}, True)
    assert wheel.cli("status")["dead_letters"] == 0


def test_wheel_on_postgres_loses_nothing_when_the_database_restarts(tmp_path: Path) -> None:
    require("postgres")
    home = tmp_path / "home"
    with postgres_server() as server, server.database() as url, endpoints() as settings:
        with running_up(home, {**settings, "store": {"url": url}}) as wheel:
            wheel.submit(prompts(0, 100))
            before = service_starts(wheel)
            server.stop()
            server.start()
            wheel.submit(prompts(100, 200))
            assert_all_paired(wheel, 200)
            assert service_starts(wheel) == before, "services outlive their database"
        assert len(wheel.cli("pairs", "list", "--limit", "300")) == 200
    assert processes_of(home) == []


@pytest.fixture
def open_home() -> Iterator[Path]:
    """A home that the user whom PostgreSQL runs as can reach, where root runs the tests."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder) / "home"


def test_wheel_runs_a_postgres_of_its_own_and_keeps_it(open_home: Path) -> None:
    require("postgres")
    folder = open_home / "state" / "postgres"
    pid_file = folder / "data" / "postmaster.pid"
    with endpoints() as others:
        settings = {**others, "store": {"kind": "local-postgres"}}
        with running_up(open_home, settings) as wheel:
            assert (folder / "password").stat().st_mode & 0o777 == 0o600
            wheel.submit(prompts(0, 50))
            before = service_starts(wheel)
            wheel.kill(int(pid_file.read_text().split()[0]))
            wait_for(lambda: run_cli("--config", str(wheel.config), "status").returncode == 0)
            assert restarts(wheel, "postgres") == 1
            wheel.submit(prompts(50, 100))
            assert_all_paired(wheel, 100)
            assert service_starts(wheel) == before, "services outlive their database"
        assert not pid_file.exists(), "it was stopped in order"
        said = run_cli("--config", str(wheel.config), "pairs", "list")
        assert said.returncode == 2
        assert "is stopped, and its PostgreSQL with it" in said.stderr
        assert "start it with deltawheel up" in said.stderr
        with running_up(open_home, settings) as wheel:
            assert len(wheel.cli("pairs", "list", "--limit", "300")) == 100
    assert processes_of(open_home) == []


def test_postgres_that_dies_while_the_wheel_starts_is_waited_for(open_home: Path) -> None:
    require("postgres")
    pid_file = open_home / "state" / "postgres" / "data" / "postmaster.pid"

    def kill_once_ready() -> None:
        wait_for(lambda: pid_file.is_file() and "ready" in pid_file.read_text())
        psutil.Process(int(pid_file.read_text().split()[0])).kill()

    with endpoints() as others:
        killer = threading.Thread(target=kill_once_ready)
        killer.start()
        with running_up(open_home, {**others, "store": {"kind": "local-postgres"}}) as wheel:
            killer.join()
            assert restarts(wheel, "postgres") == 1
            wheel.submit(prompts(0, 20))
            assert_all_paired(wheel, 20)
    assert processes_of(open_home) == []


def test_killed_up_leaves_no_postgres_behind(open_home: Path) -> None:
    require("postgres")
    pid_file = open_home / "state" / "postgres" / "data" / "postmaster.pid"
    with endpoints() as others:
        settings = {**others, "store": {"kind": "local-postgres"}}
        with running_up(open_home, settings) as wheel:
            wheel.submit(prompts(0, 20))
            postmaster = psutil.Process(int(pid_file.read_text().split()[0]))
            everything = [postmaster, *postmaster.children()]
            wheel.kill(wheel.process.pid)
            psutil.wait_procs(everything, timeout=30)
            assert not any(process.is_running() for process in everything)
        with running_up(open_home, settings) as wheel:
            assert_all_paired(wheel, 20)
    assert processes_of(open_home) == []
