"""Small real processes in place of broker, servers and services."""

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from deltawheel.contracts.settings import (
    GeneratorSettings,
    Settings,
    SupervisorSettings,
    TrainingSettings,
)
from deltawheel.infra.processes import Command
from deltawheel.ops.supervisor.plan import ProcessKind, ProcessPlan

T = TypeVar("T")

# Writes the file that says it is ready, then waits; SIGTERM is noted in the journal.
OBEDIENT = """
import pathlib, signal, sys, threading
name, folder = sys.argv[1], pathlib.Path(sys.argv[2])
def stop(*_):
    with (folder / "journal").open("a") as journal:
        journal.write(name + "\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
(folder / (name + ".ready")).touch()
threading.Event().wait(60)
"""
DEAF = """
import pathlib, signal, sys, threading
name, folder = sys.argv[1], pathlib.Path(sys.argv[2])
signal.signal(signal.SIGTERM, signal.SIG_IGN)
(folder / (name + ".ready")).touch()
while True:
    threading.Event().wait(60)
"""
QUICK = SupervisorSettings(
    backoff_base_s=0.05, backoff_cap_s=0.2, stable_after_s=60, stop_timeout_s=5
)


class RealClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def wait(self, duration_s: float) -> None:
        threading.Event().wait(duration_s)

    async def sleep(self, duration_s: float) -> None:
        await asyncio.sleep(duration_s)


class Halves:
    """Always the middle."""

    def random(self) -> float:
        return 0.5

    def randrange(self, start: int, stop: int) -> int:
        return (start + stop) // 2

    def choice(self, options: Sequence[T]) -> T:
        return options[len(options) // 2]

    def gauss(self, mu: float, sigma: float) -> float:
        return mu

    def shuffle(self, items: list[Any]) -> None:
        items.reverse()

    def token(self) -> str:
        return "0" * 32

    def seeded(self, seed: int | str) -> "Halves":
        return self


def some_settings(home: Path) -> Settings:
    """Return settings without a server, so that nothing asks for vLLM."""
    generators = tuple(
        GeneratorSettings(name=name, endpoint="http://127.0.0.1:9/v1", model=name) for name in "ab"
    )
    return Settings(
        home=home, servers=(), generators=generators, training=TrainingSettings(is_enabled=False)
    )


def plan(
    folder: Path,
    name: str,
    *,
    kind: ProcessKind = ProcessKind.SERVICE,
    script: str = OBEDIENT,
    stop_order: int = 0,
    ready_timeout_s: float = 30,
    **rest: Any,
) -> ProcessPlan:
    """Return the plan of a script that is ready when it has touched `<name>.ready`."""
    ready = folder / f"{name}.ready"
    argv = (sys.executable, "-c", script, name, str(folder))
    return ProcessPlan(
        name=name,
        kind=kind,
        make_command=lambda: Command(argv=argv, env={}),
        is_ready=ready.exists,
        ready_timeout_s=ready_timeout_s,
        log_file=folder / f"{name}.log",
        stop_order=stop_order,
        run_file=ready,
        **rest,
    )


def eventually(condition: Callable[[], bool], timeout_s: float = 15) -> None:
    """Wait until the condition is true."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        threading.Event().wait(0.01)
