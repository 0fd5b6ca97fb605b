"""How each service begins: settings, parts, the health endpoint, and the file that names it."""

import argparse
import gc
import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deltawheel.contracts.clock import Clock, Random
from deltawheel.contracts.errors import DeltawheelError
from deltawheel.contracts.ports import Failpoints, Telemetry
from deltawheel.contracts.settings import Settings
from deltawheel.contracts.store import Store
from deltawheel.infra import wiring
from deltawheel.services.runtime.dependencies import Dependencies
from deltawheel.services.runtime.handler import Handler
from deltawheel.services.runtime.logs import log_as_json
from deltawheel.services.runtime.run import run_service

__all__ = ["Parts", "run_process", "run_streaming"]

log = logging.getLogger("deltawheel.runtime")

_GC_THRESHOLDS: Final = (50_000, 20, 50)
"""Records come by hundreds and hold no cycles: looking for some at every 700th object, as Python
does by itself, takes a third of a service's time. What was there before the first record stays, and
is never looked through."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What every service is made from."""

    service: str
    settings: Settings
    settings_file: Path
    store: Store
    clock: Clock
    random: Random
    telemetry: Telemetry
    failpoints: Failpoints
    dependencies: Dependencies

    def announce(self, is_ready: Callable[[], bool]) -> None:
        """Serve health and metrics on a free port of loopback, and write down which it is.

        `is_ready` is asked at each request to /readyz, from a thread of the endpoint's.
        """
        port = wiring.serve_telemetry(self.telemetry, is_ready)
        gc.freeze()
        folder = self.settings.state / "run"
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f"{self.service}.part"
        part.write_text(json.dumps({"pid": os.getpid(), "health_port": port}))
        part.replace(folder / f"{self.service}.json")


def run_process(service: str, serve: Callable[[Parts], int]) -> int:
    """Read the settings, build the parts, serve; return the exit code.

    An error that the operator can mend ends the process with one sentence in its log.
    """
    parser = argparse.ArgumentParser(prog=f"python -m deltawheel.services.{service}")
    parser.add_argument("--settings", type=Path, required=True, help="the resolved settings file")
    settings_file: Path = parser.parse_args().settings
    log_as_json(service)
    gc.set_threshold(*_GC_THRESHOLDS)
    try:
        return serve(_make_parts(service, settings_file))
    except DeltawheelError as error:
        log.critical("%s stops: %s", service, error)
        return int(error.exit_code)


def _make_parts(service: str, settings_file: Path) -> Parts:
    settings = wiring.load_settings(settings_file)
    clock, random = wiring.system_clock(), wiring.system_random()
    telemetry = wiring.open_telemetry(settings)
    return Parts(
        service=service,
        settings=settings,
        settings_file=settings_file,
        store=wiring.open_store(settings),
        clock=clock,
        random=random,
        telemetry=telemetry,
        failpoints=wiring.failpoints(),
        dependencies=Dependencies(
            clock=clock, random=random, telemetry=telemetry, settings=settings.runtime
        ),
    )


def run_streaming(service: str, build: Callable[[Parts], Handler]) -> int:
    """Run a service that lives on topics: wire its handler and hand it to the loop."""

    def serve(parts: Parts) -> int:
        handler = build(parts)
        consumer = wiring.open_consumer(parts.settings, group=service, topics=handler.topics)
        return run_service(
            handler,
            consumer=consumer,
            producer=wiring.open_producer(parts.settings),
            ledger=parts.store,
            clock=parts.clock,
            random=parts.random,
            telemetry=parts.telemetry,
            settings=parts.settings,
            announce=parts.announce,
            failpoints=parts.failpoints,
            dependencies=parts.dependencies,
        )

    return run_process(service, serve)
