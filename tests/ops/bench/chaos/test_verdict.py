"""What is lost, double or unburied is counted from rows alone."""

from dataclasses import replace

from deltawheel.contracts.dead_letter import DeadLetter
from deltawheel.ops.bench.chaos.garbage import READERS, make_garbage, num_unburied
from deltawheel.ops.bench.chaos.verdict import Verdict, num_pairs_doubled
from tests.records import T0, a_pair, a_prompt

VERDICT = Verdict(
    prompts=1,
    outcomes={"paired": 1},
    open=0,
    absent=0,
    duplicates=0,
    findings=(),
    unburied=0,
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
    )
    assert not any(verdict.is_clean for verdict in wrong)
    assert [verdict.lost for verdict in wrong] == [1, 1, 0, 0, 0]
