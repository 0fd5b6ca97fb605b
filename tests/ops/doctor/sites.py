"""What a doctor is called to, in a folder of a test's."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deltawheel.contracts.settings import Settings
from deltawheel.infra import wiring
from deltawheel.ops.doctor.examine import examine, site_of
from deltawheel.ops.doctor.findings import Check, Finding, Site

KAFKA_IMPORTED = pytest.mark.filterwarnings(
    "ignore:(read|open)_text is deprecated:DeprecationWarning"
)
"""kafka-python reads its schemas that way as it is imported, which checks do late."""


def a_site(home: Path, **settings: Any) -> Site:
    content: dict[str, Any] = {"home": home, "gateway": {"port": 0}, **settings}
    return replace(site_of(Settings(**content), None), timeout_s=1)


def examined(check: Check, site: Site, *, deadline_s: float = 30.0) -> list[Finding]:
    """Run one check as `doctor` runs it."""
    return [one.finding for one in examine(site, {"it": check}, deadline_s=deadline_s)]


def only(check: Check, site: Site) -> Finding:
    [finding] = examined(check, site)
    return finding


def a_store(site: Site) -> Path:
    """Make the store as a wheel does; return its file."""
    wiring.open_store(site.settings).close()
    return site.settings.state / "store.db"


def listed(folder: Path) -> list[tuple[Path, bytes]]:
    """Return everything in a folder with its content."""
    found = sorted(folder.rglob("*"))
    return [(path, path.read_bytes() if path.is_file() else b"") for path in found]
