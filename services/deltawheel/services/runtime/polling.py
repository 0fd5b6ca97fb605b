"""What the polling thread does: it alone touches the consumer, and it never waits for work."""

import logging
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from deltawheel.contracts.clock import Clock
from deltawheel.contracts.errors import RetryLaterError
from deltawheel.contracts.events import InboundMessage
from deltawheel.contracts.ports import Consumer, Telemetry, TopicPartition
from deltawheel.contracts.settings import RuntimeSettings
from deltawheel.services.runtime.dependencies import Dependencies
from deltawheel.services.runtime.flow import Flow, Ticket

__all__ = ["Polled", "Polling"]

log = logging.getLogger("deltawheel.runtime")

_LAG_EVERY_S: Final = 2.0
_POLLED_OF_LATE_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Polled:
    """What one poll has brought to the attention of the asyncio thread."""

    records: Sequence[tuple[Ticket, InboundMessage]]
    is_unchecked: bool
    """Whether partitions have come of which it is not known whether they are halted."""
    has_heard: bool
    """Whether the broker has answered, as far as nobody in work could tell."""


@dataclass(slots=True, kw_only=True)
class Polling:
    """One member's side of the group: records in, offsets out, partitions held or released.

    `lock` guards the flow, which the asyncio thread uses too. `num_beside` says how many records
    that come from no topic are in work.
    """

    consumer: Consumer
    flow: Flow
    lock: threading.Lock
    dependencies: Dependencies
    clock: Clock
    telemetry: Telemetry
    settings: RuntimeSettings
    wheel: str
    num_beside: Callable[[], int]
    _ready_until_s: float = field(default=-math.inf, init=False)
    _paused: frozenset[TopicPartition] = field(default=frozenset(), init=False)
    _next_lag_s: float = field(default=0.0, init=False)
    _shown: frozenset[TopicPartition] = field(default=frozenset(), init=False)

    @property
    def is_ready(self) -> bool:
        """Whether this member has its share and polls for it; may be asked from any thread.

        A member that the group gives nothing, having more members than partitions, is ready too.
        """
        return self.clock.monotonic() < self._ready_until_s

    def poll(self) -> Polled:
        """Take in what has arrived, and hold or release partitions.

        Raises:
            RetryLaterError: the broker cannot be reached.
        """
        messages = self.consumer.poll(self.settings.poll_timeout_s)
        held = self.consumer.assigned()
        has_joined = self.consumer.has_joined()
        ready_for_s = _POLLED_OF_LATE_S + self.settings.poll_timeout_s
        self._ready_until_s = self.clock.monotonic() + ready_for_s if has_joined else -math.inf
        with self.lock:
            self.flow.assign(held)
            begun = [(self._begin(message), message) for message in messages]
            should_pause = self.flow.should_pause()
            num_in_flight = self.flow.num_in_flight
            halted = self.flow.halted()
            is_unchecked = bool(self.flow.unchecked())
        self.telemetry.set("deltawheel_in_flight_records", num_in_flight)
        is_held = should_pause or self._is_blocked(num_in_flight)
        self._hold(held if is_held else halted & held)
        return Polled(
            records=[(ticket, message) for ticket, message in begun if ticket is not None],
            is_unchecked=is_unchecked,
            has_heard=bool(messages) or (has_joined and not num_in_flight),
        )

    def _begin(self, message: InboundMessage) -> Ticket | None:
        return self.flow.begin(
            TopicPartition(message.topic, message.partition),
            message.offset,
            num_bytes=len(message.value or b"") + len(message.key or b""),
        )

    def _is_blocked(self, num_in_flight: int) -> bool:
        """Whether to fetch nothing because nothing could be done with it.

        Once a probe is due and nothing in work could be it, something is fetched that can.
        """
        blocked_s = self.dependencies.blocked_s()
        if blocked_s is None:
            return False
        return blocked_s > 0 or num_in_flight + self.num_beside() > 0

    def _hold(self, wanted: frozenset[TopicPartition]) -> None:
        """Pause these partitions and no others.

        Said again at every poll: a rebalance may have given all of them out anew, unpaused, even
        if the same are held after it.
        """
        held = self.consumer.assigned()
        if pause := wanted & held:
            self.consumer.pause(pause)
        if resume := (self._paused - wanted) & held:
            self.consumer.resume(resume)
        if wanted != self._paused:
            self.telemetry.set("deltawheel_paused_partitions", len(wanted))
        self._paused = wanted

    def commit(self) -> bool:
        """Commit, per partition, up to the lowest offset that is not done; False if none moved.

        Raises:
            RetryLaterError: the broker cannot be reached; the offsets are offered again.
        """
        with self.lock:
            offsets = self.flow.commits()
        if not offsets:
            return False
        self.consumer.commit(offsets)
        with self.lock:
            self.flow.committed(offsets)
        return True

    def show_lag(self) -> None:
        """Show, every now and then, how far behind each partition is."""
        now_s = self.clock.monotonic()
        if now_s < self._next_lag_s:
            return
        self._next_lag_s = now_s + _LAG_EVERY_S
        lags = self.consumer.lag()
        gone = dict.fromkeys(self._shown - lags.keys(), 0)
        for name, lag in (*gone.items(), *lags.items()):
            self.telemetry.set(
                "deltawheel_lag_records",
                lag,
                topic=name.topic.removeprefix(f"{self.wheel}."),
                partition=str(name.partition),
            )
        self._shown = frozenset(lags)

    def leave(self, *, is_committing: bool) -> None:
        """Commit what is done, if that is known, and leave the group."""
        try:
            if is_committing:
                self.commit()
        except RetryLaterError as error:
            log.warning("the last offsets are not committed, their records come again: %s", error)
        try:
            self.consumer.close()
        except RetryLaterError as error:
            log.warning("the group is left without a word: %s", error)
