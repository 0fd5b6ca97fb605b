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
from deltawheel.services.runtime.backoff import retry_pause_s
from deltawheel.services.runtime.flow import Flow, Ticket

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


def read(flow: Flow, *halted: TopicPartition) -> None:
    """Tell the flow which partitions are halted, as a reading of the rows does."""
    written, unchecked = flow.halting(), flow.unchecked()
    flow.halts_read({*halted, *written}, written=written, unchecked=unchecked)


def test_partition_that_has_just_come_waits_until_halts_are_known() -> None:
    flow = Flow(limit=4)
    flow.assign([A])
    ticket = begin(flow, A, 0)
    assert flow.is_held_back(ticket)
    assert flow.num_in_flight == 1
    read(flow)
    assert not flow.is_held_back(ticket)
    assert flow.unchecked() == {}


def test_reading_that_began_before_a_partition_came_says_nothing_of_it() -> None:
    flow = Flow(limit=4)
    flow.assign([A])
    before = flow.unchecked()
    flow.assign([])
    flow.assign([A, B])
    flow.halts_read([], unchecked=before)
    assert flow.unchecked().keys() == {A, B}


def test_records_of_a_halted_partition_wait_without_counting() -> None:
    flow = Flow(limit=2)
    flow.assign([A, B])
    tickets = [begin(flow, A, offset) for offset in range(5)]
    read(flow, A)
    assert all(flow.is_held_back(ticket) for ticket in tickets)
    assert (flow.num_in_flight, flow.should_pause()) == (0, False)
    assert flow.halted() == {A}
    begin(flow, B, 0)
    assert flow.num_in_flight == 1
    assert flow.commits() == {}
    read(flow)
    assert flow.should_pause()


@given(st.lists(st.sampled_from(["refused", "done", "garbage"]), max_size=100), st.integers(2, 5))
def test_partition_halts_after_so_many_refusals_with_nothing_done_in_between(
    fates: list[str], most: int
) -> None:
    flow = Flow(limit=1_000, max_refused=most)
    flow.assign([A])
    read(flow)
    in_a_row = 0
    for offset, fate in enumerate(fates):
        ticket = begin(flow, A, offset)
        if fate == "refused":
            in_a_row += 1
            assert flow.refuse(ticket, "why") == (in_a_row < most)
            if in_a_row == most:
                assert flow.halted() == {A}
                assert flow.halting() == {A: (offset, "why")}
                return
        elif fate == "done":
            in_a_row = 0
        flow.finish(ticket, is_done=fate == "done")
    assert flow.halted() == frozenset()


def test_refusals_that_overtake_records_still_in_work_are_not_in_a_row() -> None:
    flow = Flow(limit=1_000, max_refused=3)
    flow.assign([A])
    read(flow)
    tickets = [begin(flow, A, offset) for offset in range(100)]
    for ticket in tickets[::10]:
        assert flow.refuse(ticket, "why")
        assert flow.refuse(ticket, "asked again, because it could not be buried")
        flow.finish(ticket, is_done=False)
    for ticket in tickets:
        flow.finish(ticket)
    assert flow.halted() == frozenset()


def test_refusals_in_a_row_halt_a_partition_in_whichever_order_they_come() -> None:
    flow = Flow(limit=1_000, max_refused=3)
    flow.assign([A])
    read(flow)
    tickets = [begin(flow, A, offset) for offset in (0, 1, 3, 4)]
    flow.finish(tickets[0])
    assert flow.refuse(tickets[3], "why")
    assert flow.refuse(tickets[1], "why")
    assert not flow.refuse(tickets[2], "why")
    assert flow.halting() == {A: (3, "why")}


def test_halt_that_is_not_written_yet_outlives_a_reading() -> None:
    flow = Flow(limit=4, max_refused=1)
    flow.assign([A])
    read(flow)
    before = flow.unchecked()
    assert not flow.refuse(begin(flow, A, 0), "why")
    flow.halts_read([], unchecked=before)
    assert flow.halted() == {A}
    read(flow)
    assert flow.halting() == {}
    assert flow.halted() == {A}


def test_halt_is_written_though_the_partition_has_gone_meanwhile() -> None:
    flow = Flow(limit=4, max_refused=1)
    flow.assign([A])
    read(flow)
    flow.refuse(begin(flow, A, 3), "why")
    flow.assign([])
    assert flow.halting() == {A: (3, "why")}


def test_resumed_partition_counts_refusals_from_the_start() -> None:
    flow = Flow(limit=10, max_refused=2)
    flow.assign([A])
    read(flow)
    assert flow.refuse(begin(flow, A, 0), "why")
    assert not flow.refuse(begin(flow, A, 1), "why")
    read(flow)
    read(flow)
    assert flow.halted() == frozenset()
    assert flow.refuse(begin(flow, A, 2), "why")


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


def test_other_side_is_given_the_pause_that_it_asks_for_up_to_the_cap() -> None:
    assert retry_pause_s(0, base_s=1, cap_s=8, jitter=0, at_least_s=5) == 5
    assert retry_pause_s(0, base_s=1, cap_s=8, jitter=0, at_least_s=1e300) == 8


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
        self.flow = Flow(limit=6, max_refused=2)
        self.logs = {A: Log(), B: Log()}
        self.held: set[TopicPartition] = set()
        self.tickets: list[Ticket] = []
        self.halted: set[TopicPartition] = set()

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

    @rule(halted=st.sets(st.sampled_from([A, B])))
    def read_halts(self, halted: set[TopicPartition]) -> None:
        written, unchecked = self.flow.halting(), self.flow.unchecked()
        self.halted = halted | written.keys()
        self.flow.halts_read(self.halted, written=written, unchecked=unchecked)

    @precondition(lambda self: self.tickets)
    @rule(data=st.data())
    def refuse(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.tickets))
        was_held_back = self.flow.is_held_back(ticket)
        may = self.flow.refuse(ticket, "why")
        assert not (may and was_held_back)

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
        current = [ticket for ticket in self.tickets if self.flow.is_current(ticket)]
        halted = self.flow.halted()
        assert self.flow.num_in_flight == sum(t.partition not in halted for t in current)

    @invariant()
    def what_is_halted_stays_so_until_it_is_read_otherwise(self) -> None:
        assert self.halted & self.held & self.checked <= self.flow.halted()
        assert (
            self.flow.halting().keys() & self.held
            <= self.flow.halted() | self.flow.unchecked().keys()
        )

    @property
    def checked(self) -> set[TopicPartition]:
        return self.held - self.flow.unchecked().keys()

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


def test_nothing_is_fetched_while_what_is_in_work_is_large_however_few_records_it_is() -> None:
    flow = Flow(limit=100, max_bytes=1_000)
    flow.assign([A])
    flow.halts_read((), unchecked=flow.unchecked())
    tickets = [flow.begin(A, offset, num_bytes=400) for offset in range(3)]
    assert flow.should_pause()
    for ticket, is_paused in zip(tickets, [True, False, False], strict=True):
        assert ticket is not None
        flow.finish(ticket)
        assert flow.should_pause() is is_paused
    assert flow.num_in_flight == 0
