"""What is owed, in every state of a group."""

from deltawheel.contracts.judgement import Judgement, SlotFailed
from deltawheel.contracts.outcome import Outcome
from deltawheel.contracts.store import GroupEnd, Store
from tests.infra.store.stored import LATER, add_asked, add_judged
from tests.records import (
    T0,
    a_closing,
    a_generator,
    a_judgement,
    a_pair,
    a_paired_end,
    a_prompt,
    a_prompt_failure,
    a_slot_failure,
    a_trace,
    seconds,
)


def test_unasked_prompt_is_owed_until_asked_or_failed(store: Store) -> None:
    prompt = a_prompt()
    store.add_prompts([prompt])
    assert store.owed(before=T0, limit=10) == []
    assert store.owed(before=LATER, limit=10) == [prompt]
    failure = store.add_prompt_failures([a_prompt_failure(prompt)])[0]
    assert store.owed(before=LATER, limit=10) == [failure]
    assert store.owed(before=failure.failed_at, limit=10) == []
    store.close_groups([GroupEnd(closing=a_closing(prompt, outcome=Outcome.DEAD_LETTERED))])
    assert store.owed(before=LATER, limit=10) == []


def test_prompt_is_owed_while_a_slot_has_neither_trace_nor_end(store: Store) -> None:
    prompt = add_asked(store)
    assert store.owed(before=LATER, limit=10) == [prompt]
    trace = store.add_traces([a_trace()])[0]
    assert store.owed(before=LATER, limit=10) == [prompt, trace]
    store.add_slot_failures([a_slot_failure(slot=1)])
    assert store.owed(before=LATER, limit=10) == [trace]


def test_slot_with_trace_and_end_counts_once(store: Store) -> None:
    prompt = add_asked(store)
    judgement = store.add_judgements([a_judgement(store.add_traces([a_trace()])[0])])[0]
    assert store.owed(before=LATER, limit=10) == [prompt]
    store.add_slot_failures([a_slot_failure(slot=1)])
    assert store.owed(before=LATER, limit=10) == [judgement]


def test_trace_is_owed_until_its_slot_has_ended(store: Store) -> None:
    add_asked(store)
    traces = [store.add_traces([a_trace(slot=slot)])[0] for slot in (0, 1)]
    assert sorted(store.owed(before=LATER, limit=10), key=lambda trace: trace.slot) == traces  # type: ignore[attr-defined]
    assert store.owed(before=traces[0].generated_at, limit=10) == []
    store.add_judgements([a_judgement(traces[0])])
    assert store.owed(before=LATER, limit=10) == [traces[1]]


def test_ended_group_is_owed_until_closed(store: Store) -> None:
    prompt = add_asked(store)
    store.add_slot_failures([a_slot_failure(slot=0, failed_at=seconds(3))])
    store.add_slot_failures([a_slot_failure(slot=1, failed_at=seconds(8))])
    assert store.owed(before=seconds(8), limit=10) == []
    (event,) = store.owed(before=LATER, limit=10)
    assert isinstance(event, SlotFailed)
    assert event.key == prompt.key
    store.close_groups([GroupEnd(closing=a_closing(outcome=Outcome.DEAD_LETTERED))])
    assert store.owed(before=LATER, limit=10) == []


def test_judged_group_is_owed_by_a_judgement(store: Store) -> None:
    prompt = add_judged(store)
    (event,) = store.owed(before=LATER, limit=10)
    assert isinstance(event, Judgement)
    assert event.key == prompt.key


def test_owed_is_limited_to_the_oldest_prompts(store: Store) -> None:
    prompts = [a_prompt(f"{number}+1=", accepted_at=seconds(-number)) for number in range(9)]
    store.add_prompts(prompts)
    assert store.owed(before=LATER, limit=2) == [prompts[8], prompts[7]]
    since = prompts[7].accepted_at
    assert store.owed(before=LATER, limit=2, since=since) == [prompts[7], prompts[6]]


def test_redelivered_prompt_does_not_open_a_closed_group(store: Store) -> None:
    prompt = add_judged(store)
    store.close_groups([a_paired_end(a_pair(prompt))])
    store.add_prompts([prompt])
    assert store.owed(before=LATER, limit=10) == []
    assert store.progress().oldest_open_at is None


def test_revision_is_needed_while_a_prompt_that_was_dealt_to_it_is_open(store: Store) -> None:
    strong, weak = a_generator("strong"), a_generator("weak")
    assert not store.has_open_slots(strong)
    prompt = add_asked(store)
    assert store.has_open_slots(strong)
    assert store.has_open_slots(weak)
    assert not store.has_open_slots(a_generator("mid"))
    assert not store.has_open_slots(a_generator("strong", revision="%"))
    store.close_groups([GroupEnd(closing=a_closing(prompt, outcome=Outcome.UNPAIRED))])
    assert not store.has_open_slots(strong)
