"""When a cycle starts: by the calendar, by the volume of new pairs, or because somebody asked."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from deltawheel.contracts.clock import Clock
from deltawheel.contracts.crontab import Crontab
from deltawheel.contracts.cycle import Cycle, Trigger
from deltawheel.contracts.errors import RetryLaterError
from deltawheel.contracts.settings import Settings
from deltawheel.contracts.store import Store

__all__ = ["Schedule", "crontab_trigger", "last_time"]

log = logging.getLogger("deltawheel.training")

_VOLUME_EVERY_S = 10
_GRACE = timedelta(hours=1)
_TICK = timedelta(microseconds=1)
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Requests cycles; whoever runs them finds the rows.

    Every member may hold a scheduler: a cycle's id hangs on its scheduled time, so the row of the
    first to ask is the one that runs.
    """

    settings: Settings
    store: Store
    clock: Clock

    def start(self) -> Callable[[], None]:
        """Start the triggers that the settings name; return what stops them."""
        training = self.settings.training
        if not training.is_enabled:
            return lambda: None
        scheduler = BackgroundScheduler(
            timezone=UTC,
            job_defaults={
                "coalesce": True,
                "misfire_grace_time": int(_GRACE.total_seconds()),
                "max_instances": 1,
            },
        )
        if training.cron is not None:
            scheduler.add_job(self.request_by_calendar, crontab_trigger(training.cron))
        if training.min_new_pairs is not None:
            scheduler.add_job(self.request_by_volume, IntervalTrigger(seconds=_VOLUME_EVERY_S))
        scheduler.start()
        return lambda: scheduler.shutdown(wait=False)

    def request_by_calendar(self) -> None:
        """Ask for the cycle that the calendar has last named, unless another member has."""
        cron = self.settings.training.cron
        if cron is None:
            return
        scheduled_for = last_time(crontab_trigger(cron), self.clock.now())
        if scheduled_for is None:
            return
        try:
            self._request(Trigger.CRON, scheduled_for.isoformat())
        except RetryLaterError as error:
            log.warning("no cron cycle was asked for: %s", error)

    def request_by_volume(self) -> None:
        """Ask for a cycle once enough pairs came since the last one was asked for."""
        threshold = self.settings.training.min_new_pairs
        if threshold is None:
            return
        try:
            last = next(iter(self.store.cycles(1)), None)
            since = last.requested_at if last else None
            if self.store.count_pairs(since=since) >= threshold:
                self._request(Trigger.VOLUME, f"after {last.cycle_id}" if last else "first")
        except RetryLaterError as error:
            log.warning("no volume cycle was asked for: %s", error)

    def _request(self, trigger: Trigger, cause: str) -> None:
        if self.store.open_cycles():
            return
        cycle = Cycle.request(
            wheel=self.settings.wheel, trigger=trigger, cause=cause, at=self.clock.now()
        )
        self.store.add_cycle(cycle)


def crontab_trigger(line: str) -> CronTrigger:
    """Return when a crontab line that settings accept is due, in UTC.

    Every field is spelt out, and weekdays by name: APScheduler's own reading counts from Monday.
    """
    crontab = Crontab.parse(line)
    return CronTrigger(
        minute=_listed(crontab.minutes),
        hour=_listed(crontab.hours),
        day=_listed(crontab.days),
        month=_listed(crontab.months),
        day_of_week=_listed(_WEEKDAYS[day] for day in crontab.weekdays),
        timezone=UTC,
    )


def last_time(trigger: CronTrigger, now: datetime) -> datetime | None:
    """Return when the calendar last named a time, within the grace that a late run has.

    The time of the schedule and not of the run: members that run late, each by something else,
    must ask for the same cycle.
    """
    last = None
    next_time = trigger.get_next_fire_time(None, now - _GRACE)
    while next_time is not None and next_time <= now:
        last, next_time = next_time, trigger.get_next_fire_time(next_time, next_time + _TICK)
    return last


def _listed(values: Iterable[object]) -> str:
    return ",".join(map(str, values))
