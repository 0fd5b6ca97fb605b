"""Changing the pool while it runs: what an operator asks for, as events of the pool's log.

Each function reads the log and returns the event to append, or refuses. Two that ask at the same
moment may both be heard: the log's order decides, and nothing is lost by it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from deltawheel.contracts.errors import InvalidRecordError
from deltawheel.contracts.generator import Generator, PoolEvent, PoolEventKind
from deltawheel.contracts.pool import Pool, last_declaration

__all__ = [
    "LEAST_STANDING",
    "ChangeRefusedError",
    "NoMemberError",
    "PoolChange",
    "history_of",
]

LEAST_STANDING: Final = 2
"""A pair needs two generators; with fewer that stand, prompts wait."""

_COMINGS: Final = frozenset({PoolEventKind.DECLARED, PoolEventKind.ADDED, PoolEventKind.PROMOTED})
_GOINGS: Final = frozenset({PoolEventKind.DRAINED, PoolEventKind.RETIRED})


class ChangeRefusedError(InvalidRecordError):
    """The pool as it stands has no place for this change."""


class NoMemberError(ChangeRefusedError):
    """Nobody of that name is or was in the pool."""


def history_of(log: Sequence[PoolEvent], name: str) -> list[PoolEvent]:
    """Return all that the log says of a name.

    Raises:
        NoMemberError: it says nothing; the message names those it knows.
    """
    if events := [event for event in log if event.generator.name == name]:
        return events
    known = sorted({event.generator.name for event in log})
    raise NoMemberError(f"no generator is or was named {name!r}; the pool's log knows {known}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolChange:
    """Who changes the pool, and why.

    `asking` names this one asking and no other: asked again, the same thing may be done again.
    """

    by: str
    why: str
    asking: str
    at: datetime

    def add(
        self, log: Sequence[PoolEvent], generator: Generator, *, is_replacing: bool = False
    ) -> PoolEvent:
        """Return the coming of a new member, or of another revision of one.

        Raises:
            ChangeRefusedError: the name stands already, and it is not to be replaced.
        """
        standing = Pool.from_log(log).members.get(generator.name)
        if standing is not None and not is_replacing:
            raise ChangeRefusedError(
                f"{standing.reference} is in the pool already: take another name, or say that it "
                "is to be replaced (--replace, is_replacing)"
            )
        return self._event(PoolEventKind.ADDED, generator)

    def drain(self, log: Sequence[PoolEvent], name: str, *, is_forced: bool = False) -> PoolEvent:
        """Return the end of a member's share: what was dealt to it goes on, nothing more comes.

        Raises:
            NoMemberError: there is no such member, and never was.
            ChangeRefusedError: it has gone already, or too few would stand.
        """
        last = _last_move(log, name)
        if last.kind in _GOINGS:
            raise ChangeRefusedError(f"{name} is {last.kind} already, since {_when(last)}")
        _leave_enough(log, name, is_forced=is_forced)
        return self._event(PoolEventKind.DRAINED, last.generator)

    def retire(self, log: Sequence[PoolEvent], name: str, *, is_forced: bool = False) -> PoolEvent:
        """Return the end of a member, drained or not: its adapter is unloaded when nobody needs it.

        Raises:
            NoMemberError: there is no such member, and never was.
            ChangeRefusedError: it is retired already, or too few would stand.
        """
        last = _last_move(log, name)
        if last.kind is PoolEventKind.RETIRED:
            raise ChangeRefusedError(f"{name} is retired already, since {_when(last)}")
        _leave_enough(log, name, is_forced=is_forced)
        return self._event(PoolEventKind.RETIRED, last.generator)

    def bring_back(self, log: Sequence[PoolEvent], name: str) -> PoolEvent:
        """Return the undoing of a drain or retirement: the member comes in as it came before.

        One that the settings have drained counts as added, for they no longer declare it.

        Raises:
            NoMemberError: there is no such member, and never was.
            ChangeRefusedError: it is in the pool, though it may have left for a while.
        """
        last = _last_move(log, name)
        if last.kind not in _GOINGS:
            away = Pool.from_log(log).absent.get(name)
            waits = f"; it has left and returns by itself: {away}" if away else ""
            raise ChangeRefusedError(f"{name} is in the pool already{waits}")
        comings = [event.kind for event in history_of(log, name) if event.kind in _COMINGS]
        came_by = comings[-1] if comings else PoolEventKind.ADDED
        is_gone = came_by is PoolEventKind.DECLARED and name not in last_declaration(log)
        return self._event(PoolEventKind.ADDED if is_gone else came_by, last.generator)

    def _event(self, kind: PoolEventKind, generator: Generator) -> PoolEvent:
        return PoolEvent(
            kind=kind,
            generator=generator,
            reason=f"by {self.by}: {self.why}",
            at=self.at,
            cause=f"operator {self.asking}",
        )


def _last_move(log: Sequence[PoolEvent], name: str) -> PoolEvent:
    """Return the last event by which a name came or went; leaving for a while is neither."""
    moves = [event for event in history_of(log, name) if event.kind in _COMINGS | _GOINGS]
    return moves[-1]


def _leave_enough(log: Sequence[PoolEvent], name: str, *, is_forced: bool) -> None:
    standing = {member.name for member in Pool.from_log(log).standing()}
    rest = sorted(standing - {name})
    if name in standing and len(rest) < LEAST_STANDING and not is_forced:
        raise ChangeRefusedError(
            f"without {name} only {rest} would stand, and a pair needs two: add another first, or "
            "insist (--force, is_forced); prompts then wait"
        )


def _when(event: PoolEvent) -> str:
    return f"{event.at.isoformat(timespec='seconds')} ({event.reason})"
