"""What the machine gives."""

import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from deltawheel.contracts.settings import ServerSettings
from deltawheel.ops.doctor.findings import Level
from deltawheel.ops.doctor.machine import (
    check_clock,
    check_memory,
    check_packages,
    check_python,
    unmet_requirements,
)
from tests.ops.doctor.sites import KAFKA_IMPORTED, a_site, only
from tests.ops.supervisor.wheels import RealClock

pytestmark = KAFKA_IMPORTED


class StoppedClock(RealClock):
    """A clock that was never set."""

    def now(self) -> datetime:
        return datetime(1970, 1, 1, tzinfo=UTC)


def test_interpreter_and_package_are_named(tmp_path: Path) -> None:
    found = only(check_python, a_site(tmp_path))
    assert found.level is Level.OK
    assert f"Python {sys.version_info.major}.{sys.version_info.minor}." in found.found


def test_installed_packages_are_what_is_asked_for(tmp_path: Path) -> None:
    found = only(check_packages, a_site(tmp_path))
    assert found.level is Level.OK, found
    assert "kafka-python" in found.found


def test_checksums_in_python_are_a_warning_that_names_the_price(tmp_path: Path) -> None:
    script = f"""
import sys
sys.modules["crc32c"] = None
from pathlib import Path
from deltawheel.ops.doctor.machine import check_packages
from tests.ops.doctor.sites import a_site
for one in check_packages(a_site(Path({str(tmp_path)!r}))):
    print(one.level, one.found, one.todo)
"""
    argv = [sys.executable, "-c", script]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    [line] = [line for line in done.stdout.splitlines() if line.startswith("warning")]
    assert "20 to 40 times slower" in line
    assert "pip install crc32c" in line


def test_package_that_is_missing_or_too_old_is_named() -> None:
    lines = ["click>=8", "click>=1000", "no-such-package", "no-such-extra; extra == 'test'"]
    assert list(unmet_requirements(lines)) == [
        f"click is {version('click')}, not >=1000",
        "no-such-package is missing",
    ]


def test_server_that_takes_more_memory_than_is_free_is_a_warning(tmp_path: Path) -> None:
    large = ServerSettings(name="local", kv_cache_gb=100_000)
    found = only(check_memory, a_site(tmp_path, servers=[large]))
    assert found.level is Level.WARNING
    assert "this wheel takes about 100003.5 GB" in found.found
    assert "servers.*.kv_cache_gb" in str(found.todo)
    assert only(check_memory, a_site(tmp_path)).found.endswith("takes about 4.5 GB")


def test_clock_that_was_never_set_is_a_failure(tmp_path: Path) -> None:
    import dataclasses

    site = a_site(tmp_path)
    assert only(check_clock, site).level is Level.OK
    found = only(check_clock, dataclasses.replace(site, clock=StoppedClock()))
    assert found.level is Level.FAILURE
    assert found.found.startswith("the clock says 1970-01-01 00:00 UTC")
