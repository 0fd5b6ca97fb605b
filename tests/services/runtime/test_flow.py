"""The loop's decisions, played in any order of events."""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)

from deltawheel.contracts.ports import TopicPartition
from deltawheel.services.runtime.flow import Flow, Ticket, retry_pause_s

A, B = TopicPartition("t", 0), TopicPartition("t", 1)


def begin(flow: Flow, partition: TopicPartition, offset: int) -> Ticket:
    ticket = flow.begin(partition, offset)
    assert ticket is not None
    return ticket


@given(order=st.permutations(range(8)))
def test_watermark_never_passes_an_unfinished_offset(order: list[int]) -> None:
    flow = Flow(limit=100)
    flow.assign([A])
    tickets = [begin(flow, A, 10 + index) for index in range(8)]
    unfinished = {ticket.offset for ticket in tickets}
    for index in order:
        flow.finish(tickets[index])
        unfinished.discard(tickets[index].offset)
        mark = min(unfinished, default=18)
        assert flow.commits() == ({} if mark == 10 else {A: mark})
    flow.committed({A: 18})
    assert flow.commits() == {}


@given(gaps=st.lists(st.integers(1, 50), min_size=1, max_size=20))
def test_every_offset_is_committed_once_all_are_finished_whatever_the_gaps(gaps: list[int]) -> None:
    flow = Flow(limit=100)
    flow.assign([A])
    offsets = [sum(gaps[: index + 1]) for index in range(len(gaps))]
    for ticket in [begin(flow, A, offset) for offset in offsets]:
        flow.finish(ticket)
    assert flow.commits() == {A: offsets[-1] + 1}


def test_nothing_is_committed_before_anything_was_polled() -> None:
    flow = Flow(limit=4)
    flow.assign([A, B])
    assert flow.commits() == {}


def test_commit_is_not_repeated_while_nothing_moves() -> None:
    flow = Flow(limit=4)
    flow.assign([A])
    first, _ = begin(flow, A, 0), begin(flow, A, 1)
    flow.finish(first)
    flow.committed(flow.commits())
    assert flow.commits() == {}


def test_failed_commit_is_offered_again() -> None:
    flow = Flow(limit=4)
    flow.assign([A])
    flow.finish(begin(flow, A, 0))
    assert flow.commits() == flow.commits() == {A: 1}


@given(steps=st.lists(st.booleans(), max_size=200), limit=st.integers(2, 20))
def test_pausing_begins_at_the_limit_and_ends_at_half_of_it(steps: list[bool], limit: int) -> None:
    flow = Flow(limit=limit)
    flow.assign([A])
    open_tickets: list[Ticket] = []
    offset = 0
    for is_arrival in steps:
        was_paused = flow.is_paused
        if is_arrival:
            open_tickets.append(begin(flow, A, offset))
            offset += 1
        elif open_tickets:
            flow.finish(open_tickets.pop(0))
        is_paused = flow.should_pause()
        if len(open_tickets) >= limit:
            assert is_paused
        elif len(open_tickets) < limit / 2:
            assert not is_paused
        else:
            assert is_paused == was_paused


def test_result_of_a_revoked_partition_is_dropped() -> None:
    flow = Flow(limit=4)
    flow.assign([A, B])
    ticket = begin(flow, A, 5)
    flow.assign([B])
    assert not flow.is_current(ticket)
    assert flow.num_in_flight == 0
    flow.finish(ticket)
    assert flow.commits() == {}


def test_partition_that_comes_back_begins_anew_and_ignores_late_results() -> None:
    flow = Flow(limit=4)
    flow.assign([A])
    late = begin(flow, A, 5)
    flow.assign([])
    flow.assign([A])
    again = begin(flow, A, 5)
    flow.finish(late)
    assert flow.commits() == {}
    flow.finish(again)
    assert flow.commits() == {A: 6}


def test_record_of_a_partition_that_is_not_held_is_not_begun() -> None:
    assert Flow(limit=4).begin(A, 0) is None


def test_record_that_is_in_flight_or_done_is_not_begun_twice() -> None:
    flow = Flow(limit=4)
    flow.assign([A])
    flow.finish(begin(flow, A, 0))
    begin(flow, A, 1)
    assert flow.begin(A, 0) is None
    assert flow.begin(A, 1) is None


def test_offset_below_the_committed_one_means_that_the_log_begins_anew() -> None:
    flow = Flow(limit=4)
    flow.assign([A])
    flow.finish(begin(flow, A, 7))
    flow.committed(flow.commits())
    late = begin(flow, A, 8)
    fresh = begin(flow, A, 0)
    assert not flow.is_current(late)
    flow.finish(fresh)
    assert flow.commits() == {A: 1}


@given(
    attempt=st.integers(0, 5_000),
    jitter=st.floats(0, 1, exclude_max=True),
    base_s=st.floats(0.01, 2),
    cap_s=st.floats(2, 60),
)
def test_pause_before_a_retry_stays_between_a_tenth_of_the_base_and_the_cap(
    attempt: int, jitter: float, base_s: float, cap_s: float
) -> None:
    pause_s = retry_pause_s(attempt, base_s=base_s, cap_s=cap_s, jitter=jitter)
    assert base_s / 10 <= pause_s <= cap_s


def test_pauses_grow_and_are_spread_over_their_whole_bound() -> None:
    bounds = [retry_pause_s(n, base_s=1, cap_s=8, jitter=0.999) for n in range(5)]
    assert bounds == [0.999, 1.998, 3.996, 7.992, 7.992]
    assert retry_pause_s(3, base_s=1, cap_s=8, jitter=0.5) == 4.0


def test_other_side_is_given_the_pause_that_it_asked_for() -> None:
    assert retry_pause_s(0, base_s=1, cap_s=8, jitter=0, at_least_s=30) == 30


@dataclass
class Log:
    """What one partition has seen, kept beside the flow to compare with."""

    position: int = 0
    finished: set[int] = field(default_factory=set)
    committed: int = 0


class AnyOrderOfEvents(RuleBasedStateMachine):
    """Polls, ends, commits, revocations and returns of two partitions, as they may come."""

    def __init__(self) -> None:
        super().__init__()
        self.flow = Flow(limit=6)
        self.logs = {A: Log(), B: Log()}
        self.held: set[TopicPartition] = set()
        self.tickets: list[Ticket] = []

    @rule(held=st.sets(st.sampled_from([A, B])))
    def rebalance(self, held: set[TopicPartition]) -> None:
        for name in held - self.held:
            self.logs[name].position = self.logs[name].committed
        self.held = held
        self.flow.assign(held)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), gap=st.integers(0, 2))
    def poll(self, data: st.DataObject, gap: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.held)))
        log = self.logs[name]
        offset = log.position + gap
        for skipped in range(log.position, offset):
            log.finished.add(skipped)
        log.position = offset + 1
        self.tickets.append(begin(self.flow, name, offset))

    @precondition(lambda self: self.tickets)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        ticket = self.tickets.pop(data.draw(st.integers(0, len(self.tickets) - 1)))
        self.flow.finish(ticket)
        self.logs[ticket.partition].finished.add(ticket.offset)

    @rule()
    def commit(self) -> None:
        offsets = self.flow.commits()
        assert offsets.keys() <= self.held
        for name, offset in offsets.items():
            assert set(range(offset)) <= self.logs[name].finished, "an unfinished one was committed"
            self.logs[name].committed = offset
        self.flow.committed(offsets)

    @invariant()
    def what_is_in_flight_is_counted(self) -> None:
        current = {ticket for ticket in self.tickets if self.flow.is_current(ticket)}
        assert self.flow.num_in_flight == len(current)

    def teardown(self) -> None:
        for ticket in self.tickets:
            self.flow.finish(ticket)
            self.logs[ticket.partition].finished.add(ticket.offset)
        self.tickets = []
        self.commit()
        for name in self.held:
            if self.logs[name].position:
                assert self.logs[name].committed == self.logs[name].position


test_any_order_of_events_commits_everything_and_nothing_unfinished = AnyOrderOfEvents.TestCase
