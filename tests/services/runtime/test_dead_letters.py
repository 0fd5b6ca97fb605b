"""What tools read on the dead-letters topic."""

from dataclasses import replace

import pytest

from deltawheel.contracts.errors import InvalidRecordError
from deltawheel.contracts.events import ATTEMPT_HEADER, InboundMessage
from deltawheel.contracts.topics import Topic
from deltawheel.services.runtime.dead_letters import as_message, make_letter
from tests.records import T0, WHEEL, a_prompt, a_slot_failure

CONNECT_HEADERS = {
    f"__connect.errors.{name}"
    for name in (
        "topic",
        "partition",
        "offset",
        "connector.name",
        "task.id",
        "stage",
        "class.name",
        "exception.class.name",
        "exception.message",
        "exception.stacktrace",
    )
}
"""All that Kafka Connect's DeadLetterQueueReporter writes."""


def a_message(value: bytes) -> InboundMessage:
    return InboundMessage(
        topic="test.prompts",
        partition=2,
        offset=17,
        key=b"\xff",
        value=value,
        headers=(("own", b"\x80"),),
    )


def test_letter_keeps_bytes_and_place_and_names_the_asking() -> None:
    error = InvalidRecordError("no")
    letter = make_letter(a_message(b"\xfe"), a_prompt(), error, service="judging", at=T0)
    assert (letter.key, letter.value, letter.headers) == (b"\xff", b"\xfe", (("own", b"\x80"),))
    assert (letter.topic, letter.partition, letter.offset) == ("test.prompts", 2, 17)
    assert (letter.error, letter.reason) == ("InvalidRecordError", "no")
    assert letter.prompt_key == a_prompt().key


def test_message_has_the_original_headers_and_those_of_kafka_connect() -> None:
    letter = make_letter(
        a_message(b"\xfe"), None, InvalidRecordError("no"), service="judging", at=T0
    )
    message = as_message(letter, wheel=WHEEL, max_bytes=100_000)
    assert message.topic == Topic.DEAD_LETTERS.of(WHEEL)
    assert (message.key, message.value) == (b"\xff", b"\xfe")
    assert dict(message.headers) == {
        "own": b"\x80",
        "__connect.errors.topic": b"test.prompts",
        "__connect.errors.partition": b"2",
        "__connect.errors.offset": b"17",
        "__connect.errors.stage": b"judging",
        "__connect.errors.exception.class.name": b"InvalidRecordError",
        "__connect.errors.exception.message": b"no",
    }


def test_letter_with_neither_key_nor_value_bears_its_own_id_as_key() -> None:
    empty = replace(a_message(b""), key=None, value=None)
    letter = make_letter(empty, None, InvalidRecordError("no"), service="judging", at=T0)
    message = as_message(letter, wheel=WHEEL, max_bytes=100_000)
    assert (letter.key, letter.value) == (None, None)
    assert (message.key, message.value) == (letter.letter_id.encode(), None)


def test_empty_letters_from_two_places_are_two_letters() -> None:
    empty = replace(a_message(b""), key=None, value=None)
    first, second = (
        make_letter(message, None, InvalidRecordError("no"), service="judging", at=T0)
        for message in (empty, replace(empty, offset=18))
    )
    assert first.letter_id != second.letter_id


def test_long_reason_is_cut() -> None:
    error = InvalidRecordError("x" * 1_000_000)
    letter = make_letter(a_message(b""), None, error, service="judging", at=T0)
    assert len(letter.reason) == 2_000


def test_value_that_no_topic_takes_stays_in_the_store_alone() -> None:
    value = b"x" * 100_000
    letter = make_letter(a_message(value), None, InvalidRecordError("no"), service="s", at=T0)
    message = as_message(letter, wheel=WHEEL, max_bytes=100_000)
    assert letter.value == value
    assert (message.key, message.value) == (letter.letter_id.encode(), None)
    assert dict(message.headers)["__connect.errors.offset"] == b"17"


def test_headers_that_are_added_are_all_of_them_known_to_kafka_connect() -> None:
    letter = make_letter(
        replace(a_message(b"\xfe"), headers=()), None, InvalidRecordError("no"), service="s", at=T0
    )
    names = {name for name, _ in as_message(letter, wheel=WHEEL, max_bytes=100_000).headers}
    assert names < CONNECT_HEADERS


@pytest.mark.parametrize(
    ("said", "caused", "attempt"),
    [(None, None, 1), (b"3", None, 3), (None, 2, 2), (b"2", 4, 4), (b"4", 2, 4), (b"x", 2, 2)],
)
def test_letter_is_of_the_attempt_that_its_message_or_its_slot_end_says(
    said: bytes | None, caused: int | None, attempt: int
) -> None:
    headers = ((ATTEMPT_HEADER, said),) if said is not None else ()
    ends = [a_slot_failure().model_copy(update={"attempt": caused})] if caused else []
    letter = make_letter(
        replace(a_message(b""), headers=headers),
        a_prompt(),
        InvalidRecordError("no"),
        service="judging",
        at=T0,
        caused=ends,
    )
    assert letter.attempt == attempt


def test_record_that_is_replayed_and_refused_again_is_another_letter_each_time() -> None:
    message, letters = a_message(b"\xfe"), []
    for _ in range(3):
        letter = make_letter(message, None, InvalidRecordError("no"), service="judging", at=T0)
        again = letter.original_message()
        message = replace(message, key=again.key, value=again.value, headers=again.headers)
        letters.append(letter)
    assert [letter.attempt for letter in letters] == [1, 2, 3]
    assert len({letter.letter_id for letter in letters}) == 3
    assert again.headers == (("own", b"\x80"), (ATTEMPT_HEADER, b"4"))
    assert (again.topic, again.key, again.value) == ("test.prompts", b"\xff", b"\xfe")
