"""The pool of generators: what its event log, read in order, leaves standing."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from math import hypot

from deltawheel.contracts.generator import Generator, GeneratorDelta, PoolEvent, PoolEventKind
from deltawheel.contracts.ids import content_id

__all__ = ["Pool", "declaration_events", "generator_delta", "last_declaration"]


_ENDS = frozenset({PoolEventKind.DRAINED, PoolEventKind.RETIRED})
_OF_ABSENCE = frozenset({PoolEventKind.LEFT, PoolEventKind.RETURNED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """The members at one point of the log.

    `revision` names that point, so that a stored estimate says which ladder it was read from.
    """

    members: Mapping[str, Generator]
    came_by: Mapping[str, PoolEventKind]
    """How each member came in: declared, added or promoted."""
    absent: Mapping[str, str]
    """Why a member has left, by its name, until it returns by itself."""
    revision: str

    @classmethod
    def from_log(cls, log: Sequence[PoolEvent]) -> "Pool":
        """Read the log: the last event about a name decides."""
        members: dict[str, Generator] = {}
        came_by: dict[str, PoolEventKind] = {}
        absent: dict[str, str] = {}
        for event in log:
            name = event.generator.name
            if event.kind in _OF_ABSENCE:
                _note_absence(event, members, absent)
                continue
            absent.pop(name, None)
            if event.kind in _ENDS:
                members.pop(name, None)
                came_by.pop(name, None)
                continue
            members[name], came_by[name] = event.generator, event.kind
        return cls(
            members=members,
            came_by=came_by,
            absent=absent,
            revision=_ladder_revision(members.values()),
        )

    @property
    def promoted(self) -> frozenset[str]:
        """The names of our own wheel's models."""
        return frozenset(
            name for name, kind in self.came_by.items() if kind is PoolEventKind.PROMOTED
        )

    def ranked(self) -> list[Generator]:
        """Return the members, most capable first; equals by name."""
        return sorted(self.members.values(), key=lambda member: (-member.capability, member.name))

    def standing(self) -> list[Generator]:
        """Return the members that prompts may be dealt to now: those that have not left."""
        return [member for member in self.ranked() if member.name not in self.absent]


def _note_absence(
    event: PoolEvent, members: Mapping[str, Generator], absent: dict[str, str]
) -> None:
    """Note that a member left or returned; said of another revision, it says nothing of it."""
    name = event.generator.name
    if name not in members or members[name].revision != event.generator.revision:
        return
    absent.pop(name, None)
    if event.kind is PoolEventKind.LEFT:
        absent[name] = event.reason


def _ladder_revision(members: Iterable[Generator]) -> str:
    """Name the ladder, in whichever order its members came in."""
    ladder = [
        [it.name, it.revision, _decimal(it.capability), _decimal(it.capability_stderr)]
        for it in sorted(members, key=lambda member: member.name)
    ]
    return content_id("pool", 1, ladder)


def _decimal(number: float) -> Decimal:
    return Decimal(repr(number))


def generator_delta(stronger: Generator, weaker: Generator, *, pool: Pool) -> GeneratorDelta:
    """Return how much more capable one is than the other, as the ladder stands.

    Two independent priors: their errors add in quadrature.
    """
    return GeneratorDelta(
        estimate=stronger.capability - weaker.capability,
        stderr=hypot(stronger.capability_stderr, weaker.capability_stderr),
        ladder_revision=pool.revision,
    )


def last_declaration(log: Iterable[PoolEvent]) -> dict[str, Generator]:
    """Return what the settings declared the last time, by name, whatever was done since."""
    last: dict[str, Generator] = {}
    for event in log:
        if event.kind is PoolEventKind.DECLARED:
            last[event.generator.name] = event.generator
        elif event.kind is PoolEventKind.DRAINED and event.cause.startswith("settings"):
            last.pop(event.generator.name, None)
    return last


def declaration_events(
    log: Sequence[PoolEvent], declared: Sequence[Generator], *, at: datetime
) -> list[PoolEvent]:
    """Return what the settings change: they declare members, and are compared with the log.

    Compared with the *last declaration*, never with the pool: a newly declared generator is
    added, one that was declared before and now is gone is drained. An operator's drain stands as
    long as the declaration does not change. Who was promoted or added under a name is untouched
    while it stands, also where the settings declare that name otherwise.
    """
    last, came_by = last_declaration(log), Pool.from_log(log).came_by
    cause = f"settings {len(log)}"
    names = {generator.name for generator in declared}
    added = [
        PoolEvent(
            kind=PoolEventKind.DECLARED,
            generator=generator,
            reason="declared in the settings",
            at=at,
            cause=cause,
        )
        for generator in declared
        if last.get(generator.name) != generator and _is_declared(generator.name, came_by)
    ]
    gone = [
        PoolEvent(
            kind=PoolEventKind.DRAINED,
            generator=generator,
            reason="no longer declared in the settings",
            at=at,
            cause=cause,
        )
        for name, generator in last.items()
        if name not in names and _is_declared(name, came_by)
    ]
    return added + gone


def _is_declared(name: str, came_by: Mapping[str, PoolEventKind]) -> bool:
    """Whether a name is for the settings to say: nobody has it, or who was declared."""
    return came_by.get(name, PoolEventKind.DECLARED) is PoolEventKind.DECLARED
