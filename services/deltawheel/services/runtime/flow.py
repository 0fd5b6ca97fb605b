"""The loop's decisions, without input or output: no thread, clock or randomness in here.

What is in flight, what may be committed, when to pause, when to try again. The polling thread
tells it what happened and asks what to do, so every order of events can be played in a test.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from deltawheel.contracts.ports import TopicPartition

__all__ = ["Flow", "Ticket", "retry_pause_s"]

_RESUME_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Ticket:
    """A record in flight. The epoch tells two assignments of one partition apart."""

    partition: TopicPartition
    offset: int
    epoch: int


@dataclass(slots=True)
class _Partition:
    epoch: int
    in_flight: set[int] = field(default_factory=set)
    next_offset: int | None = None
    committed: int | None = None
    """The offset from which the broker would go on, as far as it is known here."""

    @property
    def watermark(self) -> int | None:
        """The lowest offset not done; everything below it may be committed."""
        return min(self.in_flight) if self.in_flight else self.next_offset


@dataclass(slots=True, kw_only=True)
class Flow:
    """Bounded work over partitions that come and go.

    Work stops being fetched at `limit` records in flight and begins again at half of that, so that
    pausing does not flutter.
    """

    limit: int
    _partitions: dict[TopicPartition, _Partition] = field(default_factory=dict)
    _epoch: int = 0
    _is_paused: bool = False

    @property
    def num_in_flight(self) -> int:
        """How many records are in work."""
        return sum(len(partition.in_flight) for partition in self._partitions.values())

    @property
    def is_paused(self) -> bool:
        """Whether partitions are held back."""
        return self._is_paused

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

    def begin(self, partition: TopicPartition, offset: int) -> Ticket | None:
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
        state.in_flight.add(offset)
        state.next_offset = offset + 1
        return Ticket(partition, offset, state.epoch)

    def is_current(self, ticket: Ticket) -> bool:
        """Whether the ticket's partition is still held under the same assignment."""
        state = self._partitions.get(ticket.partition)
        return state is not None and state.epoch == ticket.epoch

    def finish(self, ticket: Ticket) -> None:
        """The record is done: its effects are stored and its events acknowledged."""
        if self.is_current(ticket):
            self._partitions[ticket.partition].in_flight.discard(ticket.offset)

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
        """Decide whether to hold partitions back, with hysteresis."""
        bound = self.limit * _RESUME_SHARE if self._is_paused else self.limit
        self._is_paused = self.num_in_flight >= bound
        return self._is_paused


def retry_pause_s(
    attempt: int, *, base_s: float, cap_s: float, jitter: float, at_least_s: float | None = None
) -> float:
    """Return the pause before try `attempt` + 1: exponential with full jitter, in seconds.

    Full jitter (a uniform share of the exponential bound) spreads retries of many members best:
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/. `jitter` is in
    [0, 1); `at_least_s` is what the other side asked for.
    """
    bound = min(cap_s, base_s * 2.0 ** min(attempt, 40))
    return max(bound * jitter, base_s / 10, at_least_s or 0.0)
