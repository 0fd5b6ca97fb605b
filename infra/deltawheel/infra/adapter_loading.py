"""Loading adapters: once for all who find out that a server has forgotten one, and none other."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final, TypeAlias

from deltawheel.contracts.generator import Generator
from deltawheel.contracts.ids import digest_of

__all__ = ["ADAPTER_FILE", "AdapterLoads", "changed_weights"]

ADAPTER_FILE: Final = "adapter_model.safetensors"
_DIGEST: Final = "sha256:"
_Key: TypeAlias = tuple[str, str]


class AdapterLoads:
    """At most one load at a time per server and model, shared by all who need it.

    It belongs to one event loop.
    """

    def __init__(self) -> None:
        self._running: dict[_Key, asyncio.Task[None]] = {}
        self._num_done: Counter[_Key] = Counter()

    def num_done(self, generator: Generator, base: str) -> int:
        """Return how often this adapter was loaded there; ask before a request, for `ensure`."""
        return self._num_done[base, generator.model]

    async def ensure(
        self,
        generator: Generator,
        base: str,
        load: Callable[[Generator, str], Coroutine[Any, Any, None]],
        *,
        since: int,
    ) -> None:
        """Wait for a load that ended after `since`, beginning one where none is under way.

        A request that was refused before a load ended, but heard of it after, loads nothing.
        Whoever is cancelled while waiting leaves the load to the others.

        Args:
            generator: Whose adapter is missing.
            base: The server that misses it; of several replicas, each has to load it.
            load: Loads it; its errors reach everybody who waits.
            since: What `num_done` gave before the refused request was sent.
        """
        key = base, generator.model
        if self._num_done[key] > since:
            return
        task = self._running.get(key)
        if task is None:
            task = asyncio.create_task(load(generator, base))
            self._running[key] = task
            task.add_done_callback(lambda ended: self._end(key, ended))
        await asyncio.shield(task)

    async def aclose(self) -> None:
        """Cancel what is under way."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _end(self, key: _Key, task: asyncio.Task[None]) -> None:
        del self._running[key]
        # Reading the exception also keeps asyncio quiet when all who waited were cancelled.
        if not task.cancelled() and task.exception() is None:
            self._num_done[key] += 1


def changed_weights(generator: Generator) -> str | None:
    """Return the digest of an adapter's file, if it is not the one that its revision says.

    None also where this machine does not see the file, or the revision is no digest: then only the
    server could tell. Reads the file: call it from a thread.
    """
    path = Path(generator.adapter_path or "") / ADAPTER_FILE
    if not generator.revision.startswith(_DIGEST) or not path.is_file():
        return None
    found = digest_of(path.read_bytes())
    return found if found != generator.revision else None
