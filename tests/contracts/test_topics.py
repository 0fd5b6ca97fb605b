import re

import pytest

from deltawheel.contracts.topics import EVENT_TYPES, EventType, Topic, event_type_of
from tests.contracts.strategies import EVENTS
from tests.records import a_closing, a_prompt


def test_each_event_type_and_each_record_stands_in_the_list_once() -> None:
    assert len({kind.name for kind in EVENT_TYPES}) == len(EVENT_TYPES)
    assert len({kind.record for kind in EVENT_TYPES}) == len(EVENT_TYPES)


def test_tests_draw_events_of_each_type() -> None:
    assert {kind.record for kind in EVENT_TYPES} == EVENTS.keys()


@pytest.mark.parametrize("kind", EVENT_TYPES, ids=lambda kind: str(kind.name))
def test_event_type_says_whose_it_is_what_happened_and_which_version(kind: EventType) -> None:
    assert re.fullmatch(r"io\.deltawheel\.[a-z]+\.[a-z]+\.v[1-9][0-9]*", kind.name)


@pytest.mark.parametrize("kind", EVENT_TYPES, ids=lambda kind: str(kind.name))
def test_event_type_has_a_sentence_that_says_what_it_means(kind: EventType) -> None:
    assert re.fullmatch(r"[A-Z].{10,}\.", kind.meaning)


def test_every_topic_but_that_of_dead_letters_carries_events() -> None:
    assert {kind.topic for kind in EVENT_TYPES} == set(Topic) - {Topic.DEAD_LETTERS}


def test_wheels_that_share_a_broker_share_no_topic() -> None:
    assert Topic.PROMPTS.of("default") == "default.prompts"
    assert {topic.of("a") for topic in Topic}.isdisjoint(topic.of("b") for topic in Topic)


def test_record_finds_its_event_type() -> None:
    assert event_type_of(a_prompt()).name == "io.deltawheel.prompt.accepted.v1"


def test_record_that_no_topic_carries_is_named() -> None:
    with pytest.raises(LookupError, match="no topic carries Closing"):
        event_type_of(a_closing())
