"""Carrying one message through: effects before events, whether it comes from a topic or a row."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

from deltawheel.contracts.clock import Clock
from deltawheel.contracts.dead_letter import Burial, DeadLetter
from deltawheel.contracts.errors import DeltawheelError, InvalidRecordError
from deltawheel.contracts.events import InboundMessage, decode
from deltawheel.contracts.failpoints import Failpoint
from deltawheel.contracts.interruptions import Deferrals, Halts, Outages, UnsentLetters
from deltawheel.contracts.judgement import Judgement, SlotFailed
from deltawheel.contracts.ports import Failpoints
from deltawheel.contracts.record import Record
from deltawheel.contracts.settings import Settings
from deltawheel.services.runtime.batching import batched_in_a_thread
from deltawheel.services.runtime.dead_letters import as_message, make_letter
from deltawheel.services.runtime.handler import Handler
from deltawheel.services.runtime.offload import offload
from deltawheel.services.runtime.publisher import Publisher

__all__ = ["Carrier", "LoopLedger", "RefusedError"]

log = logging.getLogger("deltawheel.runtime")

_MAX_BURIALS = 100
"""Of one transaction; each may have megabytes."""


class LoopLedger(Outages, Deferrals, Halts, UnsentLetters, Protocol):
    """What the loop itself needs of the store, and nothing more."""

    def bury(self, burials: Sequence[Burial]) -> list[list[SlotFailed | Judgement]]:
        """Store dead letters, and in the same transaction the slot ends that they cause.

        Return, for each, what ended those slots, which may be something earlier.

        Raises:
            RetryLaterError: the database is busy or away.
        """
        ...


class RefusedError(Exception):
    """The message can never be processed; `record` is what it says, if that can be read."""

    def __init__(self, record: Record | None, cause: DeltawheelError) -> None:
        super().__init__(str(cause))
        self.record = record
        self.cause = cause


class Carrier:
    """Has the handler do a record, publishes what it gives out, and buries what is refused."""

    def __init__(
        self,
        handler: Handler,
        *,
        ledger: LoopLedger,
        publisher: Publisher,
        clock: Clock,
        settings: Settings,
        failpoints: Failpoints,
    ) -> None:
        self._handler = handler
        self._ledger = ledger
        self._publisher = publisher
        self._clock = clock
        self._wheel = settings.wheel
        self._max_message_bytes = settings.broker.max_message_bytes
        self._failpoints = failpoints
        self._bury = batched_in_a_thread(ledger.bury, max_items=_MAX_BURIALS, clock=clock)
        self._sent: list[str] = []

    async def carry(self, message: InboundMessage) -> None:
        """Return when the effects are stored and the events acknowledged.

        Raises:
            RefusedError: it is invalid, and nothing was done; or an event that it gives out, and
                that is stored by now, is larger than the broker takes.
            RetryLaterError: the world is not ready.
        """
        record: Record | None = None
        try:
            record = decode(message, wheel=self._wheel)
            events = await self._handler.handle(record)
            if events:
                await self._reach(Failpoint.RUNTIME_STORED, message)
            await self._publisher.publish_events(events)
        except InvalidRecordError as error:
            raise RefusedError(record, error) from error
        await self._reach(Failpoint.RUNTIME_PUBLISHED, message)

    async def _reach(self, point: Failpoint, message: InboundMessage) -> None:
        where = f"{message.topic}:{message.partition}:{message.offset}"
        await self._failpoints.reach(point, f"{self._handler.name} {where}")

    async def is_known(self, refused: RefusedError) -> bool:
        """Whether a refused record speaks of something that the store holds."""
        record = refused.record
        return record is not None and await offload(self._ledger.holds, record)

    async def bury(
        self, message: InboundMessage, refused: RefusedError, *, deferral_id: str | None = None
    ) -> None:
        """Store the dead letter with the slot ends that it causes, then publish what is stored.

        A deferral that it was ends in the same transaction.
        """
        at = self._clock.now()
        record, reason = refused.record, str(refused)
        caused: Sequence[SlotFailed] = ()
        if record is not None:
            caused = await offload(self._handler.slot_ends, record, reason, at)
        letter = make_letter(
            message, record, refused.cause, service=self._handler.name, at=at, caused=caused
        )
        ends = await self._bury(Burial(letter, caused, deferral_id))
        log.warning("%s:%d is a dead letter: %s", message.topic, message.offset, reason)
        await self._reach(Failpoint.RUNTIME_BURIED, message)
        await self.send([letter])
        await self._publisher.publish_acceptable(ends)

    async def send(self, letters: Sequence[DeadLetter]) -> None:
        """Publish letters to the dead-letters topic, as `take_sent` will tell."""
        await asyncio.gather(*map(self._send, letters))

    async def _send(self, letter: DeadLetter) -> None:
        whole = as_message(letter, wheel=self._wheel, max_bytes=self._max_message_bytes)
        try:
            await self._publisher.publish([whole])
        except InvalidRecordError:  # the broker's own limit is below the one of the settings
            await self._publisher.publish([as_message(letter, wheel=self._wheel, max_bytes=0)])
        self._sent.append(letter.letter_id)

    def take_sent(self) -> list[str]:
        """Return, once, the letters whose message the broker has acknowledged."""
        sent, self._sent = self._sent, []
        return sent
