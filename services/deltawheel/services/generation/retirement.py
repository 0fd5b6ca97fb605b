"""Retirement: the adapter of a retired member is unloaded once nothing needs it.

So is that of a revision that another has replaced under its name.
"""

import logging
from collections import defaultdict
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

__all__ = ["Retired", "Retirement", "Unloads", "retired_adapters"]

log = logging.getLogger("deltawheel.generation")

_SETTLED_AFTER: Final = timedelta(seconds=30)
"""By then every process has seen the event, and has stored whom it dealt to before."""
_ABSENCES: Final = frozenset({PoolEventKind.LEFT, PoolEventKind.RETURNED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Retired:
    """A revision that is a member no more, and the event that ended it."""

    generator: Generator
    by: PoolEvent

    @property
    def key(self) -> tuple[str, str]:
        """Which retirement it is: one may come back, and be retired again."""
        return self.generator.reference, self.by.event_id


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
    _done: set[tuple[str, str]] = field(default_factory=set, init=False)

    async def look(self, pool_log: Sequence[PoolEvent]) -> None:
        """Unload each adapter that nothing open refers to any more."""
        settled_at = self.clock.now() - _SETTLED_AFTER
        for each in retired_adapters(pool_log):
            if each.key not in self._done and each.by.at <= settled_at:
                await self._unload(each)

    async def _unload(self, retired: Retired) -> None:
        generator = retired.generator
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
        self._done.add(retired.key)


def retired_adapters(pool_log: Iterable[PoolEvent]) -> list[Retired]:
    """Return the adapters whose retirement stands; not those that a member is served as."""
    events = list(pool_log)
    served = {(it.endpoint, it.model) for it in Pool.from_log(events).members.values()}
    return [
        each
        for each in _retired(event for event in events if event.kind not in _ABSENCES)
        if each.generator.adapter_path is not None
        and (each.generator.endpoint, each.generator.model) not in served
    ]


def _retired(events: Iterable[PoolEvent]) -> list[Retired]:
    """Return which revisions are retired; what comes in under a name retires its others."""
    revisions: defaultdict[str, dict[str, Generator]] = defaultdict(dict)
    ends: dict[str, Retired] = {}
    for event in events:
        generator = event.generator
        revisions[generator.name][generator.reference] = generator
        ends.pop(generator.reference, None)
        if event.kind is PoolEventKind.RETIRED:
            ends[generator.reference] = Retired(generator=generator, by=event)
        elif event.kind is not PoolEventKind.DRAINED:
            for reference, other in revisions[generator.name].items():
                if reference != generator.reference:
                    ends.setdefault(reference, Retired(generator=other, by=event))
    return list(ends.values())
