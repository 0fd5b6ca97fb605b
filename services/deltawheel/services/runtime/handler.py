"""What a service brings to the loop."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from deltawheel.contracts.judgement import SlotFailed
from deltawheel.contracts.record import Record
from deltawheel.contracts.topics import Topic

__all__ = ["Handler", "Tick"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """Work that is due again and again; what it returns is published like any handler's result.

    `on_published` is told once the broker has all of it, and not at all where it has not.
    """

    name: str
    interval_s: float
    run: Callable[[], Awaitable[Sequence[Record]]]
    on_published: Callable[[Sequence[Record]], None] = lambda events: None


class Handler(Protocol):
    """Turns one record into effects in the store and events to publish.

    It speaks to the loop through errors: `InvalidRecordError` asks for a dead letter,
    `RetryLaterError` for another try, anything else stops the process without committing.
    """

    @property
    def name(self) -> str:
        """The service's name: its consumer group and the source of its events."""
        ...

    @property
    def topics(self) -> tuple[Topic, ...]:
        """What it consumes."""
        ...

    @property
    def concurrency(self) -> int:
        """How many records may be in work at the same time."""
        ...

    @property
    def ticks(self) -> Sequence[Tick]:
        """What is due again and again."""
        ...

    async def handle(self, record: Record) -> Sequence[Record]:
        """Return what the store holds, to be published; by then every effect is in it."""
        ...

    def slot_ends(self, record: Record, reason: str, at: datetime) -> Sequence[SlotFailed]:
        """Return the slot ends that refusing this record causes; called from a thread, may block.

        They are written with the dead letter in one transaction.
        """
        ...
