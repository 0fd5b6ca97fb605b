"""What is seen of the wheel from outside: its store's counts and its services' metrics."""

import http.client
import json
from typing import Final

from deltawheel.contracts.errors import DeltawheelError
from deltawheel.contracts.settings import Settings
from deltawheel.contracts.store import Progress, Store
from deltawheel.infra import wiring
from deltawheel.infra.processes import ProcessId
from deltawheel.ops.supervisor.plan import SERVICES, service_file
from deltawheel.ops.supervisor.runfile import RunRecord

__all__ = ["Redeliveries", "StoreView"]

_TIMEOUT_S: Final = 1.0
_FOUND: Final = "deltawheel_effects_found_total"
_OWED: Final = "deltawheel_owed_events_republished_total"


class StoreView:
    """The store of whichever run is on: a new run's database listens on another port."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store: Store | None = None
        self._run: ProcessId | None = None

    def store(self, run: RunRecord | None) -> Store | None:
        """Return the open store, or None while it is away."""
        if run is None:
            return None
        if self._run != run.supervisor:
            self.close()
            try:
                self._store = wiring.open_store(self._settings)
            except DeltawheelError:
                return None
            self._run = run.supervisor
        return self._store

    def progress(self, run: RunRecord | None) -> Progress | None:
        """Return the counts, or None while the store is away."""
        try:
            store = self.store(run)
            return store.progress() if store is not None else None
        except DeltawheelError:
            return None

    def close(self) -> None:
        """Close the connections."""
        if self._store is not None:
            self._store.close()
        self._store = self._run = None


class Redeliveries:
    """Redelivered records, as far as the services' counters tell.

    A counter dies with its process: what it had counted since it was last read, a second before or
    less, is not in these sums, nor is a redelivery that found nothing done. So they are lower
    bounds.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._last: dict[tuple[str, int], dict[str, float]] = {}

    def read(self) -> None:
        """Read the counters of every service that answers."""
        for service in SERVICES:
            try:
                told = json.loads(service_file(self._settings, service).read_text())
                page = _page(int(told["health_port"]))
            except (OSError, ValueError, KeyError, http.client.HTTPException):
                continue
            self._last[service, int(told["pid"])] = {
                name: _sum(page, name) for name in (_FOUND, _OWED)
            }

    @property
    def num_found(self) -> int:
        """How often a redelivered record found its effect in the store."""
        return int(sum(counts[_FOUND] for counts in self._last.values()))

    @property
    def num_owed(self) -> int:
        """How many owed events were published again."""
        return int(sum(counts[_OWED] for counts in self._last.values()))


def _page(port: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def _sum(page: str, name: str) -> float:
    """Add up the samples of a metric on a Prometheus page."""
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in page.splitlines()
        if line.startswith((f"{name}{{", f"{name} "))
    )
