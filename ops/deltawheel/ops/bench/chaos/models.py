"""Model servers as they are on a bad day: `python -m deltawheel.ops.bench.chaos.models`.

One process serves all models of the run, slowly, and with faults that come and go by a seed: busy,
cut connections, answers that are no JSON, refusals, answers later than anybody waits for.
"""

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deltawheel.contracts.clock import Clock, Random
from deltawheel.contracts.errors import DeltawheelError
from deltawheel.infra import wiring
from deltawheel.infra.listening import answers_200, find_free_port
from deltawheel.infra.processes import GuardedProcess, spawn_guarded
from deltawheel.infra.stub_model_server import ANSWERS, FAULTS, StubModelServer
from deltawheel.ops.bench.chaos.world import MODELS
from deltawheel.ops.supervisor.plan import service_environment

__all__ = ["ModelServer", "main"]

_WEATHER_S: Final = 0.4
_CALM_LATENCY_S: Final = 0.05
_STUCK_LATENCY_S: Final = 20.0
_BOOT_TIMEOUT_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class _Weather:
    """What the server is like for a moment: which fault strikes what share of the requests."""

    fault: str | None
    share: float = 0.0
    latency_s: float = _CALM_LATENCY_S


_SKY: Final = (
    *[_Weather(None)] * 12,
    _Weather(None, latency_s=0.5),
    _Weather(None, latency_s=_STUCK_LATENCY_S),
    _Weather("busy", 1.0),
    _Weather("busy", 0.3),
    _Weather("cut", 0.5),
    _Weather("cut", 0.1),
    _Weather("garbage", 0.1),
    _Weather("refused", 0.1),
)
"""Drawn evenly. Garbage and refusals are rare: each ends a slot as failed, for good."""


class ModelServer:
    """That process, started and killed by the run; its port stays the same."""

    def __init__(self, folder: Path, *, seed: int, clock: Clock) -> None:
        self._log_file = folder / "models.log"
        self._seed = seed
        self._clock = clock
        self._port = find_free_port()
        self._process: GuardedProcess | None = None

    @property
    def url(self) -> str:
        """Base URL of its API."""
        return f"http://127.0.0.1:{self._port}/v1"

    def start(self, *, is_faulty: bool) -> None:
        """Start it and wait until it answers.

        Raises:
            DeltawheelError: it does not.
        """
        argv = [sys.executable, "-P", "-m", "deltawheel.ops.bench.chaos.models"]
        argv += ["--port", str(self._port), "--seed", str(self._seed)]
        argv += ["--faulty"] if is_faulty else []
        self._process = spawn_guarded(argv, env=service_environment(), log_file=self._log_file)
        deadline_s = self._clock.monotonic() + _BOOT_TIMEOUT_S
        while not answers_200(f"http://127.0.0.1:{self._port}/health"):
            if self._clock.monotonic() > deadline_s or self._process.poll() is not None:
                raise DeltawheelError(
                    f"the model server does not start; look into {self._log_file}"
                )
            self._clock.wait(0.1)

    def kill(self) -> None:
        """Kill it; all connections to it break."""
        if self._process is not None:
            self._process.kill()
            self._process = None


async def _serve(port: int, *, random: Random, is_faulty: bool) -> None:
    server = StubModelServer(
        {name: ANSWERS[name.split("-")[0]] for name in MODELS}, latency_s=_CALM_LATENCY_S
    )
    clock = wiring.system_clock()
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    async with server.running(port=port):
        while not over.is_set():
            server.requests.clear()  # it remembers all of them, for tests
            weather = random.choice(_SKY) if is_faulty else _SKY[0]
            server.fault = FAULTS[weather.fault] if weather.fault else None
            server.fault_share, server.latency_s = weather.share, weather.latency_s
            await clock.sleep(_WEATHER_S)


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="models", description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="port of loopback to listen on")
    parser.add_argument("--seed", type=int, default=0, help="of the faults")
    parser.add_argument("--faulty", action="store_true", help="with faults that come and go")
    chosen = parser.parse_args(arguments)
    random = wiring.system_random().seeded(chosen.seed)
    asyncio.run(_serve(chosen.port, random=random, is_faulty=chosen.faulty))


if __name__ == "__main__":
    main()
