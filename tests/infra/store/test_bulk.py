"""Bulk writes on both databases: row by row the first writer wins, and nothing is half done."""

from collections.abc import Callable

import pytest

from deltawheel.contracts.assignment import Assignment
from deltawheel.contracts.errors import InvalidRecordError
from deltawheel.contracts.store import Store
from deltawheel.contracts.trace import Trace
from deltawheel.infra.store.store import SqlStore
from tests.records import T0, a_prompt, a_trace, an_assignment

PROMPTS = [a_prompt(text) for text in ("one", "two", "three", "four")]


def assignments(store: Store) -> list[Assignment]:
    store.add_prompts(PROMPTS)
    return store.add_assignments([an_assignment(prompt) for prompt in PROMPTS])


def traces(planned: list[Assignment], *, answer: str) -> list[Trace]:
    return [a_trace(assignment, answer=answer) for assignment in planned]


def test_all_of_a_batch_are_stored_when_all_are_new(store: Store) -> None:
    given = traces(assignments(store), answer="first")
    assert store.add_traces(given) == given
    assert [store.trace(each.trace_id) for each in given] == given


def test_of_a_batch_only_what_is_new_is_stored(store: Store) -> None:
    planned = assignments(store)
    first, later = traces(planned, answer="first"), traces(planned, answer="later")
    store.add_traces(first[1:3])
    mixed = [later[0], first[1], first[2], later[3]]
    assert store.add_traces(later) == mixed
    assert [store.trace(each.trace_id) for each in later] == mixed


def test_of_two_alike_in_a_batch_the_first_is_stored(store: Store) -> None:
    planned = assignments(store)[:1]
    first, later = traces(planned, answer="first"), traces(planned, answer="later")
    assert store.add_traces([*first, *later]) == [*first, *first]
    assert store.trace(first[0].trace_id) == first[0]


def test_invalid_row_leaves_nothing_of_its_batch(store: Store) -> None:
    good, bad = traces(assignments(store)[:2], answer="first")
    with pytest.raises(InvalidRecordError, match="NUL"):
        store.add_traces([good, bad.model_copy(update={"generator": "a\0b"})])
    assert store.trace(good.trace_id) is None
    assert store.add_traces([good]) == [good]


def test_columns_without_a_value_get_their_default(opened: Callable[..., SqlStore]) -> None:
    store = opened()
    assignments(store)
    groups = store.groups([prompt.key for prompt in PROMPTS])
    assert {group.attempt for group in groups.values()} == {1}
    assert {group.opened_at for group in groups.values()} == {T0}
