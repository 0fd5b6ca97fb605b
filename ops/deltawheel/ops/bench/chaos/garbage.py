"""A topic full of what nobody can decode, each message different from every other."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final

from deltawheel.contracts.clock import Clock
from deltawheel.contracts.dead_letter import DeadLetter
from deltawheel.contracts.errors import DeltawheelError, RetryLaterError
from deltawheel.contracts.events import OutboundMessage
from deltawheel.contracts.settings import Settings
from deltawheel.contracts.topics import Topic
from deltawheel.infra import wiring

__all__ = ["READERS", "TOPIC", "is_garbage", "make_garbage", "num_unburied", "publish_garbage"]

TOPIC: Final = Topic.TRACES
READERS: Final = ("judging", "monitoring")
"""The services that consume the topic: each makes a dead letter of every message."""

_PREFIX: Final = b"chaos-garbage-"
_MARK: Final = _PREFIX + b"%d;"
_PAGE: Final = 500
_PAUSE_S: Final = 0.5
_TIMEOUT_S: Final = 10.0


def make_garbage(first: int, number: int, *, wheel: str) -> Iterator[OutboundMessage]:
    """Yield so many messages: wrong types, truncated JSON, NUL bytes, no UTF-8, no headers."""
    kinds = (
        ("io.deltawheel.trace.generated.v1", b'{"trace_id": "'),
        ("io.deltawheel.trace.generated.v1", b'{"trace_id": 7, "prompt_id": [], "note": "'),
        ("io.deltawheel.trace.generated.v99", b"{}"),
        ("io.deltawheel.prompt.accepted.v1", b'{"text": "'),
        ("\xff\xfe", b"\x00\x00\x00"),
        (None, b"\xff\xfe\xfd not text at all"),
    )
    for index in range(first, first + number):
        kind, value = kinds[index % len(kinds)]
        yield OutboundMessage(
            topic=TOPIC.of(wheel),
            key=b"garbage-%d" % index,
            value=_MARK % index + value,
            headers=(("ce_type", kind.encode("latin-1")),) if kind is not None else (),
        )


def publish_garbage(
    find_settings: Callable[[], Settings], messages: Iterator[OutboundMessage], clock: Clock
) -> None:
    """Publish all of it, a page again where the broker was away: the same bytes are one letter.

    Args:
        find_settings: Returns the settings of the run that is on; a new one's broker has moved.
        messages: What to publish.
        clock: Time.
    """
    while page := list(islice(messages, _PAGE)):
        while not _is_published(find_settings, page):
            clock.wait(_PAUSE_S)


def _is_published(find_settings: Callable[[], Settings], page: list[OutboundMessage]) -> bool:
    try:
        producer = wiring.open_producer(find_settings(), timeout_s=_TIMEOUT_S)
    except DeltawheelError:
        return False
    try:
        producer.publish(page)
        producer.close()
    except RetryLaterError:
        return False
    return True


def is_garbage(letter: DeadLetter) -> bool:
    """Whether the bytes are some that were made here."""
    return letter.value is not None and letter.value.startswith(_PREFIX)


def num_unburied(letters: Iterable[DeadLetter], number: int) -> int:
    """Return how many of the messages numbered from 0 lack a dead letter of one of the readers."""
    marks = {_MARK % index: index for index in range(number)}
    found = {
        (letter.service, marks.get(letter.value.split(b";")[0] + b";"))
        for letter in letters
        if letter.value is not None
    }
    wanted = {(reader, index) for reader in READERS for index in marks.values()}
    return len(wanted - found)
