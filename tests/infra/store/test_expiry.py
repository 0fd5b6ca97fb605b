"""What expires, and what does not because the wheel stood still."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, event

from deltawheel.contracts.outcome import Outcome
from deltawheel.contracts.store import GroupEnd, Store
from deltawheel.infra.store.outages import merged, overlap
from tests.infra.store.stored import add_asked
from tests.records import T0, a_closing, a_judgement, a_prompt, a_trace, an_assignment, seconds

GAP = timedelta(seconds=30)
HOUR = timedelta(hours=1)
LATE = T0 + 2 * HOUR


def note(store: Store, *moments: datetime, is_paused: bool = False) -> None:
    """Note at each of these moments that the wheel turns."""
    for at in moments:
        store.watch(at=at, longest_gap=GAP, is_paused=is_paused)


def turning(since: datetime, until: datetime) -> Sequence[datetime]:
    """Return moments a gap apart, from one to the other."""
    return [since + step * GAP for step in range((until - since) // GAP + 1)]


def test_open_slots_of_an_expired_assignment_expire(store: Store) -> None:
    prompt = add_asked(store)
    store.add_judgements([a_judgement(store.add_traces([a_trace(slot=0)])[0])])
    end = an_assignment(prompt).expires_at
    assert store.expired(at=end - timedelta(seconds=1), limit=10) == []
    (failure,) = store.expired(at=end, limit=10)
    assert (failure.key, failure.slot, failure.failed_at) == (prompt.key, 1, end)
    assert failure.reason.startswith("expired")
    assert store.add_slot_failures([failure])[0] == failure
    assert store.expired(at=end, limit=10) == []


def test_expiry_is_limited_and_leaves_closed_groups_alone(store: Store) -> None:
    for number in range(3):
        add_asked(store, a_prompt(f"{number}+1="))
    at = seconds(10_000)
    assert len(store.expired(at=at, limit=10)) == 6
    assert len(store.expired(at=at, limit=3)) == 3
    store.close_groups(
        [GroupEnd(closing=a_closing(a_prompt("0+1="), outcome=Outcome.DEAD_LETTERED))]
    )
    assert len(store.expired(at=at, limit=10)) == 4


def test_no_more_is_read_of_what_has_expired_than_is_asked_for(store: Store) -> None:
    for number in range(5):
        add_asked(store, a_prompt(f"{number}+1="))
    limits: list[int] = []

    def note(_: object, __: object, statement: str, *___: object) -> None:
        if "expires_at" in statement:
            limits.append(statement.count("LIMIT"))

    event.listen(Engine, "before_cursor_execute", note)
    assert len(store.expired(at=seconds(10_000), limit=3)) == 3
    event.remove(Engine, "before_cursor_execute", note)
    assert limits == [1]


def test_time_in_which_the_wheel_was_stopped_does_not_count(store: Store) -> None:
    end = an_assignment(add_asked(store)).expires_at
    stopped_at = end - timedelta(minutes=10)
    note(store, *turning(T0, stopped_at))
    started_at = stopped_at + 25 * HOUR
    note(store, started_at)
    assert store.standstill(T0, started_at) == 25 * HOUR
    assert store.expired(at=started_at, limit=10) == []
    note(store, *turning(started_at, started_at + timedelta(minutes=9)))
    assert store.expired(at=started_at + timedelta(minutes=9), limit=10) == []
    first, second = store.expired(at=started_at + timedelta(minutes=10), limit=10)
    assert (first.slot, second.slot) == (0, 1)
    assert first.is_expired
    assert first.reason == f"expired: no judged trace by {(end + 25 * HOUR).isoformat()}"


def test_time_in_which_generation_was_paused_does_not_count(store: Store) -> None:
    note(store, T0, T0 + GAP)
    note(store, T0 + 2 * GAP, T0 + 3 * GAP, is_paused=True)
    note(store, T0 + 4 * GAP)
    assert store.standstill(T0, T0 + HOUR) == 2 * GAP


def test_a_gap_as_long_as_allowed_is_no_standstill(store: Store) -> None:
    note(store, T0, T0 + GAP)
    assert store.standstill(T0, T0 + HOUR) == timedelta(0)
    note(store, T0 + 2 * GAP + timedelta(seconds=1))
    assert store.standstill(T0, T0 + HOUR) == GAP + timedelta(seconds=1)


def test_a_clock_that_goes_back_changes_nothing(store: Store) -> None:
    note(store, T0 + HOUR, T0, T0 + HOUR)
    assert store.standstill(T0, T0 + 2 * HOUR) == timedelta(0)
    note(store, T0 + HOUR + GAP)
    assert store.standstill(T0, T0 + 2 * HOUR) == timedelta(0)


def test_a_standstill_before_a_prompt_came_does_not_help_it(store: Store) -> None:
    note(store, T0 - 3 * HOUR, T0 - HOUR)
    end = an_assignment(add_asked(store)).expires_at
    assert len(store.expired(at=end, limit=10)) == 2


def test_a_slot_that_expired_is_lost_unless_the_wheel_stood_still(store: Store) -> None:
    explained, lost = a_prompt("1+1="), a_prompt("2+2=").model_copy(update={"accepted_at": LATE})
    for prompt in (explained, lost):
        add_asked(store, prompt)
    note(store, T0, T0 + HOUR)
    for failure in store.expired(at=LATE + 24 * HOUR, limit=10):
        store.add_slot_failures([failure])
    rows = {row.key: row.lost_slots for row in store.evidence()}
    assert rows == {explained.key: 0, lost.key: 2}
    assert store.progress().slot_failures == 4


spans = st.lists(
    st.tuples(st.integers(0, 1_000), st.integers(0, 1_000)).map(sorted).map(tuple), max_size=5
)


@settings(deadline=None)
@given(spans, st.integers(0, 1_000), st.integers(0, 1_000))
def test_overlap_counts_each_shared_second_once_however_many_spans_share_it(
    drawn: list[tuple[int, int]], one: int, other: int
) -> None:
    since, until = sorted((one, other))
    inside = len(
        {second for start, end in drawn for second in range(start, end)} & {*range(since, until)}
    )
    given_spans = [(seconds(start), seconds(end)) for start, end in drawn]
    found = overlap(merged(given_spans), seconds(since), seconds(until))
    assert found == timedelta(seconds=inside)
