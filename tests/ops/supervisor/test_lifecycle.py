"""When a process is started again: played without a process."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltawheel.ops.supervisor.lifecycle import GiveUp, Lifecycle, Phase, RestartRules

RULES = RestartRules(
    base_s=0.5, cap_s=8, stable_after_s=60, ready_timeout_s=30, max_boot_failures=3
)


def test_first_start_is_due_at_once_and_counts_as_no_restart() -> None:
    life = Lifecycle(RULES)
    assert life.is_due(0)
    life.start(0)
    assert (life.phase, life.num_restarts, life.is_due(0)) == (Phase.STARTING, 0, False)


def test_pause_doubles_with_each_end_up_to_the_cap() -> None:
    assert [RULES.pause_s(n, 1.0) for n in range(1, 7)] == [0.5, 1, 2, 4, 8, 8]


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_pause_stays_between_half_of_the_first_and_the_cap(num: int, jitter: float) -> None:
    assert RULES.base_s / 2 <= RULES.pause_s(num, jitter) <= RULES.cap_s


def test_process_that_was_ready_is_tried_for_ever() -> None:
    life, now = Lifecycle(RULES), 0.0
    life.start(now)
    life.become_ready(now)
    for _ in range(50):
        life.end(now, jitter=0.5)
        assert life.phase is Phase.BACKING_OFF
        assert not life.is_due(now)
        now += RULES.cap_s
        assert life.is_due(now)
        life.start(now)
    assert life.num_restarts == 50


def test_running_long_enough_forgets_earlier_ends() -> None:
    life = Lifecycle(RULES)
    life.start(0)
    life.become_ready(0)
    for now in (1.0, 2.0, 3.0):
        life.end(now, jitter=0)
        life.start(now)
        life.become_ready(now)
    life.end(70, jitter=0)
    assert life.is_due(70 + RULES.pause_s(1, 0))


def test_process_that_keeps_ending_while_starting_is_given_up() -> None:
    life = Lifecycle(RULES)
    for now in range(3):
        assert life.give_up is None
        life.start(now)
        life.end(now, jitter=0)
    assert (life.phase, life.give_up) == (Phase.FAILED, GiveUp.ENDS_WHILE_STARTING)
    assert not life.is_due(10_000)


def test_process_that_is_killed_while_starting_is_tried_again_and_after_longer_pauses() -> None:
    life = Lifecycle(RULES)
    for now in range(20):
        life.start(now)
        life.end(now, jitter=0, is_killed=True)
    assert life.phase is Phase.BACKING_OFF
    assert not life.is_due(19 + RULES.pause_s(20, 0) - 0.1)
    for now in range(20, 23):
        assert life.give_up is None
        life.start(now)
        life.end(now, jitter=0)
    assert life.give_up is GiveUp.ENDS_WHILE_STARTING


def test_refused_settings_are_given_up_at_once() -> None:
    life = Lifecycle(RULES)
    life.start(0)
    life.end(0, jitter=0, is_refusal=True)
    assert life.give_up is GiveUp.REFUSES_SETTINGS


def test_process_that_never_answers_is_given_up() -> None:
    life = Lifecycle(RULES)
    life.start(0)
    assert not life.is_overdue(30)
    assert life.is_overdue(30.1)
    life.end(30.1, jitter=0, is_overdue=True)
    assert life.give_up is GiveUp.NEVER_ANSWERS


def test_process_that_was_ready_may_be_overdue_and_is_tried_again() -> None:
    life = Lifecycle(RULES)
    life.start(0)
    life.become_ready(1)
    life.end(2, jitter=0)
    life.start(3)
    assert life.is_overdue(40)
    life.end(40, jitter=0, is_overdue=True)
    assert life.phase is Phase.BACKING_OFF


def test_end_that_we_asked_for_is_no_failure() -> None:
    life = Lifecycle(RULES)
    for now in range(10):
        life.start(now)
        life.halt()
        assert life.is_due(now)


@given(
    st.lists(st.tuples(st.sampled_from(["ready", "end", "halt"]), st.floats(0, 100)), max_size=40)
)
def test_no_course_of_events_starts_a_process_twice(events: list[tuple[str, float]]) -> None:
    life, now = Lifecycle(RULES), 0.0
    for event, passed_s in events:
        now += passed_s
        if life.is_due(now):
            life.start(now)
        if life.phase is Phase.FAILED:
            break
        if not life.is_running:
            continue
        if event == "ready" and life.phase is Phase.STARTING:
            life.become_ready(now)
        elif event == "end":
            life.end(now, jitter=0.5)
        elif event == "halt":
            life.halt()
        assert not (life.is_running and life.is_due(now))


@pytest.mark.parametrize("phase", [Phase.FAILED, Phase.STOPPED])
def test_what_has_ended_for_good_is_never_due(phase: Phase) -> None:
    assert not Lifecycle(RULES, phase=phase).is_due(1e9)
