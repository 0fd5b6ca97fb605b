"""The rows behind events: what an audit of topics compares them with."""

from sqlalchemy import Engine, event

from deltawheel.contracts.dead_letter import Burial
from deltawheel.contracts.events import event_id
from deltawheel.contracts.record import Record
from deltawheel.contracts.store import GroupEnd, Store
from deltawheel.contracts.topic_audit import StoredPair
from tests.infra.store.stored import add_judged
from tests.records import (
    a_closing,
    a_dead_letter,
    a_judgement,
    a_pair,
    a_prompt,
    a_prompt_failure,
    a_quarantined_pair,
    a_slot_failure,
    a_trace,
    an_assignment,
    seconds,
)

PROMPT, FAILED = a_prompt(), a_prompt("failed")


def test_every_kind_of_event_finds_what_the_store_would_publish(store: Store) -> None:
    add_judged(store)
    store.add_prompts([FAILED])
    failures = [a_slot_failure(an_assignment(FAILED))]
    store.add_slot_failures(failures)
    store.add_prompt_failures([a_prompt_failure(FAILED)])
    pair, odd = a_pair(PROMPT), a_quarantined_pair(a_pair(FAILED))
    store.close_groups(
        [
            GroupEnd(closing=a_closing(PROMPT), pairs=(pair,)),
            GroupEnd(closing=a_closing(FAILED), quarantined=(odd,)),
        ]
    )
    held: list[Record] = [
        PROMPT,
        a_trace(an_assignment(PROMPT)),
        a_judgement(a_trace(an_assignment(PROMPT))),
        *failures,
        a_prompt_failure(FAILED),
        pair,
        odd,
    ]
    rows = store.held_events(held)
    assert [rows.get(event_id(record)) for record in held] == held


def test_event_that_says_otherwise_finds_what_is_stored(store: Store) -> None:
    add_judged(store)
    stored, other = (a_trace(answer=answer) for answer in ("1+1=2", "1+1=9"))
    assert store.held_events([other])[event_id(other)] == stored


def test_event_without_a_row_or_with_an_impossible_id_finds_nothing(store: Store) -> None:
    absent = a_trace()
    impossible = absent.model_copy(update={"trace_id": "trace_\0"})
    assert store.held_events([absent, impossible]) == {}
    assert store.held_events([]) == {}


def test_payloads_of_dead_letters_are_known(store: Store) -> None:
    store.bury([Burial(a_dead_letter(b"\xff"))])
    assert store.dead_values([b"\xff", b"alive"]) == {b"\xff"}


def test_large_payloads_are_asked_for_a_few_at_a_time(store: Store) -> None:
    values = [bytes([number]) * 3_000_000 for number in range(4)] + [b"x" * 9_000_000]
    store.bury([Burial(a_dead_letter(values[3]))])
    asked: list[str] = []

    def note(_: object, __: object, statement: str, *___: object) -> None:
        if "FROM dead_letters" in statement:
            asked.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        assert store.dead_values([*values, b"small"]) == {values[3]}
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    assert len(asked) == 3, "two of 3 MB at a time, and the largest by itself"


def test_stored_pairs_are_those_made_in_a_span(store: Store) -> None:
    pairs = [
        a_pair(add_judged(store, a_prompt(f"{at}+1=")), paired_at=seconds(at))
        for at in (10, 20, 30)
    ]
    for pair in pairs:
        store.close_groups([GroupEnd(closing=a_closing(pair.prompt), pairs=(pair,))])
    found = list(store.stored_pairs(since=seconds(10), before=seconds(30)))
    assert found == [StoredPair(pairs[1].pair_id, pairs[1].key)]
