"""Publishing in batches, and hearing from it whether the broker answers."""

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence

from deltawheel.contracts.clock import Clock
from deltawheel.contracts.errors import BROKER, InvalidRecordError
from deltawheel.contracts.events import OutboundMessage, encode, event_id
from deltawheel.contracts.ports import Producer, Telemetry
from deltawheel.contracts.record import Record
from deltawheel.services.runtime.batching import MicroBatcher
from deltawheel.services.runtime.dependencies import Dependencies
from deltawheel.services.runtime.offload import offload

__all__ = ["Publisher"]

log = logging.getLogger("deltawheel.runtime")

_MAX_ITEMS = 1_000


class Publisher:
    """Publishes what records and ticks give out: many of them in one call of the producer's."""

    def __init__(
        self,
        producer: Producer,
        *,
        wheel: str,
        service: str,
        clock: Clock,
        telemetry: Telemetry,
        dependencies: Dependencies,
    ) -> None:
        self._producer = producer
        self._wheel = wheel
        self._service = service
        self._telemetry = telemetry
        self._dependencies = dependencies
        self._publish: MicroBatcher[Sequence[OutboundMessage], None] = MicroBatcher(
            self._publish_batch, max_items=_MAX_ITEMS, clock=clock
        )

    async def publish_events(self, events: Sequence[Record]) -> None:
        """Return when the broker has acknowledged all of them.

        Raises:
            RetryLaterError: it has not; publishing all of them again is safe.
            InvalidRecordError: one of them is larger than it takes.
        """
        if events:
            await self.publish(
                [encode(event, wheel=self._wheel, service=self._service) for event in events]
            )

    async def publish_acceptable(self, events: Sequence[Record]) -> None:
        """Publish each for itself; what is larger than the broker takes is an error in the log.

        For what the store holds already: nobody could refuse it any more, and whatever stands
        beside it must not wait for it.

        Raises:
            RetryLaterError: as above.
        """
        await asyncio.gather(*map(self._publish_or_say, events))

    async def _publish_or_say(self, event: Record) -> None:
        try:
            await self.publish_events([event])
        except InvalidRecordError as error:
            refusal = str(error)
        else:
            return
        log.error("%s (%s) is not published: %s", event_id(event), type(event).__name__, refusal)

    async def publish(self, messages: Sequence[OutboundMessage]) -> None:
        """Return when the broker has acknowledged every message; raises as above."""
        await self._publish(messages)

    async def _publish_batch(self, batch: Sequence[Sequence[OutboundMessage]]) -> Sequence[None]:
        messages = [message for part in batch for message in part]
        await offload(self._producer.publish, messages)
        self._dependencies.succeeded(BROKER)
        for name, count in Counter(message.topic for message in messages).items():
            topic = name.removeprefix(f"{self._wheel}.")
            self._telemetry.count("deltawheel_events_published_total", count, topic=topic)
        return [None] * len(batch)
