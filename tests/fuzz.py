"""Messages as nobody should send them: valid events of every type, each spoilt in one way.

A fault takes randomness and a message and returns the message spoilt. The same faults serve
hypothesis, which shrinks what fails, and a plain generator, which makes ten thousand in a second.
Not every spoilt message is invalid: some faults hit what nobody reads.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from random import Random
from typing import Any, Final, TypeAlias

from hypothesis import strategies as st

from deltawheel.contracts.errors import InvalidRecordError
from deltawheel.contracts.events import ATTEMPT_HEADER, InboundMessage, OutboundMessage, encode
from deltawheel.contracts.record import Record
from deltawheel.contracts.topics import EVENT_TYPES, Topic
from deltawheel.services.runtime.dead_letters import as_message, make_letter
from tests.records import (
    T0,
    a_judgement,
    a_pair,
    a_promotion,
    a_prompt,
    a_prompt_failure,
    a_quarantined_pair,
    a_slot_failure,
    a_trace,
    an_assignment,
)

__all__ = [
    "FAULTS",
    "Fault",
    "as_polled",
    "fuzz",
    "fuzzed",
    "fuzzed_messages",
    "unspoilt",
    "valid_messages",
]

Fault: TypeAlias = Callable[[Random, OutboundMessage], OutboundMessage]

_VARIANTS: Final = 8
"""How many valid messages of each type there are to begin with."""
_HOLE: Final = "@hole@"
_LONG: Final = 100_000
_STRANGE_NAMES: Final = (
    ATTEMPT_HEADER,
    "__connect.errors.topic",
    "",
    "a\0b",
    "\u2713",
    "ce_specversion",
    "content-type",
    "x" * 999,
)
_STRANGE_VALUES: Final = (b"", b"\0", b"\xff" * 9, b"-1", b"9" * 50, "²".encode(), b"z" * _LONG)
_KNOWN_TYPES: Final = tuple(kind.name.encode() for kind in EVENT_TYPES)

SCRAPS: Final = (
    "null",
    "true",
    "[]",
    "{}",
    "[[]]",
    '"x"',
    '""',
    '"\\u0000"',
    '"a\\u0000b"',
    '"\\ud800"',
    '"\\udfff\\ud800"',
    '"\\uFFFE"',
    '"\u202e"',
    "-1",
    "-0",
    "0.5",
    "1e400",
    "1e-999999",
    "1e999999999",
    "NaN",
    "Infinity",
    "-Infinity",
    '"NaN"',
    '"1e999999999"',
    "2147483648",
    "9223372036854775808",
    "9" * 5_000,
    "[" * 300 + "]" * 300,
    '{"a":' * 300 + "1" + "}" * 300,
    '"9999-12-31T23:59:59-23:00"',
    '"0001-01-01T00:00:00+23:00"',
    '"2026-01-01T00:00:00"',
    '"2026-02-30T00:00:00Z"',
)
"""JSON of another type or size than any field has, to stand where some value stood."""


def valid_messages(topic: Topic, *, wheel: str) -> Sequence[OutboundMessage]:
    """Return some well-formed messages of a topic; no store holds what they speak of."""
    return _valid_messages(topic, wheel)


@cache
def _valid_messages(topic: Topic, wheel: str) -> tuple[OutboundMessage, ...]:
    messages = [
        encode(record, wheel=wheel, service="stranger")
        for number in range(_VARIANTS)
        for record in _records(number)
    ]
    if topic is Topic.DEAD_LETTERS:
        return tuple(_buried(message, wheel) for message in messages)
    return tuple(message for message in messages if message.topic == topic.of(wheel))


def _records(number: int) -> Iterator[Record]:
    prompt = a_prompt(f"What makes {number} of a stranger's?", round=number % 2)
    assignment = an_assignment(prompt)
    trace = a_trace(assignment, number % 2, answer=f"It makes {number} ± ½ \u2713")
    yield prompt
    yield trace
    yield a_judgement(trace, level=1 + number % 5)
    yield a_slot_failure(assignment, number % 2)
    yield a_prompt_failure(prompt)
    yield a_pair(prompt, chosen_slot=number % 2)
    yield a_quarantined_pair(a_pair(prompt))
    yield a_promotion(version=str(number + 1))


def _buried(message: OutboundMessage, wheel: str) -> OutboundMessage:
    letter = make_letter(
        as_polled(message), None, InvalidRecordError("strange"), service="judging", at=T0
    )
    return as_message(letter, wheel=wheel, max_bytes=_LONG)


def as_polled(message: OutboundMessage, *, partition: int = 0, offset: int = 0) -> InboundMessage:
    """Return the message as a consumer gets it."""
    return InboundMessage(
        topic=message.topic,
        partition=partition,
        offset=offset,
        key=message.key,
        value=message.value,
        headers=message.headers,
    )


# The payload


def unspoilt(random: Random, message: OutboundMessage) -> OutboundMessage:
    return message


def truncated(random: Random, message: OutboundMessage) -> OutboundMessage:
    value = message.value or b""
    return replace(message, value=value[: random.randrange(len(value) or 1)])


def without_value(random: Random, message: OutboundMessage) -> OutboundMessage:
    return replace(message, value=None)


def with_noise_for_value(random: Random, message: OutboundMessage) -> OutboundMessage:
    return replace(message, value=random.randbytes(random.randrange(200)))


def with_flipped_bits(random: Random, message: OutboundMessage) -> OutboundMessage:
    value = bytearray(message.value or b"\0")
    for _ in range(random.randint(1, 4)):
        value[random.randrange(len(value))] ^= 1 << random.randrange(8)
    return replace(message, value=bytes(value))


def with_raw_bytes_inside(random: Random, message: OutboundMessage) -> OutboundMessage:
    scrap = random.choice(
        (b"\0", b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\n")
    )
    return replace(message, value=_inserted(random, message.value or b"", scrap))


def _inserted(random: Random, value: bytes, scrap: bytes) -> bytes:
    at = random.randint(0, len(value))
    return value[:at] + scrap + value[at:]


def in_another_encoding(random: Random, message: OutboundMessage) -> OutboundMessage:
    encoding = random.choice(("utf-16", "utf-32", "utf-8-sig", "utf-7"))
    text = (message.value or b"").decode(errors="replace")
    return replace(message, value=text.encode(encoding))


def with_something_behind(random: Random, message: OutboundMessage) -> OutboundMessage:
    value = message.value or b""
    return replace(message, value=value + random.choice((value, b"}", b" ", b"\0", b",{}")))


def nested_deeply(random: Random, message: OutboundMessage) -> OutboundMessage:
    depth = random.choice((150, 250, 5_000))
    value = b'{"a":' * depth + (message.value or b"1") + b"}" * depth
    return replace(message, value=value)


def with_scrap_for_payload(random: Random, message: OutboundMessage) -> OutboundMessage:
    return replace(message, value=random.choice(SCRAPS).encode())


def with_scrap_for_a_value(random: Random, message: OutboundMessage) -> OutboundMessage:
    return _with_scrap(random, message, random.choice(SCRAPS))


def with_huge_field(random: Random, message: OutboundMessage) -> OutboundMessage:
    scrap = random.choice(("9" * _LONG, json.dumps("x" * _LONG), "[" + "1," * _LONG + "1]"))
    return _with_scrap(random, message, scrap)


def _with_scrap(random: Random, message: OutboundMessage, scrap: str) -> OutboundMessage:
    def spoil(body: Any) -> None:
        holder, key = random.choice(list(_places(body)))
        holder[key] = _HOLE

    return _respelt(message, spoil, lambda text: text.replace(f'"{_HOLE}"', scrap))


def without_a_field(random: Random, message: OutboundMessage) -> OutboundMessage:
    def spoil(body: Any) -> None:
        holder, key = random.choice(list(_places(body)))
        del holder[key]

    return _respelt(message, spoil)


def with_a_new_field(random: Random, message: OutboundMessage) -> OutboundMessage:
    scrap = random.choice(SCRAPS)
    return _respelt(message, lambda body: None, lambda text: f'{{"later":{scrap},{text[1:]}')


def with_a_field_twice(random: Random, message: OutboundMessage) -> OutboundMessage:
    scrap = random.choice(SCRAPS)

    def doubled(text: str) -> str:
        name = random.choice(list(json.loads(text)))
        return f"{text[:-1]},{json.dumps(name)}:{scrap}}}"

    return _respelt(message, lambda body: None, doubled)


def with_other_texts(random: Random, message: OutboundMessage) -> OutboundMessage:
    """Forge: well-formed, with ids, names and texts that nobody has given."""

    def spoil(body: Any) -> None:
        texts = [(holder, key) for holder, key in _places(body) if isinstance(holder[key], str)]
        for holder, key in random.sample(texts, min(len(texts), random.randint(1, 3))):
            holder[key] = random.choice((f"forged-{random.getrandbits(40):x}", "\0", "é" * 300, ""))

    return _respelt(message, spoil)


def of_another_wheel(random: Random, message: OutboundMessage) -> OutboundMessage:
    def spoil(body: Any) -> None:
        for holder, key in list(_places(body)):
            if key == "wheel":
                holder[key] = random.choice(("other", "", "no name", "x" * 500))

    source = b"/deltawheel/other/gateway"
    return _with_header(_respelt(message, spoil), "ce_source", source)


def _respelt(
    message: OutboundMessage,
    spoil: Callable[[Any], None],
    respell: Callable[[str], str] = lambda text: text,
) -> OutboundMessage:
    """Spoil the payload's content, then its text; what is no JSON object stays as it is."""
    try:
        body = json.loads(message.value or b"")
    except (ValueError, RecursionError):
        return message
    if not isinstance(body, dict) or not body:
        return message
    spoil(body)
    return replace(message, value=respell(json.dumps(body)).encode())


def _places(body: Any) -> Iterator[tuple[Any, Any]]:
    for key in list(body) if isinstance(body, dict) else range(len(body)):
        yield body, key
        if isinstance(body[key], dict | list):
            yield from _places(body[key])


# Headers and key


def without_headers(random: Random, message: OutboundMessage) -> OutboundMessage:
    return replace(message, headers=())


def without_a_header(random: Random, message: OutboundMessage) -> OutboundMessage:
    gone = random.randrange(len(message.headers) or 1)
    return replace(message, headers=message.headers[:gone] + message.headers[gone + 1 :])


def of_unknown_type(random: Random, message: OutboundMessage) -> OutboundMessage:
    name = random.choice(
        (b"", b"x", b"\0", b"\xff\xfe", b"io.deltawheel.prompt.accepted", b"y" * _LONG)
    )
    return _with_header(message, "ce_type", name)


def of_another_version(random: Random, message: OutboundMessage) -> OutboundMessage:
    name = dict(message.headers).get("ce_type", b"v1")
    return _with_header(message, "ce_type", name[:-1] + random.choice((b"0", b"2", b"99", b"1 ")))


def of_another_type(random: Random, message: OutboundMessage) -> OutboundMessage:
    return _with_header(message, "ce_type", random.choice(_KNOWN_TYPES))


def with_type_twice(random: Random, message: OutboundMessage) -> OutboundMessage:
    again = ("ce_type", random.choice((*_KNOWN_TYPES, b"")))
    return replace(message, headers=(*message.headers, again))


def with_strange_headers(random: Random, message: OutboundMessage) -> OutboundMessage:
    return _with_header(message, random.choice(_STRANGE_NAMES), random.choice(_STRANGE_VALUES))


def _with_header(message: OutboundMessage, name: str, value: bytes) -> OutboundMessage:
    others = tuple(header for header in message.headers if header[0] != name)
    return replace(message, headers=(*others, (name, value)))


def with_another_key(random: Random, message: OutboundMessage) -> OutboundMessage:
    return replace(message, key=random.choice((b"", b"\0", b"\xff\xfe", b"k" * 5_000)))


def without_key(random: Random, message: OutboundMessage) -> OutboundMessage:
    return replace(message, key=None)


FAULTS: Final[Mapping[Fault, int]] = {
    unspoilt: 1,
    truncated: 4,
    without_value: 1,
    with_noise_for_value: 2,
    with_flipped_bits: 4,
    with_raw_bytes_inside: 3,
    in_another_encoding: 2,
    with_something_behind: 2,
    nested_deeply: 1,
    with_scrap_for_payload: 1,
    with_scrap_for_a_value: 8,
    with_huge_field: 0,
    without_a_field: 4,
    with_a_new_field: 2,
    with_a_field_twice: 3,
    with_other_texts: 4,
    of_another_wheel: 2,
    without_headers: 1,
    without_a_header: 2,
    of_unknown_type: 1,
    of_another_version: 2,
    of_another_type: 2,
    with_type_twice: 2,
    with_strange_headers: 2,
    with_another_key: 1,
    without_key: 2,
}
"""Every fault, and how often it comes among fifty or so."""


def fuzz(random: Random, message: OutboundMessage) -> OutboundMessage:
    """Spoil a message in one of the ways, or seldom in two."""
    faults, weights = list(FAULTS), list(FAULTS.values())
    for fault in random.choices(faults, weights, k=2 if random.random() < 0.1 else 1):
        message = fault(random, message)
    return message


def fuzzed_messages(
    topic: Topic, count: int, *, wheel: str, seed: int
) -> Iterator[OutboundMessage]:
    """Make spoilt messages of a topic, the same for the same seed, a few of them huge."""
    random = Random(f"{topic} {seed}")
    valid = valid_messages(topic, wheel=wheel)
    for number in range(count):
        message = random.choice(valid)
        yield with_huge_field(random, message) if number % 500 == 499 else fuzz(random, message)


def fuzzed(topic: Topic, *, wheel: str) -> st.SearchStrategy[OutboundMessage]:
    """Draw spoilt messages of a topic, for hypothesis."""
    return st.builds(
        lambda fault, random, message: fault(random, message),
        st.sampled_from(list(FAULTS)),
        st.randoms(use_true_random=False),
        st.sampled_from(valid_messages(topic, wheel=wheel)),
    )
