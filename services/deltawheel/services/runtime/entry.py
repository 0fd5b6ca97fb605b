"""How each service begins: settings, parts, the health endpoint, and the file that names it."""

import argparse
import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deltawheel.contracts.clock import Clock, Random
from deltawheel.contracts.errors import DeltawheelError
from deltawheel.contracts.ports import Failpoints, Telemetry
from deltawheel.contracts.settings import Settings
from deltawheel.contracts.store import Store
from deltawheel.infra import wiring
from deltawheel.services.runtime.handler import Handler
from deltawheel.services.runtime.logs import log_as_json
from deltawheel.services.runtime.run import run_service

__all__ = ["Parts", "run_process", "run_streaming"]

log = logging.getLogger("deltawheel.runtime")


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

    def announce(self, is_ready: Callable[[], bool]) -> None:
        """Serve health and metrics on a free port of loopback, and write down which it is.

        `is_ready` is asked at each request to /readyz, from a thread of the endpoint's.
        """
        port = wiring.serve_telemetry(self.telemetry, is_ready)
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
    try:
        settings = wiring.load_settings(settings_file)
        parts = Parts(
            service=service,
            settings=settings,
            settings_file=settings_file,
            store=wiring.open_store(settings),
            clock=wiring.system_clock(),
            random=wiring.system_random(),
            telemetry=wiring.open_telemetry(settings),
            failpoints=wiring.failpoints(),
        )
        return serve(parts)
    except DeltawheelError as error:
        log.critical("%s stops: %s", service, error)
        return int(error.exit_code)


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
        )

    return run_process(service, serve)
