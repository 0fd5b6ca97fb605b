"""What the loop does beside records: outages and halts as rows, deferred records, letters."""

import asyncio
import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from deltawheel.contracts.clock import Clock
from deltawheel.contracts.errors import STORE, RetryLaterError
from deltawheel.contracts.interruptions import Halt
from deltawheel.contracts.ports import Telemetry, TopicPartition
from deltawheel.services.runtime.backoff import sleep_unless
from deltawheel.services.runtime.carrier import Carrier, LoopLedger
from deltawheel.services.runtime.dead_letters import as_text
from deltawheel.services.runtime.deferred_work import DeferredWork
from deltawheel.services.runtime.dependencies import Dependencies
from deltawheel.services.runtime.flow import Flow
from deltawheel.services.runtime.offload import offload

__all__ = ["Upkeep"]

log = logging.getLogger("deltawheel.runtime")

_RESEND_AFTER: Final = timedelta(seconds=30)
_RESEND_MAX: Final = 100
_MAX_REASON_CHARS: Final = 2_000


@dataclass(slots=True, kw_only=True)
class Upkeep:
    """Looks around at an interval, and at once where somebody waits for it.

    One pass does one thing after the other, so that a halt is always written before halts are
    read. `lock` guards the flow, which the polling thread uses too.
    """

    service: str
    flow: Flow
    lock: threading.Lock
    ledger: LoopLedger
    carrier: Carrier
    deferred: DeferredWork
    dependencies: Dependencies
    clock: Clock
    telemetry: Telemetry
    interval_s: float
    _woken: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _changed: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _halted: frozenset[TopicPartition] = field(default=frozenset(), init=False)
    _epoch: int = field(default=0, init=False)

    async def run(self) -> None:
        """Look around until cancelled."""
        while True:
            self._woken.clear()
            await self.look()
            await sleep_unless(self._woken, self.interval_s, clock=self.clock)

    def wake(self) -> None:
        """Look around at once."""
        self._woken.set()

    async def halts_changed(self) -> None:
        """Wait until another set of partitions is held back than now."""
        await self._changed.wait()

    async def look(self) -> None:
        """Do what is due; a store that is down is left alone but for a probe."""
        if not self.dependencies.enter((STORE,)):
            return
        try:
            await self._note_outages()
            await self._see_to_halts()
            await self._note_sent()
            await self.deferred.work_off()
            await self._send_again()
        except RetryLaterError as error:
            self.dependencies.note_shared(error)
            log.warning("upkeep is put off: %s", error)
        finally:
            self.dependencies.leave((STORE,))

    async def close(self) -> None:
        """Write down what is known, for a member that leaves; what cannot be written is lost."""
        try:
            await self._note_outages()
            await self._note_sent()
        except RetryLaterError as error:
            log.warning("the last outages or letters are not noted: %s", error)

    async def _note_outages(self) -> None:
        self.dependencies.forget_idle()
        downtimes = self.dependencies.breakers.downtimes()
        if not downtimes:
            return
        at, at_s = self.clock.now(), self.clock.monotonic()
        ended = [downtime for downtime in downtimes if downtime.ended_s is not None]
        rows = [downtime.as_outage(at=at, at_s=at_s) for downtime in downtimes]
        await offload(self.ledger.note_outages, rows)
        self.dependencies.breakers.written(ended)
        self.dependencies.succeeded(STORE)

    async def _see_to_halts(self) -> None:
        with self.lock:
            unchecked, halting = self.flow.unchecked(), self.flow.halting()
            epoch = self.flow.epoch
        if halting:
            await self._halt(halting)
        rows = await offload(self.ledger.halts, self.service)
        halted = {TopicPartition(row.topic, row.partition) for row in rows}
        with self.lock:
            self.flow.halts_read(halted, written=halting, unchecked=unchecked)
            now_halted = self.flow.halted()
        self.telemetry.set("deltawheel_halted_partitions", len(now_halted))
        # Compared with the last pass: records of a partition that has gone meanwhile wait as well,
        # and so do those of one that came and went since.
        if (epoch, now_halted) != (self._epoch, self._halted):
            self._changed.set()
            self._changed = asyncio.Event()
        self._epoch, self._halted = epoch, now_halted

    async def _halt(self, halting: Mapping[TopicPartition, tuple[int, str]]) -> None:
        at = self.clock.now()
        halts = [
            Halt(
                service=self.service,
                topic=name.topic,
                partition=name.partition,
                offset=offset,
                reason=f"{self.flow.max_refused} records in a row are invalid though the store "
                f"knows what they speak of; the last: {as_text(reason[:_MAX_REASON_CHARS])}",
                halted_at=at,
            )
            for name, (offset, reason) in halting.items()
        ]
        await offload(self.ledger.add_halts, halts)
        for halt in halts:
            log.critical(
                "%s is halted at partition %d of %s, offset %d: %s. Put the deployment right, then "
                "run: deltawheel resume",
                halt.service,
                halt.partition,
                halt.topic,
                halt.offset,
                halt.reason,
            )

    async def _note_sent(self) -> None:
        if sent := self.carrier.take_sent():
            await offload(self.ledger.note_sent, sent)

    async def _send_again(self) -> None:
        """Publish letters whose process died between row and topic."""
        before = self.clock.now() - _RESEND_AFTER
        letters = await offload(
            self.ledger.unsent_letters, self.service, before=before, limit=_RESEND_MAX
        )
        if letters:
            await self.carrier.send(letters)
