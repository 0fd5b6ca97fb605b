"""Working off deferred records: a page of due rows at a time, beside what comes from topics."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from deltawheel.contracts.clock import Clock, Random
from deltawheel.contracts.errors import InvalidRecordError, RetryLaterError
from deltawheel.contracts.events import decode
from deltawheel.contracts.interruptions import Deferral
from deltawheel.contracts.ports import Telemetry
from deltawheel.contracts.settings import Settings
from deltawheel.services.runtime.carrier import Carrier, LoopLedger, RefusedError
from deltawheel.services.runtime.deferral import put_off
from deltawheel.services.runtime.deferral_book import DeferralBook
from deltawheel.services.runtime.dependencies import Dependencies
from deltawheel.services.runtime.offload import offload

__all__ = ["DeferredWork"]

log = logging.getLogger("deltawheel.runtime")

_CLAIM: Final = timedelta(minutes=2)
"""How long a row is nobody else's; of a member that dies with it, another takes over after that."""


@dataclass(slots=True, kw_only=True)
class DeferredWork:
    """Tries deferred records again; done ones leave the store, hopeless ones become dead letters.

    A crash at any point leaves the row, and trying twice is harmless: effects are found.
    """

    service: str
    ledger: LoopLedger
    book: DeferralBook
    carrier: Carrier
    dependencies: Dependencies
    clock: Clock
    random: Random
    telemetry: Telemetry
    settings: Settings
    limit: int
    slots: asyncio.Semaphore
    spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
    is_stopping: Callable[[], bool]
    on_room: Callable[[], None]
    num_working: int = field(default=0, init=False)
    _has_more: bool = field(default=False, init=False)

    async def work_off(self) -> None:
        """Begin with as many due rows as there is room for.

        Raises:
            RetryLaterError: the store is busy or away.
        """
        room = self.limit - self.num_working
        if room <= 0:
            return
        at = self.clock.now()
        down = self.dependencies.breakers.open()
        claim = {"at": at, "until": at + _CLAIM}
        found = await offload(
            self.ledger.claim_deferrals, self.service, limit=room, down=down, **claim
        )
        self._has_more = len(found) == room
        for deferral in found:
            self._begin(deferral)
        for dependency in sorted(down):
            if not self.dependencies.wait_s(dependency):
                probe = self.ledger.claim_probe
                for deferral in await offload(probe, self.service, dependency, **claim):
                    self._begin(deferral)

    def _begin(self, deferral: Deferral) -> None:
        self.num_working += 1
        self.spawn(self._work(deferral)).add_done_callback(self._end)

    def _end(self, _: asyncio.Task[None]) -> None:
        self.num_working -= 1
        if self._has_more:
            self._has_more = False
            self.on_room()

    async def _work(self, deferral: Deferral) -> None:
        try:
            async with self.slots:
                if self.is_stopping():
                    return
                result = await self._try(deferral)
            self.telemetry.count("deltawheel_deferred_retries_total", result=result)
        except RetryLaterError as error:
            # The row stays as it is, and is due again once the claim is over.
            log.warning("a deferred record of %s waits: %s", deferral.message.topic, error)

    async def _try(self, deferral: Deferral) -> str:
        try:
            await self.carrier.carry(deferral.message)
        except RefusedError as refused:
            await self._bury(deferral, refused)
            return "dead_letter"
        except RetryLaterError as error:
            return await self._put_off(deferral, error)
        await self.book.end(deferral.deferral_id)
        return "done"

    async def _put_off(self, deferral: Deferral, error: RetryLaterError) -> str:
        later = put_off(
            deferral,
            error,
            at=self.clock.now(),
            settings=self.settings.runtime,
            is_down=self.dependencies.is_down(error.dependency),
            jitter=self.random.random(),
        )
        if await self._is_overdue(later):
            await self._bury(deferral, self._given_up(later))
            return "dead_letter"
        await self.book.postpone(later)
        return "put_off"

    async def _is_overdue(self, deferral: Deferral) -> bool:
        """Whether the deadline is over, less what nobody could have done anything in."""
        now = self.clock.now()
        if now < deferral.deadline_at or self.dependencies.is_down(deferral.dependency):
            return False
        since, needed = deferral.deferred_at, deferral.dependency
        lost = await offload(self.ledger.interruption, since, now, dependency=needed)
        return now >= deferral.deadline_at + lost

    def _given_up(self, deferral: Deferral) -> RefusedError:
        hours = self.settings.runtime.defer_deadline_s / 3_600
        cause = RetryLaterError(
            f"given up after {deferral.tries} tries and {hours:g} h "
            f"(runtime.defer_deadline_s): {deferral.reason}"
        )
        try:
            record = decode(deferral.message, wheel=self.settings.wheel)
        except InvalidRecordError:
            return RefusedError(None, cause)
        return RefusedError(record, cause)

    async def _bury(self, deferral: Deferral, refused: RefusedError) -> None:
        await self.carrier.bury(deferral.message, refused, deferral_id=deferral.deferral_id)
