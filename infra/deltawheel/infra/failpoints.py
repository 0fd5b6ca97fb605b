"""Failpoints armed by the environment: hold a process where a crash test wants to kill it.

`DELTAWHEEL_FAILPOINTS=generation.assigned:20,training.step` with `DELTAWHEEL_FAILPOINT_DIR=dir`
holds the first process that comes to `generation.assigned` for the twentieth time. It writes its
pid and subject into `dir/generation.assigned.reached` and stays there; whoever comes later passes,
so that the process started in place of a killed one is not held again.
"""

import asyncio
import os
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from deltawheel.contracts.errors import ConfigError
from deltawheel.contracts.failpoints import Failpoint

__all__ = ["FileFailpoints"]


class FileFailpoints:
    """The failpoints that an environment arms; none, by default."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Read which points are armed.

        Raises:
            ConfigError: a name or number is wrong, or the folder is missing.
        """
        folder = environment.get("DELTAWHEEL_FAILPOINT_DIR", "")
        self._folder = Path(folder)
        self._armed: dict[Failpoint, int] = {}
        self._passed: Counter[Failpoint] = Counter()
        self._lock = threading.Lock()
        for text in filter(None, environment.get("DELTAWHEEL_FAILPOINTS", "").split(",")):
            name, _, nth = text.partition(":")
            if name not in list(Failpoint):
                known = ", ".join(Failpoint)
                raise ConfigError(f"DELTAWHEEL_FAILPOINTS: unknown point {name!r}; it has {known}")
            if nth and not (nth.isdecimal() and int(nth) > 0):
                raise ConfigError(f"DELTAWHEEL_FAILPOINTS: {text!r} is not name or name:N, N >= 1")
            self._armed[Failpoint(name)] = int(nth or 1)
        if self._armed and not (folder and self._folder.is_dir()):
            raise ConfigError("DELTAWHEEL_FAILPOINT_DIR must name a folder when points are armed")

    async def reach(self, name: Failpoint, subject: str) -> None:
        """Hold the calling task for ever if this is the moment."""
        if self._armed and self._claims(name, subject):
            await asyncio.Event().wait()

    def reach_blocking(self, name: Failpoint, subject: str) -> None:
        """Hold the calling thread for ever if this is the moment."""
        if self._armed and self._claims(name, subject):
            threading.Event().wait()

    def _claims(self, name: Failpoint, subject: str) -> bool:
        if name not in self._armed:
            return False
        with self._lock:
            self._passed[name] += 1
            if self._passed[name] < self._armed[name]:
                return False
        # Written first and linked then: whoever sees the mark can read it, and only one can set it.
        written = self._folder / f"{name}.{os.getpid()}"
        written.write_text(f"{os.getpid()} {subject}")
        try:
            os.link(written, self._folder / f"{name}.reached")
        except FileExistsError:
            return False
        finally:
            written.unlink()
        return True
