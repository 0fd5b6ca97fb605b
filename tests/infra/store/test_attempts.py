"""Further attempts: what succeeded is reused, only failures are tried again."""

from hypothesis import given, settings
from hypothesis import strategies as st

from deltawheel.contracts.judgement import SlotFailed
from deltawheel.contracts.outcome import Outcome
from deltawheel.contracts.prompt import Prompt
from deltawheel.contracts.store import GroupEnd, Store
from deltawheel.contracts.transition import TransitionKind
from deltawheel.infra.simulated.store import SimulatedStore
from tests.infra.store.stored import LATER, add_asked, add_judged, open_next
from tests.records import (
    WHEEL,
    a_closing,
    a_judgement,
    a_pair,
    a_paired_end,
    a_prompt,
    a_prompt_failure,
    a_slot_failure,
    a_trace,
    an_assignment,
    seconds,
)

FOR_EVER = seconds(10**9)


def add_half_failed(store: Store, prompt: Prompt | None = None) -> Prompt:
    """Store a prompt of which slot 0 was judged, slot 1 failed without a trace, and close it."""
    prompt = add_asked(store, prompt)
    assignment = an_assignment(prompt)
    [trace] = store.add_traces([a_trace(assignment)])
    store.add_judgements([a_judgement(trace)])
    store.add_slot_failures([a_slot_failure(assignment, 1)])
    store.close_groups([GroupEnd(closing=a_closing(prompt, outcome=Outcome.UNPAIRED))])
    return prompt


def test_next_attempt_keeps_what_was_judged_and_opens_what_failed(store: Store) -> None:
    prompt = add_half_failed(store)
    [opened] = open_next(store, prompt)
    assert (opened.attempt, opened.by, opened.kind) == (2, "ann", TransitionKind.REPLAY)
    group = store.group(prompt.key)
    assert group is not None
    assert (group.attempt, group.opened_at) == (2, LATER)
    assert (group.ended_slots, group.slot_failures, group.closing) == (frozenset({0}), [], None)
    assert len(group.judgements) == len(group.traces) == 1
    assert store.owed(before=FOR_EVER, limit=10) == [prompt], "its open slot is to be asked again"


def test_slot_with_a_trace_owes_its_trace_and_reuses_a_late_judgement(store: Store) -> None:
    prompt = add_asked(store)
    assignment = an_assignment(prompt)
    traces = store.add_traces([a_trace(assignment, slot) for slot in (0, 1)])
    store.add_slot_failures([a_slot_failure(assignment, slot) for slot in (0, 1)])
    late = store.add_judgements([a_judgement(traces[0])])
    store.close_groups([GroupEnd(closing=a_closing(prompt, outcome=Outcome.DEAD_LETTERED))])
    open_next(store, prompt)
    owed = store.owed(before=FOR_EVER, limit=10)
    assert sorted(owed, key=str) == sorted(traces, key=str)
    assert store.add_judgements(late) == late
    group = store.group(prompt.key)
    assert group is not None
    assert group.ended_slots == {0}


def test_opening_twice_opens_once_until_the_new_attempt_has_failed(store: Store) -> None:
    prompt = add_half_failed(store)
    assert len(open_next(store, prompt, prompt)) == 1
    assert open_next(store, prompt) == [], "it is under way"
    failure = a_slot_failure(an_assignment(prompt), 1).model_copy(update={"attempt": 2})
    assert store.add_slot_failures([failure]) == [failure]
    [third] = open_next(store, prompt)
    assert third.attempt == 3


def test_paired_prompt_and_one_that_is_not_there_have_nothing_to_try_again(store: Store) -> None:
    paired = add_judged(store)
    store.close_groups([a_paired_end(a_pair(paired))])
    untried = add_asked(store, a_prompt("2+2="))
    assert open_next(store, paired, untried, a_prompt("unknown")) == []


def test_prompt_that_nobody_was_asked_is_asked_in_the_next_attempt(store: Store) -> None:
    prompt = a_prompt()
    store.add_prompts([prompt])
    store.add_prompt_failures([a_prompt_failure(prompt)])
    store.close_groups([GroupEnd(closing=a_closing(prompt, outcome=Outcome.DEAD_LETTERED))])
    open_next(store, prompt)
    group = store.group(prompt.key)
    assert group is not None
    assert (group.prompt_failure, group.has_ended) == (None, False)
    assert store.owed(before=FOR_EVER, limit=10) == [prompt]


def test_quarantined_prompt_closes_anew_from_its_judgements(store: Store) -> None:
    prompt = add_judged(store)
    store.close_groups([GroupEnd(closing=a_closing(prompt, outcome=Outcome.QUARANTINED))])
    open_next(store, prompt, kind=TransitionKind.RELEASE)
    group = store.group(prompt.key)
    assert group is not None
    assert group.has_ended
    assert len(store.owed(before=FOR_EVER, limit=10)) == 1


def test_new_attempt_has_an_expiry_of_its_own(store: Store) -> None:
    prompt = add_half_failed(store)
    [opened] = open_next(store, prompt)
    assert store.expired(at=LATER, limit=10) == [], "the first attempt's expiry is long over"
    [failure] = store.expired(at=opened.expires_at, limit=10)
    assert (failure.slot, failure.attempt, failure.is_expired) == (1, 2, True)


def test_failure_that_comes_from_a_superseded_attempt_ends_nothing_now(store: Store) -> None:
    prompt = add_half_failed(store)
    open_next(store, prompt)
    store.add_slot_failures([a_slot_failure(an_assignment(prompt), 1)])
    group = store.group(prompt.key)
    assert group is not None
    assert group.ended_slots == {0}


@settings(deadline=None, max_examples=25)
@given(st.lists(st.sampled_from(["open", "judge", "fail", "close"]), max_size=12))
def test_any_order_of_attempts_ends_each_slot_once_in_each(actions: list[str]) -> None:
    store = SimulatedStore(wheel=WHEEL)
    prompt = add_half_failed(store)
    assignment = an_assignment(prompt)
    for action in actions:
        group = store.group(prompt.key)
        assert group is not None
        if action == "open":
            opened = open_next(store, prompt)
            can_open = group.closing is not None or any(
                isinstance(failure, SlotFailed) for failure in group.slot_failures
            )
            is_paired = group.closing is not None and group.closing.outcome is Outcome.PAIRED
            assert bool(opened) == (can_open and not is_paired)
        elif action == "judge":
            [trace] = store.add_traces([a_trace(assignment, 1)])
            store.add_judgements([a_judgement(trace)])
        elif action == "fail":
            failure = a_slot_failure(assignment, 1)
            store.add_slot_failures([failure.model_copy(update={"attempt": group.attempt})])
        elif group.has_ended and group.closing is None:
            is_pair = not group.slot_failures
            outcome = Outcome.PAIRED if is_pair else Outcome.UNPAIRED
            closing = a_closing(prompt, outcome=outcome, attempt=group.attempt)
            pairs = (a_pair(prompt),) if is_pair else ()
            store.close_groups([GroupEnd(closing=closing, pairs=pairs)])
    (row,) = store.evidence()
    assert row.ended_slots <= 2
    assert store.count_pairs() <= 1
    store.close()
