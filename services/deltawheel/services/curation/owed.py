"""Owed events: published again, from the store, until their effect is there.

An event is owed while its effect is missing (ARCHITECTURE §4.3). So a gateway killed between
insert and publish strands nothing, on any broker, and a memory-only broker can be refilled.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from deltawheel.contracts.clock import Clock
from deltawheel.contracts.errors import InvalidRecordError
from deltawheel.contracts.events import OutboundMessage, encode, event_id
from deltawheel.contracts.ports import Producer
from deltawheel.contracts.record import Record
from deltawheel.contracts.store import Ledger

__all__ = ["OwedSchedule", "republish_all"]

log = logging.getLogger("deltawheel.curation")

_PAGE = 1_000


@dataclass(slots=True, kw_only=True)
class OwedSchedule:
    """Which owed events are due now: each waits twice as long as the time before, up to an hour.

    Only what was really published counts. Kept in memory only: after a restart all of them are due
    once, which costs events that their consumers recognise.
    """

    first_wait_s: float
    longest_wait_s: float = 3_600.0
    _due: dict[str, tuple[datetime, float]] = field(default_factory=dict)
    _owed: set[str] = field(default_factory=set)

    def due(self, owed: list[Record], *, at: datetime, is_last: bool = True) -> list[Record]:
        """Return those of a page to publish now.

        After the last page of all that is owed, those that were on none are owed no longer, and
        forgotten.
        """
        names = {event_id(record): record for record in owed}
        self._owed.update(names)
        if is_last:
            self._due = {name: due for name, due in self._due.items() if name in self._owed}
            self._owed.clear()
        return [
            record
            for name, record in names.items()
            if name not in self._due or self._due[name][0] <= at
        ]

    def published(self, records: Sequence[Record], *, at: datetime) -> None:
        """Let each of these wait, for twice as long as the time before."""
        for name in map(event_id, records):
            _, wait_s = self._due.get(name, (at, self.first_wait_s))
            longest_s = max(self.longest_wait_s, self.first_wait_s)
            self._due[name] = (at + timedelta(seconds=wait_s), min(2 * wait_s, longest_s))


def republish_all(ledger: Ledger, producer: Producer, clock: Clock, *, wheel: str) -> int:
    """Publish everything that is owed, after a broker that forgot was started afresh.

    Nobody reads topics while it runs, so one pass sees all of it; prompts that come meanwhile are
    published by the gateway, or owed. Returns the count, less what is larger than the broker
    takes: that is an error in the log.

    Raises:
        RetryLaterError: the broker does not answer.
    """
    return sum(
        _publish([encode(record, wheel=wheel, service="supervisor") for record in page], producer)
        for page in _pages(ledger, clock)
    )


def _publish(messages: Sequence[OutboundMessage], producer: Producer) -> int:
    """Publish them, by halves where the broker will not take one of them; return how many."""
    try:
        producer.publish(messages)
    except InvalidRecordError as error:
        refusal = str(error)
    else:
        return len(messages)
    if len(messages) > 1:
        middle = len(messages) // 2
        return _publish(messages[:middle], producer) + _publish(messages[middle:], producer)
    name = dict(messages[0].headers)["ce_id"].decode()
    log.error("%s (%s) is not published: %s", name, messages[0].topic, refusal)
    return 0


def _pages(ledger: Ledger, clock: Clock) -> Iterator[list[Record]]:
    owed = ledger.owed(before=clock.now() + timedelta(days=1), limit=10_000_000)
    for start in range(0, len(owed), _PAGE):
        yield owed[start : start + _PAGE]
