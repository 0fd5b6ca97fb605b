"""Dead letters that wait for an operator, and what is done about them, on both databases."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import Connection, event

from deltawheel.contracts.dead_letter import Burial, DeadLetter
from deltawheel.contracts.letters import EntryKind, LetterEntry, MoveKind, Replayed
from deltawheel.contracts.outcome import Outcome
from deltawheel.contracts.prompt import Prompt, PromptKey
from deltawheel.contracts.store import GroupEnd, Store
from deltawheel.infra.store.store import SqlStore
from deltawheel.infra.store.tables import LETTER_MOVES, TRANSITIONS
from tests.infra.store.stored import LATER, add_asked, add_judged, in_threads, open_next
from tests.records import (
    a_closing,
    a_dead_letter,
    a_judgement,
    a_prompt,
    a_slot_failure,
    a_trace,
    an_assignment,
    seconds,
)


def a_letter(number: int = 0, **changes: object) -> DeadLetter:
    """A letter that died so many seconds after the others."""
    letter = a_dead_letter(b"%d" % number, died_at=seconds(number))
    return letter.model_copy(update=changes)


def add_letter_of(store: Store, prompt: Prompt, number: int = 0, slot: int = 0) -> DeadLetter:
    """Bury the trace of a slot; the slot ends with it."""
    letter = a_letter(number, prompt_key=prompt.key)
    store.bury([Burial(letter, [a_slot_failure(an_assignment(prompt), slot)])])
    return letter


def close_dead(store: Store, prompt: Prompt, *, attempt: int = 1) -> None:
    """Close a prompt of which every slot failed."""
    failures = [
        a_slot_failure(an_assignment(prompt), slot).model_copy(update={"attempt": attempt})
        for slot in (0, 1)
    ]
    store.add_slot_failures(failures)
    closing = a_closing(prompt, outcome=Outcome.DEAD_LETTERED, attempt=attempt)
    store.close_groups([GroupEnd(closing=closing)])


def listed(store: Store, *, with_moved: bool = False) -> list[str]:
    return [entry.entry_id for entry in store.letter_entries(with_moved=with_moved)]


def replay(store: Store, *entry_ids: str) -> Replayed:
    entries = list(store.find_entries(entry_ids).values())
    assert len(entries) == len(entry_ids)
    return replay_entries(store, entries)


def replay_entries(store: Store, entries: list[LetterEntry]) -> Replayed:
    until = LATER + timedelta(hours=1)
    return store.replay_prompts(entries, by="ann", reason="mended", at=LATER, expires_at=until)


def drop(store: Store, *entry_ids: str) -> set[str]:
    entries = store.find_entries(entry_ids).values()
    return store.move_letters(
        [each.moved(MoveKind.DROPPED, by="ann", reason="noise", at=LATER) for each in entries]
    )


def test_letters_and_prompts_without_one_are_listed_newest_first(store: Store) -> None:
    letters = [a_letter(number) for number in (1, 9, 3)]
    for letter in letters:
        store.bury([Burial(letter)])
    prompt = add_asked(store)
    close_dead(store, prompt)
    first, second, third = (letter.letter_id for letter in (letters[1], letters[2], letters[0]))
    assert listed(store) == [first, f"{prompt.prompt_id}:0", second, third]
    record, refused, *_ = store.letter_entries()
    assert (record.kind, record.service, record.num_bytes) == (EntryKind.RECORD, "judging", 1)
    assert (record.prompt_key, record.domain, record.move) == (None, None, None)
    assert (refused.kind, refused.service, refused.reason) == (
        EntryKind.PROMPT,
        None,
        "a test closed it",
    )
    assert (refused.prompt_key, refused.domain, refused.attempt) == (prompt.key, "sums", 1)


def test_pages_go_on_behind_the_last_entry_also_of_one_moment(store: Store) -> None:
    for number in range(4):
        store.bury([Burial(a_letter(number, died_at=seconds(5)))])
    prompts = [add_asked(store, a_prompt(f"{number}+1=")) for number in range(4)]
    for prompt in prompts:
        close_dead(store, prompt)
    everything = list(store.letter_entries())
    assert len(everything) == 8
    for index, entry in enumerate(everything):
        assert list(store.letter_entries(after=entry)) == everything[index + 1 :]


def test_prompt_is_listed_through_its_letter_and_not_again_once_that_was_dropped(
    store: Store,
) -> None:
    prompt = add_asked(store)
    letter = add_letter_of(store, prompt)
    close_dead(store, prompt)
    assert listed(store) == [letter.letter_id]
    [entry] = store.letter_entries()
    assert entry.held_key == prompt.key
    assert drop(store, letter.letter_id) == {letter.letter_id}
    assert listed(store) == []
    [kept] = store.letter_entries(with_moved=True)
    assert kept.move is not None
    assert (kept.move.kind, kept.move.by, kept.move.reason) == (MoveKind.DROPPED, "ann", "noise")
    assert store.dead_letters(9) == [letter], "history is never rewritten"


def test_replay_opens_the_next_attempt_and_moves_all_letters_of_the_prompt(store: Store) -> None:
    prompt = add_asked(store)
    letters = [add_letter_of(store, prompt, slot, slot) for slot in (0, 1)]
    stranger = a_letter(7)
    store.bury([Burial(stranger)])
    close_dead(store, prompt)
    done = replay(store, letters[0].letter_id)
    assert done.moved == {letter.letter_id for letter in letters}
    transition = done.opened[prompt.key]
    assert (transition.attempt, transition.by, transition.reason) == (2, "ann", "mended")
    assert listed(store) == [stranger.letter_id]
    group = store.group(prompt.key)
    assert group is not None
    assert (group.attempt, group.closing) == (2, None)


def test_replaying_twice_changes_nothing_more_even_when_the_new_attempt_failed_too(
    store: Store,
) -> None:
    prompt = add_asked(store)
    letter = add_letter_of(store, prompt)
    close_dead(store, prompt)
    [entry] = store.letter_entries()
    assert replay_entries(store, [entry]).opened.keys() == {prompt.key}
    assert replay_entries(store, [entry]) == Replayed(moved=frozenset(), opened={})
    close_dead(store, prompt, attempt=2)
    assert replay_entries(store, [entry]) == Replayed(moved=frozenset(), opened={})
    assert listed(store) == [f"{prompt.prompt_id}:0"], "the second attempt is dead-lettered"
    assert listed(store, with_moved=True) == [letter.letter_id, f"{prompt.prompt_id}:0"][::-1]


def test_prompt_that_is_dead_lettered_again_is_listed_again(store: Store) -> None:
    prompt = add_asked(store)
    close_dead(store, prompt)
    entry_id = f"{prompt.prompt_id}:0"
    [first] = store.letter_entries()
    assert replay(store, entry_id).opened[prompt.key].attempt == 2
    assert listed(store) == []
    close_dead(store, prompt, attempt=2)
    [second] = store.letter_entries()
    assert (second.entry_id, second.attempt, second.move) == (entry_id, 2, None)
    assert store.find_entries([entry_id]) == {entry_id: second}, "not the first, which is over"
    assert first.move is None
    assert drop(store, entry_id) == {f"{entry_id}:2"}
    assert listed(store) == []
    assert listed(store, with_moved=True) == [entry_id, entry_id]


def test_who_still_sees_an_earlier_attempt_opens_no_further_one(store: Store) -> None:
    prompt = add_asked(store)
    close_dead(store, prompt)
    [seen] = store.letter_entries()
    open_next(store, prompt)
    close_dead(store, prompt, attempt=2)
    assert replay_entries(store, [seen]).opened == {}
    assert listed(store) == [seen.entry_id], "the second attempt still waits"


def test_letter_that_was_dropped_hides_no_later_attempt(store: Store) -> None:
    prompt = add_asked(store)
    letter = add_letter_of(store, prompt)
    close_dead(store, prompt)
    drop(store, letter.letter_id)
    open_next(store, prompt)
    close_dead(store, prompt, attempt=2)
    assert listed(store) == [f"{prompt.prompt_id}:0"]


def test_what_was_judged_is_kept_and_the_rest_is_owed(store: Store) -> None:
    prompt = add_asked(store)
    assignment = an_assignment(prompt)
    judged, refused = store.add_traces([a_trace(assignment, slot) for slot in (0, 1)])
    store.add_judgements([a_judgement(judged)])
    letter = add_letter_of(store, prompt, slot=1)
    replay(store, letter.letter_id)
    group = store.group(prompt.key)
    assert group is not None
    assert group.ended_slots == {0}
    assert group.owed == [refused] == store.owed(before=seconds(10**9), limit=9)


def test_letter_whose_prompt_has_nothing_to_try_again_is_moved_alone(store: Store) -> None:
    prompt = add_asked(store)
    letter = a_letter(prompt_key=prompt.key)
    store.bury([Burial(letter)])
    done = replay(store, letter.letter_id)
    assert done == Replayed(moved=frozenset({letter.letter_id}), opened={})
    assert store.next_attempts([prompt.key]) == {}


def test_next_attempts_are_those_that_a_replay_opens(store: Store) -> None:
    dead, half, open_ = (add_asked(store, a_prompt(f"{number}=")) for number in range(3))
    close_dead(store, dead)
    store.add_slot_failures([a_slot_failure(an_assignment(half))])
    keys = [dead.key, half.key, open_.key, PromptKey("nobody's", 0)]
    assert store.next_attempts(keys) == {dead.key: 2, half.key: 2}


def test_letter_of_a_prompt_that_the_store_lacks_is_no_prompts(store: Store) -> None:
    for number, key in enumerate((PromptKey("prompt_unknown", 0), PromptKey("a\0b", 3))):
        store.bury([Burial(a_letter(number, prompt_key=key))])
    for entry in store.letter_entries():
        assert entry.prompt_key is not None
        assert (entry.domain, entry.held_key) == (None, None)


def test_letter_that_died_again_after_a_replay_is_a_new_one(store: Store) -> None:
    letter = a_letter()
    store.bury([Burial(letter)])
    [entry] = store.letter_entries()
    store.move_letters([entry.moved(MoveKind.REPLAYED, by="ann", reason="", at=LATER)])
    store.bury([Burial(letter)])
    assert listed(store) == [], "a record that comes twice is one letter, replayed or not"
    again = a_letter(attempt=2)
    store.bury([Burial(again)])
    assert listed(store) == [again.letter_id] != [letter.letter_id]
    assert store.letters_by_id([letter.letter_id, again.letter_id, "letter_0"]) == {
        letter.letter_id: letter,
        again.letter_id: again,
    }


def test_another_wheels_letters_are_its_own(store: Store, url: str) -> None:
    store.bury([Burial(a_letter())])
    other = SqlStore(url, wheel="other")
    assert list(other.letter_entries()) == []
    assert other.find_entries([a_letter().letter_id]) == {}
    assert other.letters_by_id([a_letter().letter_id]) == {}
    other.close()


@pytest.mark.parametrize("entry_id", ["", ":", "letter_0", "prompt_0:0", "a\0b", "prompt:x", ":1"])
def test_unknown_id_is_absent(store: Store, entry_id: str) -> None:
    close_dead(store, add_asked(store))
    assert store.find_entries([entry_id]) == {}


def test_of_many_who_replay_at_once_one_opens_each_prompt(
    store: Store, opened: Callable[..., SqlStore]
) -> None:
    prompts = [add_asked(store, a_prompt(f"{number}+1=")) for number in range(10)]
    for number, prompt in enumerate(prompts):
        add_letter_of(store, prompt, number)
        close_dead(store, prompt)
    entries = list(store.letter_entries())
    members = [opened() for _ in range(4)]
    results: list[Replayed] = in_threads(4, lambda index: replay_entries(members[index], entries))
    keys = [key for result in results for key in result.opened]
    assert sorted(keys) == sorted(prompt.key for prompt in prompts)
    ids = [letter_id for result in results for letter_id in result.moved]
    assert sorted(ids) == sorted(entry.entry_id for entry in entries)


class CrashError(Exception):
    """Stands for the death of the process."""


@pytest.mark.parametrize("table", [LETTER_MOVES.name, TRANSITIONS.name])
def test_crash_within_a_replay_leaves_neither_move_nor_attempt(
    opened: Callable[..., SqlStore], table: str
) -> None:
    store = opened()
    prompt = add_asked(store)
    letter = add_letter_of(store, prompt)
    close_dead(store, prompt)

    def crash(connection: Connection, cursor: object, statement: str, *_: object) -> None:
        if statement.startswith(f"INSERT INTO {table}"):
            raise CrashError

    engine = store._database._engine
    event.listen(engine, "after_cursor_execute", crash)
    with pytest.raises(CrashError):
        replay(store, letter.letter_id)
    event.remove(engine, "after_cursor_execute", crash)
    assert listed(store) == [letter.letter_id]
    group = store.group(prompt.key)
    assert group is not None
    assert (group.attempt, group.closing is None) == (1, False)
    assert replay(store, letter.letter_id).opened.keys() == {prompt.key}


def test_progress_counts_letters_that_wait(store: Store) -> None:
    for number in range(3):
        store.bury([Burial(a_letter(number))])
    drop(store, a_letter(1).letter_id)
    progress = store.progress()
    assert (progress.dead_letters, progress.unmoved_letters) == (3, 2)


def test_owed_of_a_group_is_what_the_store_owes_of_it(store: Store) -> None:
    bare = a_prompt("bare")
    store.add_prompts([bare])
    asked, judged, closed = add_asked(store, a_prompt("1")), add_judged(store), a_prompt("closed")
    half = add_asked(store, a_prompt("half"))
    store.add_traces([a_trace(an_assignment(half), 0)])
    close_dead(store, add_asked(store, closed))
    owed = store.owed(before=seconds(10**9), limit=99)
    groups = store.groups([prompt.key for prompt in (bare, asked, judged, closed, half)])
    found = [event for group in groups.values() for event in group.owed]
    assert sorted(map(str, found)) == sorted(map(str, owed))
