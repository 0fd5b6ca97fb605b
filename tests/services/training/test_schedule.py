"""When a cycle is asked for: by the calendar, by the volume of pairs, and never beside another."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from deltawheel.contracts.cycle import Cycle, CycleState, Trigger
from deltawheel.contracts.errors import RetryLaterError
from deltawheel.contracts.settings import Settings, TrainingSettings
from deltawheel.contracts.store import Store
from deltawheel.infra.store.store import SqlStore
from deltawheel.services.training.schedule import Schedule, crontab_trigger, last_time
from tests.infra.store.stored import in_threads
from tests.records import WHEEL, a_cycle, a_pair, a_paired_end, a_prompt, seconds
from tests.services.training.benches import PassingClock

MINUTE_S = 60
EACH_MINUTE = "* * * * *"


def a_schedule(
    store: Store,
    clock: PassingClock | None = None,
    *,
    is_enabled: bool = True,
    cron: str | None = None,
    min_new_pairs: int | None = None,
) -> Schedule:
    training = TrainingSettings(is_enabled=is_enabled, cron=cron, min_new_pairs=min_new_pairs)
    settings = Settings(wheel=WHEEL, training=training)
    return Schedule(settings=settings, store=store, clock=clock or PassingClock())


def add_pairs(store: Store, count: int, *, at_s: float) -> None:
    """Store so many pairs, all formed at one moment."""
    for number in range(count):
        pair = a_pair(a_prompt(f"{at_s}+{number}="), paired_at=seconds(at_s))
        store.close_groups([a_paired_end(pair)])


def end(store: Store, cycle: Cycle, *, state: CycleState = CycleState.ENDED) -> None:
    store.end_cycle(cycle.cycle_id, state=state, at=seconds(0))


# by the calendar


def test_cycle_is_asked_for_at_the_scheduled_time(store: Store) -> None:
    a_schedule(store, PassingClock(past_s=2.5), cron=EACH_MINUTE).request_by_calendar()
    [cycle] = store.cycles(10)
    assert (cycle.trigger, cycle.state) == (Trigger.CRON, CycleState.REQUESTED)
    assert cycle.requested_at == seconds(2.5)
    assert cycle.wheel == WHEEL


def test_members_that_wake_at_one_time_ask_for_one_cycle(store: Store) -> None:
    members = [
        a_schedule(store, PassingClock(past_s=late_s), cron="0 * * * *")
        for late_s in (0, 1, 59, 600)
    ]
    in_threads(4, lambda index: members[index].request_by_calendar())
    assert len(store.cycles(10)) == 1


def test_each_scheduled_time_has_its_own_cycle(store: Store) -> None:
    clock = PassingClock()
    schedule = a_schedule(store, clock, cron=EACH_MINUTE)
    for _ in range(2):
        schedule.request_by_calendar()
        end(store, store.cycles(1)[0])
        clock.past_s += MINUTE_S
    assert len(store.cycles(10)) == 2


def test_no_cycle_is_asked_for_while_one_is_open(store: Store) -> None:
    opened = store.add_cycle(a_cycle())
    a_schedule(store, cron=EACH_MINUTE).request_by_calendar()
    assert store.cycles(10) == [opened]


def test_member_that_wakes_after_the_cycle_has_ended_asks_for_no_second_one(store: Store) -> None:
    a_schedule(store, cron="0 * * * *").request_by_calendar()
    [cycle] = store.cycles(10)
    end(store, cycle)
    a_schedule(store, PassingClock(past_s=600), cron="0 * * * *").request_by_calendar()
    assert [row.cycle_id for row in store.cycles(10)] == [cycle.cycle_id]


def test_calendar_asks_for_nothing_where_none_is_set(store: Store) -> None:
    a_schedule(store, cron=None).request_by_calendar()
    assert store.cycles(10) == []


@pytest.mark.parametrize(
    ("line", "past_s", "due_s"),
    [
        ("0 * * * *", 0, 0),
        ("0 * * * *", 3_599.5, 0),
        ("* * * * *", 119, 60),
        ("30 * * * *", 600, -1_800),
        ("0 12 * * *", 600, None),
    ],
)
def test_last_time_is_what_the_calendar_named_within_the_hour(
    line: str, past_s: float, due_s: float | None
) -> None:
    due = None if due_s is None else seconds(due_s)
    assert last_time(crontab_trigger(line), seconds(past_s)) == due


# by volume


def test_enough_new_pairs_ask_for_a_cycle(store: Store) -> None:
    schedule = a_schedule(store, PassingClock(past_s=9), min_new_pairs=3)
    add_pairs(store, 2, at_s=1)
    schedule.request_by_volume()
    assert store.cycles(10) == []
    add_pairs(store, 1, at_s=2)
    schedule.request_by_volume()
    [cycle] = store.cycles(10)
    assert (cycle.trigger, cycle.requested_at) == (Trigger.VOLUME, seconds(9))


@pytest.mark.parametrize("state", [CycleState.ENDED, CycleState.FAILED])
def test_only_pairs_since_the_last_cycle_count(store: Store, state: CycleState) -> None:
    schedule = a_schedule(store, PassingClock(past_s=99), min_new_pairs=2)
    add_pairs(store, 5, at_s=1)
    last = store.add_cycle(a_cycle(requested_at=seconds(10)))
    end(store, last, state=state)
    add_pairs(store, 1, at_s=11)
    schedule.request_by_volume()
    assert len(store.cycles(10)) == 1
    add_pairs(store, 1, at_s=12)
    schedule.request_by_volume()
    assert [cycle.trigger for cycle in store.cycles(10)] == [Trigger.VOLUME, Trigger.OPERATOR]


def test_volume_asks_for_nothing_while_a_cycle_is_open(store: Store) -> None:
    opened = store.add_cycle(a_cycle())
    add_pairs(store, 3, at_s=1)
    a_schedule(store, min_new_pairs=1).request_by_volume()
    assert store.cycles(10) == [opened]


def test_members_that_count_the_same_pairs_ask_for_one_cycle(store: Store) -> None:
    add_pairs(store, 1, at_s=1)
    members = [
        a_schedule(store, PassingClock(past_s=number), min_new_pairs=1) for number in range(4)
    ]
    in_threads(4, lambda index: members[index].request_by_volume())
    assert len(store.cycles(10)) == 1


def test_volume_asks_for_nothing_where_no_threshold_is_set(store: Store) -> None:
    add_pairs(store, 3, at_s=1)
    a_schedule(store, min_new_pairs=None).request_by_volume()
    assert store.cycles(10) == []


@pytest.mark.parametrize("trigger", [Trigger.VOLUME, Trigger.CRON])
def test_busy_store_is_told_in_the_log_and_asked_again_next_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, trigger: Trigger
) -> None:
    class BusyStore(SqlStore):
        is_busy = True

        def add_cycle(self, cycle: Cycle) -> Cycle:
            if self.is_busy:
                raise RetryLaterError("the store is busy")
            return super().add_cycle(cycle)

    store = BusyStore(f"sqlite:///{tmp_path / 'busy.db'}", wheel=WHEEL)
    schedule = a_schedule(store, cron=EACH_MINUTE, min_new_pairs=1)
    add_pairs(store, 1, at_s=1)
    ask = {
        Trigger.VOLUME: schedule.request_by_volume,
        Trigger.CRON: schedule.request_by_calendar,
    }[trigger]
    ask()
    assert f"no {trigger.value} cycle was asked for: the store is busy" in caplog.text
    store.is_busy = False
    ask()
    assert len(store.cycles(10)) == 1
    store.close()


# starting


def scheduler_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if "APScheduler" in thread.name}


def stopped(stop: Callable[[], None], threads: set[threading.Thread]) -> bool:
    stop()
    for thread in threads:
        thread.join(timeout=10)
    return not any(thread.is_alive() for thread in threads)


def test_triggers_run_in_a_thread_until_stopped(store: Store) -> None:
    before = scheduler_threads()
    stop = a_schedule(store, cron="0 3 * * *", min_new_pairs=1).start()
    started = scheduler_threads() - before
    assert len(started) == 1
    assert stopped(stop, started)
    assert store.cycles(10) == []


def test_training_that_is_not_enabled_starts_nothing(store: Store) -> None:
    before = scheduler_threads()
    stop = a_schedule(store, is_enabled=False, cron="0 3 * * *", min_new_pairs=1).start()
    assert scheduler_threads() == before
    stop()


def days_of(line: str) -> str:
    """Return on which days of a week, from Sunday on, a line is due."""
    trigger = crontab_trigger(line)
    days: list[str] = []
    for day in range(4, 11):
        midnight = datetime(2026, 1, day, tzinfo=UTC)
        due = trigger.get_next_fire_time(None, midnight)
        if (due - midnight).days == 0:
            assert (due.hour, due.minute) == (3, 0)
            days.append(due.strftime("%a"))
    return " ".join(days)


@pytest.mark.parametrize(
    ("line", "days"),
    [
        ("0 3 * * *", "Sun Mon Tue Wed Thu Fri Sat"),
        ("0 3 * * 0", "Sun"),
        ("0 3 * * 7", "Sun"),
        ("0 3 * * 1", "Mon"),
        ("0 3 * * sat", "Sat"),
        ("0 3 * * 1-5", "Mon Tue Wed Thu Fri"),
        ("0 3 * * 0-6", "Sun Mon Tue Wed Thu Fri Sat"),
        ("0 3 * * 5-7", "Sun Fri Sat"),
        ("0 3 * * 1-5/2", "Mon Wed Fri"),
        ("0 3 * * */2", "Sun Tue Thu Sat"),
        ("0 3 * * mon,4", "Mon Thu"),
        ("0 3 * * fri-sun", "Sun Fri Sat"),
    ],
)
def test_weekdays_are_those_of_a_crontab(line: str, days: str) -> None:
    assert days_of(line) == days


def test_fields_of_a_crontab_are_those_of_the_schedule() -> None:
    trigger = crontab_trigger("5/20 */12 29 feb *")
    due: datetime | None = datetime(2026, 1, 1, tzinfo=UTC)
    times: list[str] = []
    for _ in range(4):
        due = trigger.get_next_fire_time(due, due)
        assert due is not None
        times.append(f"{due:%Y-%m-%d %H:%M}")
        due += timedelta(seconds=1)
    assert times == [f"2028-02-29 {at}" for at in ("00:05", "00:25", "00:45", "12:05")]
