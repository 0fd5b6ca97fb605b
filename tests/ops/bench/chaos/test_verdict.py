"""What is lost, double or unburied is counted from rows alone."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deltawheel.contracts.dead_letter import Burial, DeadLetter
from deltawheel.contracts.outcome import Outcome
from deltawheel.contracts.prompt import Prompt
from deltawheel.contracts.store import GroupEnd, Store
from deltawheel.infra.store.store import SqlStore
from deltawheel.ops.bench.chaos.garbage import READERS, make_garbage, num_unburied
from deltawheel.ops.bench.chaos.verdict import Verdict, judge_store, num_pairs_doubled
from tests.infra.store.stored import add_asked, add_judged
from tests.records import (
    T0,
    WHEEL,
    a_closing,
    a_dead_letter,
    a_pair,
    a_paired_end,
    a_prompt,
    a_slot_failure,
    an_assignment,
)

PAIRABLE = {"text": "How much is 7 and 7?", "reference_answer": "14"}
UNJUDGEABLE = {"text": "How much is 25 and 25?"}
VERDICT = Verdict(
    prompts=1,
    outcomes={"paired": 1},
    open=0,
    absent=0,
    unexplained=0,
    duplicates=0,
    findings=(),
    unburied=0,
    misburied=0,
    dead_letters=0,
)


def letters_of(number: int, *, service: str) -> list[DeadLetter]:
    return [
        DeadLetter(
            topic=message.topic,
            partition=0,
            offset=offset,
            key=message.key,
            value=message.value,
            headers=message.headers,
            service=service,
            error="InvalidRecordError",
            reason="garbage",
            died_at=T0,
        )
        for offset, message in enumerate(make_garbage(0, number, wheel="test"))
    ]


def test_pairs_of_the_same_two_traces_are_double_whichever_way_round() -> None:
    pair, other = a_pair(), a_pair(a_prompt("another"))
    turned = pair.model_copy(update={"chosen": pair.rejected, "rejected": pair.chosen})
    assert num_pairs_doubled([pair, other]) == 0
    assert num_pairs_doubled([pair, other, turned]) == 1
    assert num_pairs_doubled([pair, other, turned, pair]) == 2


def test_garbage_needs_a_dead_letter_of_each_service_that_reads_it() -> None:
    letters = [letter for name in READERS for letter in letters_of(12, service=name)]
    assert num_unburied(letters, 12) == 0
    assert num_unburied(letters[1:], 12) == 1
    assert num_unburied(letters_of(12, service=READERS[0]), 12) == 12
    assert num_unburied([], 12) == 24


def test_no_two_messages_of_garbage_have_the_same_bytes() -> None:
    values = [message.value for message in make_garbage(7, 100, wheel="test")]
    assert len(set(values)) == 100


def test_verdict_is_clean_only_if_nothing_is_wrong() -> None:
    assert VERDICT.is_clean
    wrong = (
        replace(VERDICT, open=1),
        replace(VERDICT, absent=1),
        replace(VERDICT, duplicates=1),
        replace(VERDICT, findings=("a sentence",)),
        replace(VERDICT, unburied=1),
        replace(VERDICT, misburied=1),
        replace(VERDICT, unexplained=1),
        replace(VERDICT, outcomes={"dead-lettered": 1}),
    )
    assert not any(verdict.is_clean for verdict in wrong)
    assert [verdict.lost for verdict in wrong] == [1, 1, 0, 0, 0, 0, 0, 0]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = SqlStore(f"sqlite:///{tmp_path / 'store.db'}", wheel=WHEEL)
    yield store
    store.close()


def judged(store: Store, *prompts: Prompt, body: Mapping[str, Any], in_flight: int = 0) -> Verdict:
    audit = {"prompts": len(prompts), "outcomes": {}, "in_flight": in_flight, "findings": []}
    accepted = {prompt.key: body for prompt in prompts}
    return judge_store(store, audit, accepted=accepted, num_garbage=0)


def test_open_and_absent_prompts_are_lost(store: Store) -> None:
    paired, still_open = add_judged(store), add_asked(store, a_prompt("open"))
    store.close_groups([a_paired_end(a_pair(paired))])
    verdict = judged(store, paired, still_open, a_prompt("absent"), body=PAIRABLE)
    assert (verdict.open, verdict.absent, verdict.unexplained, verdict.lost) == (1, 1, 0, 2)


def test_open_prompt_whose_202_nobody_saw_is_lost_too(store: Store) -> None:
    assert judged(store, body=PAIRABLE, in_flight=1).lost == 1


@pytest.mark.parametrize(
    ("body", "reason", "unexplained"),
    [
        (PAIRABLE, "the server is down", 1),
        (PAIRABLE, "weak refuses the request (400: too long)", 0),
        (UNJUDGEABLE, "it has no reference_answer", 0),
    ],
)
def test_prompt_without_its_pair_is_explained_by_itself_or_by_a_final_answer_of_its_model(
    store: Store, body: Mapping[str, Any], reason: str, unexplained: int
) -> None:
    prompt = add_asked(store)
    store.add_slot_failures(
        [a_slot_failure(an_assignment(prompt), slot, reason=reason) for slot in (0, 1)]
    )
    store.close_groups([GroupEnd(closing=a_closing(prompt, outcome=Outcome.DEAD_LETTERED))])
    assert judged(store, prompt, body=body).unexplained == unexplained


@pytest.mark.parametrize(("body", "misburied"), [(PAIRABLE, 1), (UNJUDGEABLE, 0)])
def test_trace_of_a_prompt_that_can_be_judged_is_dead_lettered_in_vain(
    store: Store, body: Mapping[str, Any], misburied: int
) -> None:
    prompt = add_asked(store)
    store.bury([Burial(a_dead_letter(prompt_key=prompt.key))])
    assert judged(store, prompt, body=body).misburied == misburied


def test_letters_of_garbage_are_due_and_those_of_anything_unknown_are_not(store: Store) -> None:
    store.bury([Burial(letter) for letter in letters_of(6, service=READERS[0])])
    assert judged(store, body=PAIRABLE).misburied == 0
    store.bury([Burial(a_dead_letter())])
    assert judged(store, body=PAIRABLE).misburied == 1
