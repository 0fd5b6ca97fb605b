"""Retirement: the adapter of a retired member is unloaded once nothing needs it."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, Protocol

from deltawheel.contracts.clock import Clock
from deltawheel.contracts.errors import InvalidRecordError, RetryLaterError
from deltawheel.contracts.generator import Generator, PoolEvent, PoolEventKind
from deltawheel.contracts.pool import Pool
from deltawheel.contracts.store import Store
from deltawheel.services.runtime.offload import offload

__all__ = ["Retirement", "Unloads", "retired_adapters"]

log = logging.getLogger("deltawheel.generation")

_SETTLED_AFTER: Final = timedelta(seconds=30)
"""By then every process has seen the event, and has stored whom it dealt to before."""
_ABSENCES: Final = frozenset({PoolEventKind.LEFT, PoolEventKind.RETURNED})


class Unloads(Protocol):
    """What takes adapters out of servers."""

    async def unload(self, generator: Generator) -> None:
        """Have its server forget the adapter; see `UnloadingChatModel`."""
        ...


@dataclass(slots=True, kw_only=True)
class Retirement:
    """Unloads what is retired, once a life of the process.

    A server that had forgotten the adapter already says so, and that is as good; one that refuses,
    or is configured no longer, is not asked again.
    """

    store: Store
    models: Unloads
    clock: Clock
    _done: set[str] = field(default_factory=set, init=False)

    async def look(self, pool_log: Sequence[PoolEvent]) -> None:
        """Unload each adapter that nothing open refers to any more."""
        settled_at = self.clock.now() - _SETTLED_AFTER
        for event in retired_adapters(pool_log):
            if event.event_id not in self._done and event.at <= settled_at:
                await self._unload(event)

    async def _unload(self, event: PoolEvent) -> None:
        generator = event.generator
        if await offload(self.store.has_open_slots, generator):
            return
        try:
            await self.models.unload(generator)
        except RetryLaterError as error:
            log.warning("%s is not unloaded yet: %s", generator.reference, error)
            return
        except InvalidRecordError as error:
            log.warning("%s is left where it is loaded: %s", generator.reference, error)
        else:
            log.info("%s is unloaded: it is retired and no open prompt's", generator.reference)
        self._done.add(event.event_id)


def retired_adapters(pool_log: Iterable[PoolEvent]) -> list[PoolEvent]:
    """Return the retirements of adapters that stand; not of what a member is served as."""
    events = list(pool_log)
    last = {it.generator.reference: it for it in events if it.kind not in _ABSENCES}
    served = {(it.endpoint, it.model) for it in Pool.from_log(events).members.values()}
    return [
        event
        for event in last.values()
        if event.kind is PoolEventKind.RETIRED
        and event.generator.adapter_path is not None
        and (event.generator.endpoint, event.generator.model) not in served
    ]
