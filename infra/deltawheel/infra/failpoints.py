"""Failpoints: hold a process where a crash test wants to kill it.

Armed by the environment, once for a run: `DELTAWHEEL_FAILPOINTS=generation.assigned:20` with
`DELTAWHEEL_FAILPOINT_DIR=dir` holds the first process that comes to `generation.assigned` for the
twentieth time. It writes its pid and subject into `dir/generation.assigned.reached` and stays
there; whoever comes later passes, so that the process started in place of a killed one is not held
again.

Armed by a file, in a running wheel, as often as one likes: `dir/generation.assigned.armed` holds
the first who comes with a subject that contains the file's text. The file is gone as soon as
somebody has taken it.
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
        self._is_watching = bool(folder)
        if (self._armed or folder) and not (folder and self._folder.is_dir()):
            raise ConfigError("DELTAWHEEL_FAILPOINT_DIR must name a folder when points are armed")

    async def reach(self, name: Failpoint, subject: str) -> None:
        """Hold the calling task for ever if this is the moment."""
        if self._is_watching and self._claims(name, subject):
            await asyncio.Event().wait()

    def reach_blocking(self, name: Failpoint, subject: str) -> None:
        """Hold the calling thread for ever if this is the moment."""
        if self._is_watching and self._claims(name, subject):
            threading.Event().wait()

    def _claims(self, name: Failpoint, subject: str) -> bool:
        # Written first and named then: whoever sees the mark can read it, and only one can set it.
        written = self._folder / f"{name}.{os.getpid()}.{threading.get_ident()}"
        reached = self._folder / f"{name}.reached"
        if self._is_asked_for(name, subject):
            written.write_text(f"{os.getpid()} {subject}")
            if self._took(name, written):
                written.rename(reached)
                return True
            written.unlink()
        if not self._is_due(name):
            return False
        written.write_text(f"{os.getpid()} {subject}")
        try:
            os.link(written, reached)
        except FileExistsError:
            return False
        finally:
            written.unlink()
        return True

    def _is_due(self, name: Failpoint) -> bool:
        if name not in self._armed:
            return False
        with self._lock:
            self._passed[name] += 1
            return self._passed[name] >= self._armed[name]

    def _is_asked_for(self, name: Failpoint, subject: str) -> bool:
        try:
            return (self._folder / f"{name}.armed").read_text() in subject
        except FileNotFoundError:
            return False

    def _took(self, name: Failpoint, written: Path) -> bool:
        """Take the file away from everybody else who comes."""
        taken = written.with_suffix(f"{written.suffix}.taken")
        try:
            (self._folder / f"{name}.armed").rename(taken)
        except FileNotFoundError:
            return False
        taken.unlink()
        return True
