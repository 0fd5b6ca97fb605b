"""Running one service's loop as a process: signals, readiness, exit code."""

import asyncio
import logging
import signal
from collections.abc import Callable

from deltawheel.contracts.clock import Clock, Random
from deltawheel.contracts.errors import ExitCode
from deltawheel.contracts.ports import Consumer, Failpoints, Producer, Telemetry
from deltawheel.contracts.settings import Settings
from deltawheel.services.runtime.carrier import LoopLedger
from deltawheel.services.runtime.dependencies import Dependencies
from deltawheel.services.runtime.handler import Handler
from deltawheel.services.runtime.loop import Loop

__all__ = ["run_service"]

log = logging.getLogger("deltawheel.runtime")


def run_service(
    handler: Handler,
    *,
    consumer: Consumer,
    producer: Producer,
    ledger: LoopLedger,
    clock: Clock,
    random: Random,
    telemetry: Telemetry,
    settings: Settings,
    announce: Callable[[Callable[[], bool]], None],
    failpoints: Failpoints | None = None,
    dependencies: Dependencies | None = None,
) -> int:
    """Run a handler until SIGTERM or SIGINT; return the exit code."""
    loop = Loop(
        handler,
        consumer=consumer,
        producer=producer,
        ledger=ledger,
        clock=clock,
        random=random,
        telemetry=telemetry,
        settings=settings,
        failpoints=failpoints,
        dependencies=dependencies,
    )
    announce(lambda: loop.is_ready)
    try:
        asyncio.run(_run_until_signalled(loop))
    except Exception:  # logged where it happened; the supervisor starts the process again
        log.critical("%s stops after a failure", handler.name)
        return ExitCode.FAILURE
    finally:
        producer.close()
    return ExitCode.DONE


async def _run_until_signalled(loop: Loop) -> None:
    # Not signal.signal: its handler could interrupt the very lock that `stop` has to take.
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, loop.stop)
    await loop.run()
