"""The loop's decisions, without input or output: no thread, clock or randomness in here.

What is in flight, what may be committed, what to hold back. The polling thread tells it what
happened and asks what to do, so every order of events can be played in a test.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from itertools import groupby

from deltawheel.contracts.ports import TopicPartition

__all__ = ["Flow", "Ticket"]

_RESUME_SHARE = 0.5
_REMEMBERED = 2_000
"""Records of a partition among which refusals in a row are looked for."""


class _Fate(Enum):
    """What became of a record, as far as it tells whether the deployment works."""

    OPEN = "open"
    DONE = "done"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Ticket:
    """A record in flight. The epoch tells two assignments of one partition apart."""

    partition: TopicPartition
    offset: int
    epoch: int


@dataclass(slots=True)
class _Partition:
    epoch: int
    in_flight: dict[int, int] = field(default_factory=dict)
    """Offsets in work, with the bytes that each keeps in memory."""
    num_bytes: int = 0
    next_offset: int | None = None
    committed: int | None = None
    """The offset from which the broker would go on, as far as it is known here."""
    is_checked: bool = False
    """Whether it is known that nobody has halted it."""
    is_halted: bool = False
    _begun: deque[int] = field(default_factory=deque)
    """Offsets in the order in which they began, which is theirs; done ones leave in front."""
    _fates: dict[int, _Fate] = field(default_factory=dict)
    """The latest offsets in the same order, less those that tell nothing."""

    def begin(self, offset: int, num_bytes: int) -> None:
        self.in_flight[offset] = num_bytes
        self.num_bytes += num_bytes
        self._begun.append(offset)
        self._fates[offset] = _Fate.OPEN
        self.next_offset = offset + 1
        while len(self._fates) > _REMEMBERED:
            first = next(iter(self._fates))
            if first in self.in_flight:
                break
            del self._fates[first]

    def finish(self, offset: int, *, is_done: bool) -> None:
        self.num_bytes -= self.in_flight.pop(offset, 0)
        if is_done and offset in self._fates:
            self._fates[offset] = _Fate.DONE
        elif self._fates.get(offset) is _Fate.OPEN:
            del self._fates[offset]

    def refuse(self, offset: int) -> int:
        """Return the longest run of refused records, by their offsets.

        Not by the order in which they end: refusing takes less time than doing does.
        """
        self._fates[offset] = _Fate.REFUSED
        runs = groupby(self._fates.values(), key=lambda fate: fate is _Fate.REFUSED)
        return max(sum(1 for _ in run) for is_refused, run in runs if is_refused)

    def forgive(self) -> None:
        """Forget which records were refused."""
        self._fates = dict.fromkeys(sorted(self.in_flight), _Fate.OPEN)

    @property
    def is_held_back(self) -> bool:
        return self.is_halted or not self.is_checked

    @property
    def watermark(self) -> int | None:
        """The lowest offset not done; everything below it may be committed."""
        while self._begun and self._begun[0] not in self.in_flight:
            self._begun.popleft()
        return self._begun[0] if self._begun else self.next_offset


@dataclass(slots=True, kw_only=True)
class Flow:
    """Bounded work over partitions that come and go.

    Work stops being fetched at `limit` records or `max_bytes` in flight and begins again at half of
    that, so that pausing does not flutter. A partition halts once too many records whose offsets
    follow one another were refused though the store knows what they speak of: then the deployment
    is wrong and not the records, which wait without counting. Those of one that has just come wait
    until it is known whether another member has halted it.
    """

    limit: int
    max_bytes: int = 64_000_000
    max_refused: int = 20
    _partitions: dict[TopicPartition, _Partition] = field(default_factory=dict)
    _epoch: int = 0
    _is_paused: bool = False
    _halting: dict[TopicPartition, tuple[int, str]] = field(default_factory=dict)

    @property
    def num_in_flight(self) -> int:
        """How many records are in work; those of halted partitions only wait."""
        return sum(len(state.in_flight) for state in self._working())

    def _working(self) -> Iterable[_Partition]:
        return (state for state in self._partitions.values() if not state.is_halted)

    @property
    def is_paused(self) -> bool:
        """Whether so much is in flight that nothing is fetched."""
        return self._is_paused

    @property
    def epoch(self) -> int:
        """Another one than before says that partitions have come since, or have come again."""
        return self._epoch

    def assign(self, held: Iterable[TopicPartition]) -> None:
        """Take note of the partitions that this member holds now.

        One that is gone is forgotten with everything in flight; one that comes, or comes again,
        begins anew: late results of its earlier assignment no longer count.
        """
        held = set(held)
        for gone in self._partitions.keys() - held:
            del self._partitions[gone]
        for new in held - self._partitions.keys():
            self._begin_anew(new)

    def _begin_anew(self, name: TopicPartition) -> _Partition:
        self._epoch += 1
        self._partitions[name] = _Partition(epoch=self._epoch)
        return self._partitions[name]

    def begin(self, partition: TopicPartition, offset: int, *, num_bytes: int = 0) -> Ticket | None:
        """Put a polled record in flight; None if it is in flight or done already, or not ours.

        One from below the committed offset says that the broker has lost its log, or an operator
        has turned the group back: the partition begins anew.
        """
        state = self._partitions.get(partition)
        if state is None:
            return None
        if state.committed is not None and offset < state.committed:
            state = self._begin_anew(partition)
        if state.next_offset is not None and offset < state.next_offset:
            return None
        if state.committed is None:
            state.committed = offset
        state.begin(offset, num_bytes)
        return Ticket(partition, offset, state.epoch)

    def is_current(self, ticket: Ticket) -> bool:
        """Whether the ticket's partition is still held under the same assignment."""
        return self._state(ticket) is not None

    def _state(self, ticket: Ticket) -> _Partition | None:
        state = self._partitions.get(ticket.partition)
        return state if state is not None and state.epoch == ticket.epoch else None

    def finish(self, ticket: Ticket, *, is_done: bool = True) -> None:
        """The record is over: its effects are stored and its events acknowledged.

        One that is no dead letter and not deferred, but `is_done`, shows that the deployment works.
        """
        state = self._state(ticket)
        if state is not None:
            state.finish(ticket.offset, is_done=is_done)

    def commits(self) -> dict[TopicPartition, int]:
        """Return the next offset to read of each partition whose watermark has moved."""
        return {
            name: mark
            for name, state in self._partitions.items()
            if (mark := state.watermark) is not None and mark != state.committed
        }

    def committed(self, offsets: Mapping[TopicPartition, int]) -> None:
        """These offsets are with the broker."""
        for name, offset in offsets.items():
            if state := self._partitions.get(name):
                state.committed = offset

    def should_pause(self) -> bool:
        """Decide whether to hold everything back, with hysteresis."""
        share = _RESUME_SHARE if self._is_paused else 1.0
        num_bytes = sum(state.num_bytes for state in self._working())
        is_full = num_bytes >= share * self.max_bytes
        self._is_paused = is_full or self.num_in_flight >= share * self.limit
        return self._is_paused

    # partitions that are halted

    def halted(self) -> frozenset[TopicPartition]:
        """Return the partitions that nothing is to be fetched from."""
        return frozenset(name for name, state in self._partitions.items() if state.is_halted)

    def is_held_back(self, ticket: Ticket) -> bool:
        """Whether the ticket's record has to wait."""
        state = self._state(ticket)
        return state is not None and state.is_held_back

    def refuse(self, ticket: Ticket, reason: str) -> bool:
        """A record is to be a dead letter though the store knows what it speaks of.

        Returns whether it may be. It may not once that was so too often in a row: the partition is
        halted, and the record waits with the others.
        """
        state = self._state(ticket)
        if state is None or state.is_held_back:
            return False
        if state.refuse(ticket.offset) < self.max_refused:
            return True
        state.is_halted = True
        self._halting[ticket.partition] = ticket.offset, reason
        return False

    def halting(self) -> dict[TopicPartition, tuple[int, str]]:
        """Return the halts that are not written down yet: of which record, and why."""
        return dict(self._halting)

    def unchecked(self) -> dict[TopicPartition, int]:
        """Return the partitions of which it is not known whether they are halted, with epochs."""
        return {name: s.epoch for name, s in self._partitions.items() if not s.is_checked}

    def halts_read(
        self,
        halted: Iterable[TopicPartition],
        *,
        written: Iterable[TopicPartition] = (),
        unchecked: Mapping[TopicPartition, int],
    ) -> None:
        """Take note of all halts that are written down.

        What `halting` and `unchecked` gave before the reading has to come back as `written` and
        `unchecked`: what has changed meanwhile waits for the next reading.
        """
        for name in written:
            self._halting.pop(name, None)
        known = set(halted)
        for name, state in self._partitions.items():
            state.is_checked = state.is_checked or unchecked.get(name) == state.epoch
            is_halted = name in known or name in self._halting
            if state.is_halted and not is_halted:
                state.forgive()
            state.is_halted = is_halted
