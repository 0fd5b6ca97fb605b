"""What the machine gives: Python and packages, memory, and the time."""

import platform
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Final

from deltawheel.ops.doctor.findings import Finding, Site, failure, ok, warning

__all__ = ["check_clock", "check_memory", "check_packages", "check_python", "unmet_requirements"]

_GB: Final = 1e9
_SERVICES_GB: Final = 1.5
"""Six services, the broker and the supervisor, before their work."""
_SERVER_GB: Final = 2.0
"""A vLLM server without weights and key-value cache."""
_FEW_GB: Final = 0.5
_NAMED: Final = ("kafka-python", "mlflow", "torch", "transformers", "trl")


def check_python(site: Site) -> Iterator[Finding]:
    """Name the interpreter; processes are watched with what only Linux offers."""
    where = f"{platform.system()} {platform.machine()}"
    found = f"Python {platform.python_version()}, deltawheel {version('deltawheel')}, {where}"
    if platform.system() != "Linux":
        yield failure(f"{found}: the supervisor needs Linux", "run it on Linux, or in a container")
    else:
        yield ok(found)


def check_packages(site: Site) -> Iterator[Finding]:
    """Compare what is installed with what this version of Deltawheel asks for."""
    from deltawheel.infra.kafka_probe import has_c_checksum

    if unmet := list(unmet_requirements(requires("deltawheel") or [])):
        yield failure(", ".join(unmet), "run `make setup`")
    else:
        yield ok(", ".join(f"{name} {_installed(name)}" for name in _NAMED))
    if not has_c_checksum():
        yield warning(
            "kafka-python computes checksums in Python (crc32c is missing), which makes encoding "
            "20 to 40 times slower",
            "run `make setup`, or `pip install crc32c`",
        )


def unmet_requirements(lines: Iterable[str]) -> Iterator[str]:
    """Return what is wrong with each requirement that is not met; those of extras are left out."""
    from packaging.requirements import Requirement

    for needed in map(Requirement, lines):
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        have = _installed(needed.name)
        if have is None:
            yield f"{needed.name} is missing"
        elif not needed.specifier.contains(have, prereleases=True):
            yield f"{needed.name} is {have}, not {needed.specifier}"


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def check_memory(site: Site) -> Iterator[Finding]:
    """Compare what is free with what the wheel takes at the start, or with nearly nothing."""
    import psutil

    memory = psutil.virtual_memory()
    free = f"{memory.available / _GB:.1f} of {memory.total / _GB:.1f} GB of memory are free"
    if site.run is not None:
        if memory.available < _FEW_GB * _GB:
            yield warning(free, "run fewer things beside the wheel")
        else:
            yield ok(free)
        return
    servers = site.settings.servers
    needed_gb = _SERVICES_GB + sum(_SERVER_GB + server.kv_cache_gb for server in servers)
    if memory.available < needed_gb * _GB:
        yield warning(
            f"{free}, and this wheel takes about {needed_gb:.1f} GB",
            "end other things, or set servers.*.kv_cache_gb lower"
            if servers
            else "end other things",
        )
    else:
        yield ok(f"{free}; this wheel takes about {needed_gb:.1f} GB")


def check_clock(site: Site) -> Iterator[Finding]:
    """Tell a clock that stands before its own software was installed."""
    now = site.clock.now()
    installed = datetime.fromtimestamp(Path(__file__).stat().st_mtime, UTC)
    if now < installed:
        yield failure(
            f"the clock says {now:%Y-%m-%d %H:%M} UTC, but this was installed at "
            f"{installed:%Y-%m-%d %H:%M}",
            "set the machine's clock",
        )
    else:
        yield ok(f"the clock says {now:%Y-%m-%d %H:%M} UTC")
