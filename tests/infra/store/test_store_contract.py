"""First writer wins and every record comes back as it was; whichever database stands behind."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from deltawheel.contracts.cycle import StepName, StepState
from deltawheel.contracts.dead_letter import Burial
from deltawheel.contracts.errors import InvalidRecordError
from deltawheel.contracts.judgement import Judgement, SlotFailed
from deltawheel.contracts.prompt import PromptKey
from deltawheel.contracts.record import Record
from deltawheel.contracts.store import GroupEnd, Store
from deltawheel.infra.store.store import SqlStore
from tests.infra.store.stored import LATER, add_asked, add_judged, in_threads
from tests.records import (
    T0,
    WHEEL,
    a_closing,
    a_cycle,
    a_dead_letter,
    a_generator,
    a_judgement,
    a_paired_end,
    a_pool_event,
    a_promotion,
    a_prompt,
    a_prompt_failure,
    a_slot_failure,
    a_trace,
    an_assignment,
    seconds,
)


def test_first_prompt_is_kept_with_the_time_it_was_accepted(store: Store) -> None:
    first, again = a_prompt(), a_prompt(accepted_at=seconds(99))
    assert store.add_prompts([first]) == [first]
    assert store.add_prompts([again]) == [first]


def test_prompts_return_in_the_order_given_new_and_old_and_repeated(store: Store) -> None:
    old = a_prompt("old")
    store.add_prompts([old])
    new = a_prompt("new", accepted_at=seconds(1))
    given = [new, a_prompt("old", accepted_at=seconds(5)), a_prompt("new", accepted_at=seconds(9))]
    assert store.add_prompts(given) == [new, old, new]


def test_thousands_of_prompts_fit_one_call(store: Store) -> None:
    prompts = [a_prompt(f"{number}+1=") for number in range(1_500)]
    assert store.add_prompts(prompts) == prompts
    assert store.add_prompts(prompts) == prompts
    assert store.progress().prompts == 1_500


def test_another_round_is_another_asking(store: Store) -> None:
    store.add_prompts([a_prompt(), a_prompt(round=1)])
    assert store.progress().prompts == 2


def test_first_assignment_is_kept(store: Store) -> None:
    first = an_assignment()
    other = an_assignment(generators=(a_generator("weak"), a_generator("strong")))
    assert store.add_assignments([first])[0] == first
    assert store.add_assignments([other])[0] == first


def test_first_trace_is_kept_whatever_is_sampled_later(store: Store) -> None:
    first = a_trace(answer="1+1=2")
    assert store.add_traces([first])[0] == first
    assert store.add_traces([a_trace(answer="1+1=5")])[0] == first
    assert store.trace(first.trace_id) == first


def test_first_judgement_is_kept_and_ends_its_slot(store: Store) -> None:
    prompt = add_asked(store)
    first = a_judgement(level=4)
    assert store.add_judgements([first])[0] == first
    assert store.add_judgements([a_judgement(level=1)])[0] == first
    group = store.group(prompt.key)
    assert group is not None
    assert group.judgements == [first]
    assert group.ended_slots == {0}


def test_failure_after_a_judgement_returns_the_judgement(store: Store) -> None:
    judgement = store.add_judgements([a_judgement()])[0]
    assert store.add_slot_failures([a_slot_failure()])[0] == judgement


def test_first_of_two_judges_has_ended_the_slot(store: Store) -> None:
    first = store.add_judgements([a_judgement(judge_revision="1")])[0]
    second = a_judgement(judge_revision="2", level=1)
    assert store.add_judgements([second])[0] == second
    assert store.add_slot_failures([a_slot_failure()])[0] == first


def test_judgement_after_a_failure_is_kept_as_late(store: Store) -> None:
    prompt = add_asked(store)
    failure = a_slot_failure()
    assert store.add_slot_failures([failure])[0] == failure
    late = store.add_judgements([a_judgement()])[0]
    group = store.group(prompt.key)
    assert group is not None
    assert group.judgements == [late]
    assert group.slot_failures == [failure]
    assert store.add_slot_failures([a_slot_failure(reason="another")])[0] == failure


def test_first_prompt_failure_is_kept(store: Store) -> None:
    first = a_prompt_failure()
    assert store.add_prompt_failures([first])[0] == first
    assert store.add_prompt_failures([a_prompt_failure(reason="another")])[0] == first


def test_first_promotion_is_kept(store: Store) -> None:
    first = a_promotion()
    assert store.add_promotion(first) == first
    assert store.add_promotion(a_promotion(promoted_at=seconds(99))) == first
    second = store.add_promotion(a_promotion(version="2", promoted_at=T0))
    assert store.promotions() == [second, first]


def test_of_many_threads_one_writes_and_all_learn_what_it_wrote(store: Store) -> None:
    add_asked(store)
    traces = in_threads(8, lambda index: store.add_traces([a_trace(answer=f"answer {index}")])[0])
    assert len({trace.answer for trace in traces}) == 1
    assert store.progress().traces == 1


def test_slot_ends_once_when_judgement_and_failure_race(store: Store) -> None:
    def end(index: int) -> Record:
        if index % 2:
            return store.add_judgements([a_judgement()])[0]
        return store.add_slot_failures([a_slot_failure()])[0]

    prompt = add_asked(store)
    ends = in_threads(8, end)
    group = store.group(prompt.key)
    assert group is not None
    assert group.ended_slots == {0}
    told = {type(record) for record in ends[::2]}
    assert told == ({SlotFailed} if group.slot_failures else {Judgement})


def test_two_stores_on_one_database_agree(store: Store, url: str) -> None:
    other = SqlStore(url, wheel=WHEEL)
    traces = in_threads(
        6, lambda index: (store, other)[index % 2].add_traces([a_trace(answer=str(index))])[0]
    )
    other.close()
    assert len({trace.answer for trace in traces}) == 1


def test_wheels_that_share_a_database_do_not_see_each_other(store: Store, url: str) -> None:
    other = SqlStore(url, wheel="other")
    add_judged(store)
    store.close_groups([a_paired_end()])
    store.add_pool_events([a_pool_event()])
    assert store.acquire_lease("train", token="a", at=T0, until=LATER)
    assert other.progress().prompts == 0
    assert list(other.evidence()) == []
    assert other.owed(before=LATER, limit=10) == []
    assert other.pairs(after=None, limit=10) == []
    assert other.count_pairs() == 0
    assert other.delta_stats() == []
    assert other.pool_log() == []
    other.add_pool_events([a_pool_event()])
    assert len(other.pool_log()) == 1
    assert other.acquire_lease("train", token="b", at=T0, until=LATER)
    other.close()


def test_unknown_ids_are_none(store: Store) -> None:
    assert store.group(PromptKey("prompt_none", 0)) is None
    assert store.trace("trace_none") is None
    assert store.pair("pair_none") is None
    assert store.cycle("cycle_none") is None


def test_group_returns_every_record_as_it_was_stored(store: Store) -> None:
    prompt = add_judged(store, a_prompt("na\u00efve \u2603 \U0001f600 \x00 \n"))
    closing = a_closing(prompt)
    store.close_groups([GroupEnd(closing=closing)])
    assignment = an_assignment(prompt)
    traces = [a_trace(assignment, slot) for slot in (0, 1)]
    group = store.group(prompt.key)
    assert group is not None
    assert (group.prompt, group.assignment, group.closing) == (prompt, assignment, closing)
    assert group.traces == {trace.trace_id: trace for trace in traces}
    assert group.judgements == [a_judgement(trace) for trace in traces]
    assert group.has_ended


@pytest.mark.parametrize(
    "add",
    [
        lambda store: store.add_traces(
            [a_trace().model_copy(update={"generator_revision": "a\0b"})]
        )[0],
        lambda store: store.add_judgements([a_judgement(judge_revision="a\0b")])[0],
        lambda store: store.add_slot_failures(
            [a_slot_failure().model_copy(update={"prompt_id": "a\0b"})]
        )[0],
        lambda store: store.pairs(after="a\0b", limit=1),
    ],
    ids=["trace", "judgement", "slot failure", "page"],
)
def test_nul_in_an_id_is_the_fault_of_the_record(
    store: Store, add: Callable[[Store], object]
) -> None:
    with pytest.raises(InvalidRecordError, match=r"'a\\x00b' holds a NUL character"):
        add(store)
    assert store.progress().is_drained


@pytest.mark.parametrize("text", ["a\0b", "a\udcffb"], ids=["NUL", "half a pair"])
def test_nobody_has_an_id_that_is_no_text(store: Store, text: str) -> None:
    assert store.group(PromptKey(text, 0)) is None
    assert (store.trace(text), store.pair(text), store.cycle(text)) == (None, None, None)
    with pytest.raises(InvalidRecordError, match="half of a surrogate pair, which no id"):
        store.pairs(after=text, limit=1)


def test_nul_in_the_last_words_of_a_step_is_replaced(store: Store) -> None:
    cycle_id = store.add_cycle(a_cycle()).cycle_id
    store.begin_step(cycle_id, StepName.TRAIN, token="a", at=T0, lease_until=LATER)
    store.finish_step(
        cycle_id, StepName.TRAIN, token="a", state=StepState.FAILED, at=T0, error="core\0dumped"
    )
    cycle = store.cycle(cycle_id)
    assert cycle is not None
    assert cycle.step(StepName.TRAIN).error == "core\ufffddumped"


def test_first_and_last_moment_that_there_is_come_back(store: Store) -> None:
    first = a_prompt("first", accepted_at=datetime.min.replace(tzinfo=UTC))
    last = a_prompt("last", accepted_at=datetime.max.replace(tzinfo=UTC))
    store.add_prompts([last, first])
    assert store.add_prompts([last, first]) == [last, first]
    assert store.progress().oldest_open_at == first.accepted_at
    assert {row.opened_at for row in store.evidence()} == {first.accepted_at, last.accepted_at}


def test_group_without_assignment_has_ended_by_its_failure(store: Store) -> None:
    prompt = a_prompt()
    store.add_prompts([prompt])
    group = store.group(prompt.key)
    assert group is not None
    assert not group.has_ended
    failure = store.add_prompt_failures([a_prompt_failure(prompt)])[0]
    group = store.group(prompt.key)
    assert group is not None
    assert group.prompt_failure == failure
    assert group.has_ended


def test_dead_letters_keep_bytes_that_are_no_text(store: Store) -> None:
    key = a_prompt().key
    letter, newer = a_dead_letter(prompt_key=key), a_dead_letter(None, died_at=seconds(9))
    store.bury([Burial(letter)])
    store.bury([Burial(newer)])
    store.bury([Burial(letter)])
    assert store.dead_letters(10) == [newer, letter]
    assert store.dead_letters(1) == [newer]
    assert store.progress().dead_letters == 2


def test_dead_letter_ends_the_slot_that_it_causes(store: Store) -> None:
    prompt = add_asked(store)
    failure = a_slot_failure(reason="not a valid Trace")
    store.bury([Burial(a_dead_letter(), [failure])])
    group = store.group(prompt.key)
    assert group is not None
    assert group.slot_failures == [failure]
