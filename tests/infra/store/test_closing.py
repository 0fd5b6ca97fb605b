"""Closing a group: one closing, one set of pairs, whoever comes how often."""

from deltawheel.contracts.outcome import Outcome
from deltawheel.contracts.store import GroupEnd, Store
from deltawheel.contracts.transition import TransitionKind
from tests.infra.store.stored import add_judged, in_threads, open_next
from tests.records import (
    a_closing,
    a_pair,
    a_paired_end,
    a_prompt,
    a_quarantined_end,
    a_quarantined_pair,
    seconds,
)


def test_closing_stores_pairs_and_returns_their_events(store: Store) -> None:
    pair = a_pair(add_judged(store))
    assert store.close_groups([a_paired_end(pair)]) == [pair]
    assert store.pair(pair.pair_id) == pair
    progress = store.progress()
    assert (progress.pairs, progress.outcomes) == (1, {Outcome.PAIRED: 1})
    assert progress.is_drained
    assert progress.oldest_open_at is None


def test_closing_twice_writes_nothing_and_returns_what_the_first_wrote(store: Store) -> None:
    prompt = add_judged(store)
    pair = a_pair(prompt)
    store.close_groups([a_paired_end(pair)])
    mirror = a_pair(prompt, chosen_slot=1)
    assert store.close_groups([a_paired_end(mirror)]) == [pair]
    unpaired = GroupEnd(closing=a_closing(prompt, outcome=Outcome.UNPAIRED))
    assert store.close_groups([unpaired]) == [pair]
    assert store.progress().outcomes == {Outcome.PAIRED: 1}


def test_closing_without_pairs_returns_nothing(store: Store) -> None:
    prompt = add_judged(store)
    assert store.close_groups([GroupEnd(closing=a_closing(outcome=Outcome.UNPAIRED))]) == []
    assert store.close_groups([]) == []
    group = store.group(prompt.key)
    assert group is not None
    assert group.closing == a_closing(outcome=Outcome.UNPAIRED)


def test_quarantined_pair_is_kept_apart_with_its_reasons(store: Store) -> None:
    add_judged(store)
    quarantined = a_quarantined_pair(expectations=("expect_a", "expect_b"))
    assert store.close_groups([a_quarantined_end(quarantined)]) == [quarantined]
    progress = store.progress()
    assert (progress.pairs, progress.outcomes) == (0, {Outcome.QUARANTINED: 1})
    assert progress.quarantined == {"expect_a": 1, "expect_b": 1}
    assert store.count_pairs() == 0


def test_micro_batch_is_one_closing_per_group_even_if_named_twice(store: Store) -> None:
    prompts = [add_judged(store, a_prompt(f"{number}+1=")) for number in range(3)]
    pairs = [a_pair(prompt) for prompt in prompts]
    store.close_groups([a_paired_end(pairs[1])])
    ends = [a_paired_end(pair) for pair in (pairs[2], pairs[1], pairs[2], pairs[0])]
    assert store.close_groups(ends) == [pairs[2], pairs[1], pairs[0]]
    assert store.progress().pairs == 3


def test_one_of_two_closers_wins(store: Store) -> None:
    prompt = add_judged(store)
    pair = a_pair(prompt)
    unpaired = GroupEnd(closing=a_closing(prompt, outcome=Outcome.UNPAIRED))
    ends = (a_paired_end(pair), unpaired)
    told = in_threads(6, lambda index: store.close_groups([ends[index % 2]]))
    held = [pair] if store.count_pairs() else []
    assert told == [held] * 6


def test_closers_that_come_in_opposite_orders_never_stand_in_each_others_way(store: Store) -> None:
    prompts = [a_prompt(f"{number}+1=") for number in range(300)]
    store.add_prompts(prompts)
    ends = [
        a_paired_end(a_pair(prompt)) for prompt in sorted(prompts, key=lambda prompt: prompt.key)
    ]
    told = in_threads(6, lambda index: store.close_groups(ends[:: -1 if index % 2 else 1]))
    assert [len(events) for events in told] == [300] * 6
    assert store.progress().outcomes == {Outcome.PAIRED: 300}


def test_pair_that_is_released_from_quarantine_is_stored_beside_its_history(store: Store) -> None:
    prompt = add_judged(store)
    quarantined = a_quarantined_pair(a_pair(prompt))
    store.close_groups([a_quarantined_end(quarantined)])
    open_next(store, prompt, kind=TransitionKind.RELEASE)
    released = GroupEnd(closing=a_closing(prompt, attempt=2), pairs=(a_pair(prompt),))
    assert store.close_groups([released]) == [a_pair(prompt)], "released, and so a pair only"
    assert store.progress().outcomes == {Outcome.PAIRED: 1}
    assert store.progress().quarantined, "history is not rewritten"


def test_closing_of_an_attempt_that_was_superseded_does_not_close_the_prompt(store: Store) -> None:
    prompt = add_judged(store)
    store.close_groups([GroupEnd(closing=a_closing(prompt, outcome=Outcome.UNPAIRED))])
    open_next(store, prompt)
    store.close_groups([GroupEnd(closing=a_closing(prompt, outcome=Outcome.UNPAIRED))])
    assert not store.progress().is_drained
    assert store.owed(before=seconds(5_000), limit=10)


def test_pair_that_comes_after_an_unpaired_closing_is_not_stored(store: Store) -> None:
    prompt = add_judged(store)
    store.close_groups([GroupEnd(closing=a_closing(prompt, outcome=Outcome.UNPAIRED))])
    assert store.close_groups([a_paired_end(a_pair(prompt))]) == []
    assert store.count_pairs() == 0
