"""Dead letters: which are the same, and what is published again of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltawheel.contracts.events import ATTEMPT_HEADER, InboundMessage, attempt_of
from deltawheel.contracts.record import MAX_COUNT
from tests.records import a_dead_letter


def a_message(attempt: bytes) -> InboundMessage:
    headers = ((ATTEMPT_HEADER, attempt),)
    return InboundMessage(topic="t", partition=0, offset=0, key=b"", value=b"", headers=headers)


def test_each_further_attempt_is_another_letter() -> None:
    for letter in (a_dead_letter(), a_dead_letter(None).model_copy(update={"key": None})):
        ids = {letter.model_copy(update={"attempt": n}).letter_id for n in range(1, 5)}
        assert len(ids) == 4


@pytest.mark.parametrize(
    ("text", "attempt"),
    [
        (b"", 1),
        (b"0", 1),
        (b"1", 1),
        (b"2", 2),
        (b"007", 7),
        (b"-3", 1),
        (b"2.5", 1),
        (b"\xff", 1),
        (str(MAX_COUNT).encode(), MAX_COUNT),
        (b"9999999999", MAX_COUNT),
        (b"9" * 5_000, 1),
    ],
)
def test_attempt_is_a_number_that_every_column_holds(text: bytes, attempt: int) -> None:
    assert attempt_of(a_message(text)) == attempt


@given(st.binary(max_size=12))
def test_whatever_the_header_says_is_an_attempt(text: bytes) -> None:
    assert 1 <= attempt_of(a_message(text)) <= MAX_COUNT


def test_last_possible_attempt_is_not_exceeded() -> None:
    letter = a_dead_letter().model_copy(update={"attempt": MAX_COUNT})
    [*_, (name, text)] = letter.original_message().headers
    assert name == ATTEMPT_HEADER
    assert attempt_of(a_message(text)) == MAX_COUNT
