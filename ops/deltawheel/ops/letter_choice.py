"""Choosing dead letters: by id, and by what they say of themselves."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from datetime import datetime
from itertools import islice
from typing import Final, TypeAlias

import click

from deltawheel.contracts.errors import DeltawheelError
from deltawheel.contracts.letters import LetterEntry, Letters
from deltawheel.contracts.settings import Settings
from deltawheel.infra import wiring
from deltawheel.ops.moments import moment_of

__all__ = ["FILTER_KEYS", "Condition", "choose", "find", "matching", "parse_filter"]

Condition: TypeAlias = Callable[[LetterEntry], bool]

_TEXTS: Final[dict[str, Callable[[LetterEntry, str], Iterable[str | None]]]] = {
    "service": lambda entry, wheel: [entry.service],
    "topic": lambda entry, wheel: [entry.topic, (entry.topic or "").removeprefix(f"{wheel}.")],
    "error": lambda entry, wheel: [entry.error],
    "reason": lambda entry, wheel: [entry.reason],
    "prompt": lambda entry, wheel: _prompt_names(entry),
    "domain": lambda entry, wheel: [entry.domain],
    "kind": lambda entry, wheel: [entry.kind.value],
}
_TIMES: Final = ("since", "until")
FILTER_KEYS: Final = (*_TEXTS, *_TIMES)


def choose(
    letters: Letters,
    settings: Settings,
    entry_ids: Sequence[str],
    filters: Sequence[str],
    *,
    is_all: bool,
    limit: int | None,
) -> list[LetterEntry]:
    """Return what ids and filters name; everything only where that was asked for.

    Raises:
        UsageError: nothing was named, or too much, or a filter is wrong.
        DeltawheelError: an id names nothing.
    """
    if not (entry_ids or filters or is_all):
        raise click.UsageError("name what you mean: an ID, a --filter, or --all")
    if is_all and (entry_ids or filters):
        raise click.UsageError("--all is everything, so give it without IDs and --filter")
    if entry_ids:
        return list(islice(matching(find(letters, entry_ids), filters, settings), limit))
    with closing(letters.letter_entries()) as entries:
        return list(islice(matching(entries, filters, settings), limit))


def find(letters: Letters, entry_ids: Sequence[str]) -> list[LetterEntry]:
    """Return these, in the order given and each once.

    Raises:
        DeltawheelError: one of them names nothing.
    """
    found = letters.find_entries(entry_ids)
    for entry_id in entry_ids:
        if entry_id not in found:
            raise DeltawheelError(
                f"there is no dead letter {entry_id}; `deltawheel dead-letters list` names them"
            )
    return [found[entry_id] for entry_id in dict.fromkeys(entry_ids)]


def matching(
    entries: Iterable[LetterEntry], filters: Sequence[str], settings: Settings
) -> Iterator[LetterEntry]:
    """Return those of which all filters hold.

    Raises:
        UsageError: a filter is wrong.
    """
    now = wiring.system_clock().now()
    try:
        condition = parse_filter(filters, wheel=settings.wheel, now=now)
    except ValueError as error:
        raise click.UsageError(f"--filter: {error}") from error
    return filter(condition, entries)


def parse_filter(texts: Sequence[str], *, wheel: str, now: datetime) -> Condition:
    """Return the condition that all of these hold.

    `key=value` asks for the value itself, of a reason for a part of it; `key~=pattern` finds a
    regular expression anywhere. Times are `since=` and `until=`, with an age (`90m`, `2d`) or an
    ISO 8601 time, in UTC unless that says otherwise.

    Raises:
        ValueError: one is no filter; the message says which, and what would be one.
    """
    conditions = [_condition(text, wheel, now) for text in texts]
    return lambda entry: all(condition(entry) for condition in conditions)


def _condition(text: str, wheel: str, now: datetime) -> Condition:
    found = re.fullmatch(r"([^=~]*)(~?=)(.*)", text, re.DOTALL)
    if found is None:
        raise ValueError(f"{text!r} is neither key=value nor key~=pattern")
    key, operator, value = found.groups()
    if key in _TIMES and operator == "=":
        return _died(key, moment_of(value, now))
    if key not in _TEXTS:
        raise ValueError(f"{text!r}: the keys are {', '.join(FILTER_KEYS)}; times take no ~=")
    return _says(key, _test(text, key, operator, value), wheel)


def _says(key: str, test: Callable[[str], bool], wheel: str) -> Condition:
    texts_of = _TEXTS[key]
    return lambda entry: any(text is not None and test(text) for text in texts_of(entry, wheel))


def _test(text: str, key: str, operator: str, value: str) -> Callable[[str], bool]:
    if operator == "=":
        return (lambda said: value in said) if key == "reason" else (lambda said: value == said)
    try:
        pattern = re.compile(value)
    except re.error as error:
        raise ValueError(f"{text!r}: no regular expression, {error}") from error
    return lambda said: pattern.search(said) is not None


def _died(key: str, moment: datetime) -> Condition:
    if key == "since":
        return lambda entry: entry.died_at >= moment
    return lambda entry: entry.died_at < moment


def _prompt_names(entry: LetterEntry) -> Iterable[str | None]:
    key = entry.prompt_key
    return [key.prompt_id, f"{key.prompt_id}:{key.round}"] if key else []
