"""Evaluation items: withheld sandbox problems, drawn afresh each cycle, or a file of ours."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deltawheel.contracts.clock import Random
from deltawheel.contracts.errors import ConfigError
from deltawheel.contracts.evaluation import SuiteRole
from deltawheel.contracts.ids import content_id
from deltawheel.contracts.settings import EvaluationSettings, SuiteSettings
from deltawheel.contracts.settings.values import SANDBOX_PREFIX

__all__ = ["Item", "Suite", "load_suites"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One question with its right answer. The id hangs on both, not on its place in the suite."""

    item_id: str
    prompt: str
    target: str

    @classmethod
    def of(cls, prompt: str, target: str) -> "Item":
        """Make the item that asks this."""
        return cls(item_id=content_id("item", 1, prompt, target), prompt=prompt, target=target)


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """The items of one suite, and what they decide."""

    name: str
    role: SuiteRole
    items: tuple[Item, ...]


def load_suites(settings: EvaluationSettings, *, seed: int, random: Random) -> tuple[Suite, ...]:
    """Draw the items of every suite; the same seed draws the same ones.

    Raises:
        ConfigError: a suite is unknown, its file is missing, empty, or has a malformed line.
    """
    return tuple(
        Suite(
            name=suite.name,
            role=suite.role,
            items=_items(suite, settings.items_per_suite, seed=seed, random=random),
        )
        for suite in settings.suites
    )


def _items(suite: SuiteSettings, limit: int, *, seed: int, random: Random) -> tuple[Item, ...]:
    if suite.items.startswith(SANDBOX_PREFIX):
        return _sandbox_items(suite, limit, seed=seed)
    found = list(dict.fromkeys(_file_items(suite)))
    if not found:
        raise ConfigError(f"evaluation.suites.{suite.name}.items: {suite.items} holds no items")
    random.seeded(f"items {suite.name} {seed}").shuffle(found)
    return tuple(found[:limit])


def _sandbox_items(suite: SuiteSettings, limit: int, *, seed: int) -> tuple[Item, ...]:
    from deltawheel.infra.sandbox.grammar import suite_problems

    try:
        problems = suite_problems(suite.items.removeprefix(SANDBOX_PREFIX), limit, seed=seed)
    except ValueError as error:
        raise ConfigError(f"evaluation.suites.{suite.name}.items: {error}") from error
    return tuple(Item.of(problem.text, str(problem.answer)) for problem in problems)


def _file_items(suite: SuiteSettings) -> Iterator[Item]:
    path = Path(suite.items).expanduser()
    try:
        # Not splitlines: JSON may hold U+2028 and its like unescaped, and they end no line here.
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"evaluation.suites.{suite.name}.items: {path} cannot be read ({error}); give a JSONL "
            "file, or sandbox:<suite>"
        ) from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            yield Item.of(_text(row, "prompt"), _text(row, "reference_answer"))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ConfigError(
                f"evaluation.suites.{suite.name}.items: line {number} of {path} is not an object "
                f"with prompt and reference_answer ({error})"
            ) from error


def _text(row: Mapping[str, Any], key: str) -> str:
    """Return a text, or a number as text; anything else would make an item that nobody can pass."""
    value = row[key]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TypeError(f"{key} is {json.dumps(value)}")
    return str(value)
