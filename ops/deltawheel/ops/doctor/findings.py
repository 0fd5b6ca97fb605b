"""What a check of `doctor` says: how it stands, what was found, and the one thing to do."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, TypeAlias

from deltawheel.contracts.clock import Clock
from deltawheel.contracts.settings import Settings
from deltawheel.ops.supervisor.runfile import RunRecord

__all__ = ["Check", "Finding", "Level", "Site", "failure", "from_sentence", "ok", "warning"]

_KEY: Final = re.compile(r"[\w.*-]+: ")


class Level(StrEnum):
    """How a thing stands: a wheel does not run, or not well, until a failure is put right."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at; `todo` is what puts it right, and None if nothing has to."""

    level: Level
    found: str
    todo: str | None = None

    def __post_init__(self) -> None:
        if (self.todo is None) != (self.level is Level.OK):
            raise ValueError(f"{self.level} with {self.todo!r} to do: only ok needs nothing done")


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What checks look at: `run` is the wheel that runs here, `killed` one that was killed.

    Whoever is asked over the network is given `timeout_s` to answer.
    """

    settings: Settings
    config: Path | None
    clock: Clock
    run: RunRecord | None = None
    killed: RunRecord | None = None
    timeout_s: float = 4.0


Check: TypeAlias = Callable[[Site], Iterator[Finding]]
"""Looks at one thing; yields at least one finding, changes nothing, and may take its time."""


def ok(found: str) -> Finding:
    """Say that it is as it should be."""
    return Finding(level=Level.OK, found=found)


def warning(found: str, todo: str) -> Finding:
    """Say that a wheel runs, but something will hurt or be in doubt."""
    return Finding(level=Level.WARNING, found=found, todo=todo)


def failure(found: str, todo: str) -> Finding:
    """Say that a wheel will not run, or not do its work."""
    return Finding(level=Level.FAILURE, found=found, todo=todo)


def from_sentence(
    sentence: object, level: Level = Level.FAILURE, *, otherwise: str | None = None
) -> Finding:
    """Take a sentence of ours apart: the fact, then the fix behind a semicolon.

    Where there is none, `otherwise` is the fix; without that, what stands behind the first colon
    other than the one of a leading key.
    """
    text = str(sentence)
    fact, mark, fix = text.rpartition("; ")
    if not mark and otherwise is not None:
        fact, fix = text, otherwise
    elif not mark:
        key = found[0] if (found := _KEY.match(text)) else ""
        rest, mark, fix = text.removeprefix(key).partition(": ")
        fact, fix = key + rest, fix or "put this right, then look again"
    return Finding(level=level, found=fact, todo=fix)
