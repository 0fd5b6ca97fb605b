"""Outages, deferred records, halts and unsent letters, as both databases keep them."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from deltawheel.contracts.dead_letter import Burial
from deltawheel.contracts.interruptions import Backlog, Deferral, Halt, Outage
from deltawheel.contracts.prompt import PromptKey
from deltawheel.contracts.store import Store
from deltawheel.infra.store.store import SqlStore
from tests.infra.store.stored import TOO_LONG_ID, add_asked, in_threads
from tests.records import (
    T0,
    a_dead_letter,
    a_deferral,
    a_prompt,
    a_slot_failure,
    a_trace,
    an_assignment,
    seconds,
)

MINUTE = timedelta(minutes=1)
NO_IDS = {"too long for an index": TOO_LONG_ID, "NUL": "a\0b"}


def an_outage(since_s: float, until_s: float, dependency: str = "store") -> Outage:
    return Outage(dependency=dependency, began_at=seconds(since_s), ended_at=seconds(until_s))


def a_halt(partition: int = 0, *, at: datetime = T0, service: str = "judging") -> Halt:
    return Halt(
        service=service,
        topic="test.traces",
        partition=partition,
        offset=2**40,
        reason="20 records in a row",
        halted_at=at,
    )


def claim(
    store: Store, *, at_s: float, limit: int = 10, down: frozenset[str] = frozenset()
) -> list[Deferral]:
    at = seconds(at_s)
    return store.claim_deferrals("judging", at=at, until=at + MINUTE, limit=limit, down=down)


def test_outage_is_prolonged_and_never_shortened(store: Store) -> None:
    store.note_outages([an_outage(10, 20), an_outage(5, 6, "broker")])
    store.note_outages([an_outage(10, 30)])
    store.note_outages([an_outage(10, 25)])
    assert store.outages(since=T0) == [an_outage(5, 6, "broker"), an_outage(10, 30)]
    assert store.outages(since=seconds(6)) == [an_outage(10, 30)]
    store.note_outages([])


def test_expiry_moves_forward_by_outages_and_standstills_each_second_once(store: Store) -> None:
    end = an_assignment(add_asked(store)).expires_at
    store.watch(at=T0, longest_gap=MINUTE, is_paused=False)
    store.watch(at=seconds(600), longest_gap=MINUTE, is_paused=False)
    store.note_outages([an_outage(300, 900), an_outage(500, 1_000, "server:local")])
    assert store.standstill(T0, end) == timedelta(seconds=1_000)
    moved = end + timedelta(seconds=1_000)
    assert store.expired(at=moved - timedelta(seconds=1), limit=10) == []
    first, _ = store.expired(at=moved, limit=10)
    assert first.reason == f"expired: no judged trace by {moved.isoformat()}"


def test_slot_that_expired_in_spite_of_an_outage_is_not_lost(store: Store) -> None:
    prompt = add_asked(store)
    store.note_outages([an_outage(10, 20, "server:local")])
    store.add_slot_failures(store.expired(at=seconds(100_000), limit=10))
    [row] = store.evidence()
    assert (row.key, row.lost_slots) == (prompt.key, 0)


def test_slot_that_expired_though_its_record_was_deferred_is_not_lost(store: Store) -> None:
    add_asked(store)
    add_asked(store, a_prompt("2+2="))
    store.add_deferrals([a_deferral()])
    store.end_deferrals([a_deferral().deferral_id])
    store.add_slot_failures(store.expired(at=seconds(100_000), limit=10))
    lost = {row.key: row.lost_slots for row in store.evidence()}
    assert lost == {a_prompt().key: 0, a_prompt("2+2=").key: 2}


def test_outage_of_another_dependency_does_not_interrupt(store: Store) -> None:
    store.note_outages([an_outage(0, 10), an_outage(20, 30, "a"), an_outage(40, 50, "b")])
    until = seconds(100)
    assert store.interruption(T0, until, dependency="a") == timedelta(seconds=20)
    assert store.interruption(T0, until, dependency=None) == timedelta(seconds=10)


def test_deferred_record_comes_back_as_the_bytes_that_it_was(store: Store) -> None:
    store.add_deferrals([a_deferral()])
    store.add_deferrals([replace(a_deferral(), tries=99)])
    assert claim(store, at_s=0) == [a_deferral()]
    assert store.backlogs() == [Backlog(service="judging", num_records=1, oldest_at=T0)]


@pytest.mark.parametrize("prompt_id", NO_IDS.values(), ids=NO_IDS)
def test_record_that_names_a_prompt_by_no_possible_id_is_deferred_like_any_other(
    store: Store, prompt_id: str
) -> None:
    add_asked(store)
    garbage = replace(a_deferral(), prompt_key=PromptKey(prompt_id, 3))
    store.add_deferrals([garbage])
    assert claim(store, at_s=0) == [replace(garbage, prompt_key=None)]
    store.add_slot_failures(store.expired(at=seconds(100_000), limit=10))
    assert [row.lost_slots for row in store.evidence()] == [2], "it explains nobody's lost slots"


@pytest.mark.parametrize("prompt_id", NO_IDS.values(), ids=NO_IDS)
def test_record_that_names_a_prompt_by_no_possible_id_is_buried_like_any_other(
    store: Store, prompt_id: str
) -> None:
    letter = a_dead_letter(prompt_key=PromptKey(prompt_id, 3))
    store.add_deferrals([replace(a_deferral(), prompt_key=letter.prompt_key)])
    store.bury([Burial(letter, deferral_id=a_deferral().deferral_id)])
    after = letter.died_at + MINUTE
    assert store.unsent_letters(letter.service, before=after, limit=9) == [letter]
    assert store.backlogs() == []
    [entry] = store.letter_entries()
    assert (entry.prompt_key, entry.held_key) == (letter.prompt_key, None)


@pytest.mark.parametrize("prompt_id", NO_IDS.values(), ids=NO_IDS)
def test_record_that_names_a_prompt_by_no_possible_id_speaks_of_nothing_that_is_held(
    store: Store, prompt_id: str
) -> None:
    add_asked(store)
    assert not store.holds(a_slot_failure().model_copy(update={"prompt_id": prompt_id}))
    assert not store.holds(a_trace().model_copy(update={"trace_id": prompt_id}))
    assert store.groups([PromptKey(prompt_id, 0)]) == {}


def test_claimed_record_is_nobody_elses_until_its_claim_is_over(store: Store) -> None:
    store.add_deferrals([a_deferral()])
    assert len(claim(store, at_s=0)) == 1
    assert claim(store, at_s=59) == []
    assert len(claim(store, at_s=60)) == 1


def test_of_many_members_that_claim_at_once_one_gets_each_record(
    store: Store, opened: Callable[..., SqlStore]
) -> None:
    for number in range(20):
        store.add_deferrals([a_deferral(b"%d" % number)])
    members = [opened() for _ in range(4)]
    taken = in_threads(4, lambda index: claim(members[index], at_s=0))
    ids = [deferral.deferral_id for part in taken for deferral in part]
    assert len(ids) == len(set(ids)) >= 10


def test_longest_due_are_taken_first_and_not_more_than_asked_for(store: Store) -> None:
    for number in range(5):
        store.add_deferrals([a_deferral(b"%d" % number, due_s=10 - number)])
    assert [each.message.value for each in claim(store, at_s=8, limit=2)] == [b"4", b"3"]
    assert {each.message.value for each in claim(store, at_s=8, limit=2)} == {b"2"}
    assert claim(store, at_s=8) == []


def test_records_of_a_dependency_that_is_down_wait_but_for_a_probe(store: Store) -> None:
    for number, dependency in enumerate((None, "a", "a", "b")):
        store.add_deferrals([a_deferral(b"%d" % number, dependency=dependency)])
    taken = claim(store, at_s=0, down=frozenset({"a"}))
    assert {each.dependency for each in taken} == {None, "b"}
    probe = store.claim_probe("judging", "a", at=T0, until=T0 + MINUTE)
    assert [each.dependency for each in probe] == ["a"]
    assert len(claim(store, at_s=0)) == 1


def test_record_of_another_service_or_of_a_halted_partition_is_left_alone(store: Store) -> None:
    store.add_deferrals([a_deferral()])
    assert store.claim_deferrals("curation", at=T0, until=T0 + MINUTE, limit=9) == []
    store.add_halts([a_halt(1)])
    assert claim(store, at_s=0) == []
    store.resume_halts([a_halt(1)], by="me", at=T0)
    assert len(claim(store, at_s=0)) == 1


def test_postponed_record_is_due_when_that_says(store: Store) -> None:
    store.add_deferrals([a_deferral()])
    later = replace(a_deferral(), reason="no answer", dependency="a", tries=7, due_at=seconds(300))
    store.postpone_deferrals([later])
    assert claim(store, at_s=299) == []
    assert claim(store, at_s=300) == [later]


def test_done_record_leaves_nothing(store: Store) -> None:
    store.add_deferrals([a_deferral()])
    store.end_deferrals([a_deferral().deferral_id])
    assert store.backlogs() == []
    store.end_deferrals([a_deferral().deferral_id])


def test_deferral_is_buried_with_its_slot_end_in_one_transaction(store: Store) -> None:
    add_asked(store)
    store.add_deferrals([a_deferral()])
    end = store.bury([Burial(a_dead_letter(), [a_slot_failure()], a_deferral().deferral_id)])[0][0]
    assert end == a_slot_failure()
    assert store.backlogs() == []
    assert store.dead_letters(10) == [a_dead_letter()]
    group = store.group(a_prompt().key)
    assert group is not None
    assert list(group.slot_failures) == [a_slot_failure()]


def test_first_halt_of_a_partition_stands_until_it_is_resumed(store: Store) -> None:
    store.add_halts([a_halt()])
    store.add_halts([a_halt(at=seconds(5)), a_halt(1, at=seconds(6))])
    store.add_halts([a_halt(service="curation", at=seconds(7))])
    assert store.halts("judging") == [a_halt(), a_halt(1, at=seconds(6))]
    assert len(store.halts()) == 3
    assert store.resume_halts(store.halts("judging"), by="me", at=seconds(9)) == [
        a_halt(),
        a_halt(1, at=seconds(6)),
    ]
    assert store.resume_halts([a_halt()], by="me", at=seconds(9)) == []
    assert store.halts("judging") == []
    store.add_halts([a_halt(at=seconds(10))])
    assert store.halts("judging") == [a_halt(at=seconds(10))]
    store.add_halts([])


def test_record_is_held_if_its_prompt_and_its_trace_are(store: Store, url: str) -> None:
    prompt = add_asked(store)
    trace = a_trace(an_assignment(prompt))
    assert store.holds(prompt)
    assert store.holds(a_slot_failure())
    assert not store.holds(a_prompt("of nobody's"))
    assert not store.holds(trace)
    store.add_traces([trace])
    assert store.holds(trace)
    assert not store.holds(trace.model_copy(update={"trace_id": "trace\0"}))
    assert not store.holds(trace.model_copy(update={"prompt_id": "prompt_of_nobody"}))
    other = SqlStore(url, wheel="other")
    assert not other.holds(prompt)
    other.close()


def test_letter_counts_as_unsent_until_it_is_noted(store: Store) -> None:
    letter = a_dead_letter()
    store.bury([Burial(letter)])
    after = letter.died_at + MINUTE
    assert store.unsent_letters(letter.service, before=after, limit=9) == [letter]
    assert store.unsent_letters(letter.service, before=letter.died_at, limit=9) == []
    assert store.unsent_letters("another", before=after, limit=9) == []
    store.note_sent([letter.letter_id])
    assert store.unsent_letters(letter.service, before=after, limit=9) == []
    assert store.dead_letters(9) == [letter]


def test_letter_that_comes_again_is_sent_again(store: Store) -> None:
    letter = a_dead_letter()
    store.bury([Burial(letter)])
    store.note_sent([letter.letter_id])
    store.bury([Burial(letter)])
    after = letter.died_at + MINUTE
    assert store.unsent_letters(letter.service, before=after, limit=9) == [letter]


@pytest.mark.parametrize("limit", [1, 2])
def test_unsent_letters_come_in_bounded_pages(store: Store, limit: int) -> None:
    for value in (b"1", b"2", b"3"):
        store.bury([Burial(a_dead_letter().model_copy(update={"value": value}))])
    service, after = a_dead_letter().service, a_dead_letter().died_at + MINUTE
    assert len(store.unsent_letters(service, before=after, limit=limit)) == limit
