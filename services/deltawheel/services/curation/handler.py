"""What curation does when a slot has ended."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from deltawheel.contracts.clock import Clock, Random
from deltawheel.contracts.errors import InvalidRecordError
from deltawheel.contracts.events import key_of
from deltawheel.contracts.failpoints import Failpoint
from deltawheel.contracts.judgement import SlotFailed
from deltawheel.contracts.ports import Failpoints, PairChecks, Telemetry
from deltawheel.contracts.prompt import PromptKey
from deltawheel.contracts.record import Record
from deltawheel.contracts.rubric import Rubric
from deltawheel.contracts.settings import CurationSettings
from deltawheel.contracts.store import PAUSE_LEASE, Group, Store
from deltawheel.contracts.topics import Topic, event_type_of
from deltawheel.services.curation.calibrations import NewestCalibrations
from deltawheel.services.curation.owed import OwedSchedule
from deltawheel.services.curation.pairing import form_pairs, group_end
from deltawheel.services.runtime.batching import MicroBatcher
from deltawheel.services.runtime.handler import Tick
from deltawheel.services.runtime.ledger import BatchedLedger
from deltawheel.services.runtime.offload import offload

__all__ = ["Curation"]

_OWED_LEASE = "owed-events"
_OWED_PAGE = 5_000
"""How many open events a tick looks at; those of younger prompts are the next tick's."""


@dataclass(slots=True, kw_only=True)
class Curation:
    """Close a group once all its slots have ended; until then there is nothing to do.

    All state lies in the store: whichever member gets the last event of a group closes it, and
    the closing row decides between two that try.
    """

    settings: CurationSettings
    store: Store
    checks: PairChecks
    rubric: Rubric
    clock: Clock
    random: Random
    telemetry: Telemetry
    failpoints: Failpoints
    name: str = "curation"
    topics: tuple[Topic, ...] = (Topic.JUDGEMENTS,)
    concurrency: int = field(init=False)
    ticks: Sequence[Tick] = field(init=False)
    _close: MicroBatcher[Group, Sequence[Record]] = field(init=False)
    _owed: OwedSchedule = field(init=False)
    _calibrations: NewestCalibrations = field(init=False)
    _swept_to: datetime | None = field(default=None, init=False)
    _token: str = field(init=False)
    _longest_gap: timedelta = field(init=False)
    _ledger: BatchedLedger = field(init=False)

    def __post_init__(self) -> None:
        self.concurrency = 2 * self.settings.batch_max_pairs
        self._token = self.random.token()
        self._ledger = BatchedLedger(self.store, clock=self.clock)
        self._owed = OwedSchedule(first_wait_s=self.settings.republish_after_s)
        self._calibrations = NewestCalibrations(
            self.store, rubric_digest=self.rubric.digest, clock=self.clock
        )
        self._close = MicroBatcher(
            self._close_batch,
            max_items=self.settings.batch_max_pairs,
            max_wait_s=self.settings.batch_max_wait_s,
            clock=self.clock,
        )
        pause_s = max(1.0, self.settings.republish_after_s / 4)
        self._longest_gap = timedelta(seconds=4 * pause_s)
        self.ticks = (
            Tick(
                name="owed",
                interval_s=pause_s,
                run=self._republish,
                on_published=self._note_republished,
            ),
            Tick(name="expired", interval_s=pause_s, run=self._expire),
        )

    async def handle(self, record: Record) -> Sequence[Record]:
        """Return the pair events of the group if this event has ended it, else nothing."""
        key = key_of(record)
        group = await self._ledger.group(key) if key else None
        if group is None:
            raise InvalidRecordError(f"the store holds no prompt for this {type(record).__name__}")
        if not group.has_ended:
            return []
        if group.closing is not None:
            self.telemetry.count("deltawheel_effects_found_total", effect="closing")
        else:
            await self.failpoints.reach(Failpoint.CURATION_ENDED, group.prompt.prompt_id)
        return await self._close(group)

    def slot_ends(self, record: Record, reason: str, at: datetime) -> Sequence[SlotFailed]:
        """A slot that curation hears of has ended already."""
        return ()

    async def _close_batch(self, batch: Sequence[Group]) -> Sequence[Sequence[Record]]:
        """Close each group once; all its slots' events may have come, and the first is answered."""
        groups = {group.prompt.key: group for group in batch}
        events = await offload(self._close_groups, list(groups.values()))
        return [events.pop(group.prompt.key, []) for group in batch]

    def _close_groups(self, groups: Sequence[Group]) -> dict[PromptKey, list[Record]]:
        at = self.clock.now()
        formed = [
            form_pairs(group, self.rubric, at=at, calibrated=self._calibrations.of)
            if group.closing is None
            else ()
            for group in groups
        ]
        pairs = [pair for each in formed for pair in each]
        failures = self.checks.failures(pairs) if pairs else {}
        ends = [
            group_end(group, each, failures, rubric=self.rubric, at=at)
            for group, each in zip(groups, formed, strict=True)
        ]
        events: dict[PromptKey, list[Record]] = {}
        for event in self.store.close_groups(ends):
            events.setdefault(event.key, []).append(event)
        return events

    async def _republish(self) -> Sequence[Record]:
        """Publish owed events again; under a lease, for one member is enough."""
        now = self.clock.now()
        until = now + timedelta(seconds=2 * self.settings.republish_after_s)
        is_mine = await offload(
            self.store.acquire_lease, _OWED_LEASE, token=self._token, at=now, until=until
        )
        if not is_mine:
            return []
        before = now - timedelta(seconds=self.settings.republish_after_s)
        page = await offload(self.store.owed, before=before, limit=_OWED_PAGE, since=self._swept_to)
        is_last = len(page) < _OWED_PAGE
        self._swept_to = None if is_last else await offload(self._place_behind, page)
        return self._owed.due(page, at=now, is_last=is_last)

    def _place_behind(self, page: Sequence[Record]) -> datetime | None:
        """Return when the prompt was accepted at which the page ends; the next one begins there."""
        key = key_of(page[-1])
        group = self.store.group(key) if key else None
        if group is None:
            return None
        accepted_at = group.prompt.accepted_at
        is_where_it_began = accepted_at == self._swept_to
        return accepted_at + timedelta(microseconds=1) if is_where_it_began else accepted_at

    def _note_republished(self, events: Sequence[Record]) -> None:
        self._owed.published(events, at=self.clock.now())
        for event in events:
            self.telemetry.count(
                "deltawheel_owed_events_republished_total", topic=event_type_of(event).topic.value
            )

    async def _expire(self) -> Sequence[Record]:
        """End what has waited past its assignment's expiry: the last resort.

        First the time since the last tick is accounted for: nothing expires by what it slept
        through.
        """
        now = self.clock.now()
        is_paused = await offload(self.store.is_leased, PAUSE_LEASE, at=now)
        await offload(self.store.watch, at=now, longest_gap=self._longest_gap, is_paused=is_paused)
        expired = await offload(self.store.expired, at=now, limit=_OWED_PAGE)
        return await offload(self.store.add_slot_failures, expired) if expired else []
