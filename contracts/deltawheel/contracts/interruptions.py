"""What interrupts the stream: outages of dependencies, deferred records, halted partitions.

Each is a row, so that it outlives the process that met it, and can be shown and accounted for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from deltawheel.contracts.dead_letter import DeadLetter
from deltawheel.contracts.events import InboundMessage
from deltawheel.contracts.ids import content_id, digest_of
from deltawheel.contracts.prompt import PromptKey
from deltawheel.contracts.record import Record

__all__ = [
    "Backlog",
    "Deferral",
    "Deferrals",
    "Halt",
    "Halts",
    "Outage",
    "Outages",
    "UnsentLetters",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """A span in which a dependency did not answer, as one process saw it through its breaker."""

    dependency: str
    began_at: datetime
    ended_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Deferral:
    """A record that kept failing while others succeeded: it waits in the store, not in its topic.

    `deadline_at` moves forward by what interrupts `dependency` meanwhile.
    """

    message: InboundMessage
    service: str
    reason: str
    dependency: str | None
    tries: int
    prompt_key: PromptKey | None
    deferred_at: datetime
    due_at: datetime
    deadline_at: datetime

    @property
    def deferral_id(self) -> str:
        """The same bytes of a topic, deferred by a service, are one row however often they come."""
        message = self.message
        parts = (None if part is None else digest_of(part) for part in (message.value, message.key))
        return content_id("deferral", 1, message.topic, self.service, *parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """How many records of a service are deferred, and since when the oldest is."""

    service: str
    num_records: int
    oldest_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Halt:
    """A partition that a service does not go on with until an operator says so.

    `offset` is that of the record at which it stopped.
    """

    service: str
    topic: str
    partition: int
    offset: int
    reason: str
    halted_at: datetime


class Outages(Protocol):
    """Spans in which nothing could be expected of a dependency, hence nothing expires."""

    def note_outages(self, outages: Sequence[Outage]) -> None:
        """Store spans; one of the same beginning is prolonged, never shortened."""
        ...

    def outages(self, *, since: datetime) -> list[Outage]:
        """Return the spans that ended after this moment, the oldest first."""
        ...

    def interruption(
        self, since: datetime, until: datetime, *, dependency: str | None
    ) -> timedelta:
        """Return for how much of this span the wheel stood still or was without store or broker.

        That of one further dependency counts too, where it is named. Spans that overlap count once.
        """
        ...


class Deferrals(Protocol):
    """Records that wait in the store for their next try."""

    def add_deferrals(self, deferrals: Sequence[Deferral]) -> None:
        """Store deferred records; nothing happens to those that are there already.

        That their prompts were held up by it stays on record when they are done: the audit asks.
        """
        ...

    def claim_deferrals(
        self,
        service: str,
        *,
        at: datetime,
        until: datetime,
        limit: int,
        down: frozenset[str] = frozenset(),
    ) -> list[Deferral]:
        """Take due records, the longest due first, and let them be due again at `until`.

        So another member takes over from one that dies. Those that wait for a dependency that is
        `down`, and those of halted partitions, are left alone.
        """
        ...

    def claim_probe(
        self, service: str, dependency: str, *, at: datetime, until: datetime
    ) -> list[Deferral]:
        """Take one due record that waits for this dependency, to find out whether it is up."""
        ...

    def postpone_deferrals(self, deferrals: Sequence[Deferral]) -> None:
        """Write when and why records are to be tried again."""
        ...

    def end_deferrals(self, deferral_ids: Sequence[str]) -> None:
        """These records are done."""
        ...

    def backlogs(self) -> list[Backlog]:
        """Return what is deferred, a line for each service that has any."""
        ...


class Halts(Protocol):
    """Partitions that wait for an operator."""

    def add_halts(self, halts: Sequence[Halt]) -> None:
        """Store halts; of a partition that is halted already, the first one stands."""
        ...

    def halts(self, service: str | None = None) -> list[Halt]:
        """Return the halts that nobody has ended, the oldest first."""
        ...

    def resume_halts(self, halts: Sequence[Halt], *, by: str, at: datetime) -> list[Halt]:
        """End halts; return those that nobody had ended before."""
        ...

    def holds(self, record: Record) -> bool:
        """Whether this wheel's rows have what the record speaks of."""
        ...


class UnsentLetters(Protocol):
    """Dead letters whose message may not have reached its topic: the row comes first."""

    def unsent_letters(self, service: str, *, before: datetime, limit: int) -> list[DeadLetter]:
        """Return letters of a service that died before this and were not noted as sent."""
        ...

    def note_sent(self, letter_ids: Sequence[str]) -> None:
        """The broker has acknowledged these."""
        ...
