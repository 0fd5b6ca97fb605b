"""What monitoring does with an event: it learns that rows have changed."""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from deltawheel.contracts.clock import Clock
from deltawheel.contracts.failpoints import Failpoint
from deltawheel.contracts.interruptions import Backlog
from deltawheel.contracts.judgement import SlotFailed
from deltawheel.contracts.outcome import Outcome, UnpairedCause
from deltawheel.contracts.pool import Pool
from deltawheel.contracts.ports import Failpoints, Telemetry
from deltawheel.contracts.record import Record
from deltawheel.contracts.settings import MonitoringSettings
from deltawheel.contracts.slices import ORDER_BY
from deltawheel.contracts.spending import Spending, read_spending
from deltawheel.contracts.store import DeltaStats, Progress, Store
from deltawheel.contracts.topics import Topic, event_type_of
from deltawheel.services.monitoring.judging import JudgingGauges
from deltawheel.services.runtime.handler import Tick
from deltawheel.services.runtime.offload import offload

__all__ = ["Monitoring"]

_SHOWN_REASONS = 50
_SPENDING_EVERY_S = 10.0
"""Its queries read an index of every trace: 0.7 s for a million."""


@dataclass(slots=True, kw_only=True)
class Monitoring:
    """Keep the gauges equal to the rows.

    Events are counted as they pass, but every gauge is read from the store: a redelivered event
    counts nothing twice there, and a restart forgets nothing.
    """

    settings: MonitoringSettings
    store: Store
    clock: Clock
    telemetry: Telemetry
    failpoints: Failpoints
    name: str = "monitoring"
    topics: tuple[Topic, ...] = (
        Topic.PROMPTS,
        Topic.TRACES,
        Topic.JUDGEMENTS,
        Topic.PAIRS,
        Topic.PROMOTIONS,
    )
    concurrency: int = 512
    ticks: Sequence[Tick] = field(init=False)
    _num_seen: int = field(default=0, init=False)
    _num_shown: int = field(default=-1, init=False)
    _num_spent: int = field(default=-1, init=False)
    _next_spending_s: float = field(default=-math.inf, init=False)
    _members: set[str] = field(default_factory=set, init=False)
    _deferring: set[str] = field(default_factory=set, init=False)
    _refreshing: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    def __post_init__(self) -> None:
        refresh_s = self.settings.refresh_s
        judging = JudgingGauges(store=self.store, clock=self.clock, telemetry=self.telemetry)
        self.ticks = (
            Tick(name="refresh", interval_s=refresh_s, run=self._refresh),
            *judging.ticks(refresh_s),
        )

    async def handle(self, record: Record) -> Sequence[Record]:
        """Count the event and have the gauges read anew."""
        topic = event_type_of(record).topic.value
        self.telemetry.count("deltawheel_events_seen_total", topic=topic)
        self._num_seen += 1
        await self.failpoints.reach(Failpoint.MONITORING_SEEN, topic)
        return []

    def slot_ends(self, record: Record, reason: str, at: datetime) -> Sequence[SlotFailed]:
        """Monitoring only watches."""
        return ()

    async def _refresh(self) -> Sequence[Record]:
        async with self._refreshing:
            progress = await offload(self.store.progress)
            backlogs = await offload(self.store.backlogs)
            if (num_seen := self._num_seen) != self._num_shown:
                self._show_deltas(await offload(self.store.delta_stats))
                self._num_shown = num_seen
            await self._refresh_pool(num_seen)
            self._show_progress(progress)
            self._show_backlogs(backlogs)
        return []

    async def _refresh_pool(self, num_seen: int) -> None:
        """Show who stands and what was spent: at once, and then when there is more to count."""
        pool_log = await offload(self.store.pool_log)
        self._show_standing(Pool.from_log(pool_log))
        at_s = self.clock.monotonic()
        is_new = num_seen != self._num_spent
        if is_new and at_s >= self._next_spending_s:
            self._show_spending(await offload(read_spending, self.store, pool_log))
            self._num_spent, self._next_spending_s = num_seen, at_s + _SPENDING_EVERY_S

    def _show_standing(self, pool: Pool) -> None:
        standing = {member.name for member in pool.standing()}
        self._members |= pool.members.keys()
        for name in self._members:
            self.telemetry.set("deltawheel_member_standing", name in standing, generator=name)

    def _show_spending(self, spending: Spending) -> None:
        show = self.telemetry.set
        for member in spending.members:
            taken = member.tokens
            name = taken.generator
            show("deltawheel_member_tokens", taken.prompt_tokens, generator=name, direction="read")
            written = taken.completion_tokens
            show("deltawheel_member_tokens", written, generator=name, direction="written")
            show("deltawheel_member_cost", float(member.cost), generator=name)
        for what, rate in spending.rates.items():
            tokens, cost = rate or (0.0, 0.0)
            labels = {} if what == "pair" else {"delta": what}
            unit = "pair" if what == "pair" else "delta_point"
            show(f"deltawheel_tokens_per_{unit}", tokens, **labels)
            show(f"deltawheel_cost_per_{unit}", cost, **labels)

    def _show_progress(self, progress: Progress) -> None:
        show = self.telemetry.set
        for outcome in Outcome:
            show("deltawheel_prompts", progress.outcomes.get(outcome, 0), outcome=outcome.value)
        show("deltawheel_prompts", progress.prompts - progress.closed, outcome="open")
        for cause in UnpairedCause:
            count = progress.unpaired.get(cause, 0)
            show("deltawheel_unpaired_prompts", count, cause=cause.value)
        show("deltawheel_tie_share", progress.tie_share)
        show("deltawheel_quarantine_share", progress.share(Outcome.QUARANTINED))
        show("deltawheel_dead_letter_share", progress.share(Outcome.DEAD_LETTERED))
        show("deltawheel_traces", progress.traces)
        show("deltawheel_judgements", progress.judgements)
        show("deltawheel_judging", progress.judgements, state="judged")
        show("deltawheel_dead_letters", progress.dead_letters)
        show("deltawheel_unmoved_dead_letters", progress.unmoved_letters)
        for expectation, count in list(progress.quarantined.items())[:_SHOWN_REASONS]:
            show("deltawheel_quarantined_pairs", count, expectation=expectation)
        oldest = progress.oldest_open_at
        age_s = (self.clock.now() - oldest).total_seconds() if oldest else 0.0
        show("deltawheel_oldest_open_prompt_seconds", age_s)

    def _show_backlogs(self, backlogs: Sequence[Backlog]) -> None:
        self._deferring |= {backlog.service for backlog in backlogs}
        counts = {backlog.service: backlog.num_records for backlog in backlogs}
        for service in self._deferring:
            self.telemetry.set(
                "deltawheel_deferred_records", counts.get(service, 0), service=service
            )

    def _show_deltas(self, stats: Sequence[DeltaStats]) -> None:
        for row in stats:
            sides = {"chosen": row.chosen_generator, "rejected": row.rejected_generator}
            self.telemetry.set(
                "deltawheel_sample_delta_mean", row.mean_delta, dimension=row.dimension, **sides
            )
            if row.dimension == ORDER_BY:
                self.telemetry.set("deltawheel_pairs", row.num_pairs, **sides)
                self.telemetry.set(
                    "deltawheel_generator_delta_mean", row.mean_generator_delta, **sides
                )
