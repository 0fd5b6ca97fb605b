"""SIGINT, SIGTERM and SIGHUP as a request to stop in order; a second one as a request to hurry."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

__all__ = ["stop_on_signals"]

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def stop_on_signals(hurry: Callable[[], None]) -> Iterator[threading.Event]:
    """Give an event that the first signal sets; each further one calls `hurry`.

    Only in the main thread, where Python runs signal handlers; they are put back at the end. A
    signal that is ignored, as SIGHUP under `nohup`, stays so.
    """
    stop = threading.Event()

    def handle(signum: int, frame: FrameType | None) -> None:
        if stop.is_set():
            hurry()
        stop.set()

    heard = [signum for signum in SIGNALS if signal.getsignal(signum) is not signal.SIG_IGN]
    before = {signum: signal.signal(signum, handle) for signum in heard}
    try:
        yield stop
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
