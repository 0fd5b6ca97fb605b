"""Membership: who cannot write leaves the pool for a while, and returns by itself.

A member leaves once it has failed several health checks in a row, at once when another model
answers under its name, and for the rest of the day when its tokens are spent. Its share goes to
those that stand. Of several members of the service one looks after it, under a lease.
"""

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Protocol

from deltawheel.contracts.clock import Clock, Random
from deltawheel.contracts.errors import ForeignModelError, InvalidRecordError, RetryLaterError
from deltawheel.contracts.generator import Generator, PoolEvent, PoolEventKind
from deltawheel.contracts.membership import history_of
from deltawheel.contracts.pool import Pool
from deltawheel.contracts.record import Record
from deltawheel.contracts.settings import GenerationSettings
from deltawheel.contracts.store import PAUSE_LEASE, Store
from deltawheel.services.generation.retirement import Retirement, Unloads
from deltawheel.services.runtime.handler import Tick
from deltawheel.services.runtime.offload import offload

__all__ = ["LEASE", "Membership", "PoolModels"]

log = logging.getLogger("deltawheel.generation")

LEASE: Final = "pool-membership"
_LOOKS: Final = 3
"""Looks in one interval of health checks: who has failed is asked at each of them."""
_BUDGET_INTERVAL_S: Final = 15.0
_REMEMBERED: Final = timedelta(hours=1)
_LONGEST_REST: Final = timedelta(minutes=15)


class PoolModels(Unloads, Protocol):
    """The members, as who looks after them needs them."""

    async def probe(self, generator: Generator) -> None:
        """Have it write one token; its errors are those of `ChatModel.load`."""
        ...

    async def compare(self, generator: Generator) -> None:
        """Compare its weights with the earlier; see `UnloadingChatModel`."""
        ...


@dataclass(slots=True, kw_only=True)
class Membership:
    """Looks after the pool at an interval, and unloads adapters that are retired.

    A member whose traces come is healthy and writes nothing for a check: only its weights are
    compared. One that is `inactive` is left in peace. `on_change` is told after members left or
    returned.
    """

    settings: GenerationSettings
    store: Store
    models: PoolModels
    clock: Clock
    random: Random
    on_change: Callable[[], None] = lambda: None
    inactive: Callable[[Pool, datetime], Collection[str]] = lambda pool, at: ()
    ticks: Sequence[Tick] = field(init=False)
    _token: str = field(init=False)
    _retirement: Retirement = field(init=False)
    _heard: set[str] = field(default_factory=set, init=False)
    _foreign: dict[str, str] = field(default_factory=dict, init=False)
    _failures: Counter[str] = field(default_factory=Counter, init=False)
    _asked_s: dict[str, float] = field(default_factory=dict, init=False)
    _compared_s: dict[str, float] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._token = self.random.token()
        self._retirement = Retirement(store=self.store, models=self.models, clock=self.clock)
        interval_s = self.settings.health_interval_s / _LOOKS or _BUDGET_INTERVAL_S
        self.ticks = (Tick(name="membership", interval_s=interval_s, run=self.look),)

    def heard(self, generator: Generator, error: ForeignModelError | None = None) -> None:
        """Hear that a member has answered a prompt, or that another model did in its name."""
        if error is None:
            self._heard.add(generator.reference)
        else:
            self._foreign[generator.reference] = str(error)

    async def look(self) -> Sequence[Record]:
        """Let members leave, return and be forgotten.

        While another process looks, only those leave in whose name another model was heard here.
        Nothing happens while generation is paused.
        """
        now, foreign = self.clock.now(), dict(self._foreign)
        heard, self._heard = self._heard, set()
        is_mine = await self._has_lease(now)
        is_paused = await offload(self.store.is_leased, PAUSE_LEASE, at=now)
        if is_paused or not is_mine:
            self._failures.clear()
        if is_paused or not (is_mine or foreign):
            return []
        pool_log = await offload(self.store.pool_log)
        if is_mine:
            await self._look_after(pool_log, now, heard, foreign)
            await self._retirement.look(pool_log)
        elif self.settings.health_interval_s:
            pool = Pool.from_log(pool_log)
            members = [it for it in pool.standing() if it.reference in foreign]
            faults = {it.name: foreign[it.reference] for it in members}
            await self._note(members, pool_log, faults)
        for reference in foreign:
            self._foreign.pop(reference, None)
        return []

    async def _look_after(
        self,
        pool_log: Sequence[PoolEvent],
        now: datetime,
        heard: set[str],
        foreign: Mapping[str, str],
    ) -> None:
        """Let those leave whose tokens are spent, which waits for no server; then ask the rest."""
        pool, resting = Pool.from_log(pool_log), self._resting(pool_log, now)
        spent = await self._spent(pool, now)
        await self._note([it for it in pool.ranked() if it.name in spent], pool_log, spent)
        kept = {name for name in pool.absent if pool.members[name].reference in resting}
        unasked = {*spent, *kept, *self.inactive(pool, now)}
        asked = [it for it in pool.ranked() if it.name not in unasked]
        checks = await asyncio.gather(
            *(self._fault(it, pool, heard - resting, foreign) for it in asked)
        )
        faults = {it.name: fault for it, fault in zip(asked, checks, strict=True) if fault}
        await self._note(asked, pool_log, faults)

    async def _note(
        self,
        members: Sequence[Generator],
        pool_log: Sequence[PoolEvent],
        faults: Mapping[str, str],
    ) -> None:
        """Let those leave that have a fault, and the others return, where that is news."""
        absent = Pool.from_log(pool_log).absent
        events = [
            self._event(it, pool_log, faults.get(it.name))
            for it in members
            if (it.name in absent) != (it.name in faults)
        ]
        if events:
            await offload(self.store.add_pool_events, events)
            self.on_change()

    async def _has_lease(self, now: datetime) -> bool:
        until = now + timedelta(
            seconds=2 * self.ticks[0].interval_s + self.settings.request_timeout_s
        )
        return await offload(
            self.store.acquire_lease, LEASE, token=self._token, at=now, until=until
        )

    def _resting(self, pool_log: Sequence[PoolEvent], now: datetime) -> set[str]:
        """Return who has left so often in the last hour that it stays away for a while.

        Who comes and goes gives no traces to speak of, and lines of the log that all must read.
        """
        left: defaultdict[str, list[datetime]] = defaultdict(list)
        for event in pool_log:
            if event.kind is PoolEventKind.LEFT and event.at > now - _REMEMBERED:
                left[event.generator.reference].append(event.at)
        pause_s = self.ticks[0].interval_s
        return {
            reference
            for reference, times in left.items()
            if len(times) > 1
            and now - times[-1] < min(_LONGEST_REST, timedelta(seconds=pause_s * 2 ** len(times)))
        }

    async def _spent(self, pool: Pool, now: datetime) -> dict[str, str]:
        """Return, by name, what is said of members whose tokens of this UTC day are spent."""
        limits = {
            it.name: it.max_tokens_per_day for it in pool.members.values() if it.max_tokens_per_day
        }
        if not limits:
            return {}
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        taken = await offload(self.store.member_tokens, since=midnight)
        return {
            it.generator: f"its {limit:,} tokens of {midnight.date()} are spent; it returns at "
            "00:00 UTC"
            for it in taken
            if (limit := limits.get(it.generator)) and it.tokens >= limit
        }

    async def _fault(
        self, member: Generator, pool: Pool, heard: set[str], foreign: Mapping[str, str]
    ) -> str | None:
        """Return why a member cannot write, if it cannot; who is away stays so until it answers."""
        if not self.settings.health_interval_s:
            return None
        reference, away = member.reference, pool.absent.get(member.name)
        if fault := foreign.get(reference):
            return fault
        if reference in heard:
            self._note_answer(reference)
            return await self._exchange(member)
        if not self._is_due(member, is_away=away is not None):
            return away
        try:
            await self._in_time(self.models.probe(member))
        except ForeignModelError as error:
            return str(error)
        except (InvalidRecordError, RetryLaterError) as error:
            return away or self._failed(member, error)
        self._note_answer(reference)
        return None

    async def _exchange(self, member: Generator) -> str | None:
        """Return what is said of a busy member whose weights were exchanged, once an interval."""
        at_s, reference = self.clock.monotonic(), member.reference
        compared_s = self._compared_s.get(reference)
        if compared_s is not None and at_s - compared_s < self.settings.health_interval_s:
            return None
        try:
            await self._in_time(self.models.compare(member))
        except ForeignModelError as error:
            return str(error)
        except (InvalidRecordError, RetryLaterError) as error:
            log.info("the weights of %s were not compared: %s", reference, error)
        self._compared_s[reference] = at_s
        return None

    async def _in_time(self, asking: Awaitable[None]) -> None:
        """Wait for an answer; one that is late has failed, so that no look outlasts its lease."""
        limit_s = self.settings.request_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                await asking
        except TimeoutError as error:
            raise RetryLaterError(
                f"no answer within generation.request_timeout_s ({limit_s:g} s)"
            ) from error

    def _note_answer(self, reference: str) -> None:
        """Note that a member has just answered."""
        self._failures.pop(reference, None)
        self._asked_s[reference] = self.clock.monotonic()

    def _is_due(self, member: Generator, *, is_away: bool) -> bool:
        """Whether to ask now: after an interval of silence, and at every look after a failure."""
        at_s, reference = self.clock.monotonic(), member.reference
        silent_s = at_s - self._asked_s.setdefault(reference, at_s)
        return is_away or reference in self._failures or silent_s >= self.settings.health_interval_s

    def _failed(self, member: Generator, error: Exception) -> str | None:
        self._failures[member.reference] += 1
        number = self._failures[member.reference]
        if number < self.settings.health_failures:
            return None
        return f"{number} health checks in a row failed: {error}"

    def _event(
        self, member: Generator, pool_log: Sequence[PoolEvent], fault: str | None
    ) -> PoolEvent:
        """Return its leaving or return: one event, whoever of several processes notes it first."""
        kind = PoolEventKind.LEFT if fault else PoolEventKind.RETURNED
        reason = fault or "it can write again"
        log.warning("%s has %s: %s", member.reference, kind, reason)
        return PoolEvent(
            kind=kind,
            generator=member,
            reason=reason,
            at=self.clock.now(),
            cause=f"membership {len(history_of(pool_log, member.name))}",
        )
