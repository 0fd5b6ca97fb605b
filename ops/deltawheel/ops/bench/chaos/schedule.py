"""What is done to the wheel, in which order and how long after one another: all from one seed."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from deltawheel.contracts.clock import Random
from deltawheel.contracts.failpoints import Failpoint
from deltawheel.ops.supervisor.plan import SERVICES

__all__ = ["POINTS", "SUPERVISOR", "Blow", "BlowKind", "HeldAt", "make_schedule"]

SUPERVISOR: Final = "supervisor"


class BlowKind(StrEnum):
    """What can be done, apart from killing a service at a failpoint."""

    PROCESS = "process"
    GUARD = "guard"
    BROKER = "broker"
    DATABASE = "database"
    MODELS = "models"
    GARBAGE = "garbage"
    MEMBERS = "members"


@dataclass(frozen=True, slots=True)
class HeldAt:
    """A failpoint of one service; points that several services pass are armed for one of them."""

    point: Failpoint
    service: str


POINTS: Final = (
    HeldAt(Failpoint.GATEWAY_STORED, "gateway"),
    HeldAt(Failpoint.GENERATION_ASSIGNED, "generation"),
    HeldAt(Failpoint.JUDGING_RECEIVED, "judging"),
    HeldAt(Failpoint.CURATION_ENDED, "curation"),
    HeldAt(Failpoint.MONITORING_SEEN, "monitoring"),
    HeldAt(Failpoint.TRAINING_STEP, "training"),
    HeldAt(Failpoint.RUNTIME_STORED, "generation"),
    HeldAt(Failpoint.RUNTIME_STORED, "judging"),
    HeldAt(Failpoint.RUNTIME_STORED, "curation"),
    HeldAt(Failpoint.RUNTIME_PUBLISHED, "generation"),
    HeldAt(Failpoint.RUNTIME_PUBLISHED, "judging"),
    HeldAt(Failpoint.RUNTIME_PUBLISHED, "curation"),
    HeldAt(Failpoint.RUNTIME_BURIED, "judging"),
)
"""Every failpoint, at every service whose work it can stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blow:
    """One thing that is done: to whom, and how long after the one before, in seconds.

    With `at` unset it comes at a random moment.
    """

    kind: BlowKind
    target: str
    pause_s: float
    at: HeldAt | None = None

    @property
    def is_kill(self) -> bool:
        """Whether it counts as one of the kills that were asked for."""
        return self.kind in {BlowKind.PROCESS, BlowKind.GUARD}


_WEIGHTS: Final = {
    "gateway": 4,
    "generation": 5,
    "judging": 5,
    "curation": 4,
    "training": 1,
    "monitoring": 2,
}
_GUARD_SHARE: Final = 0.15
_SUPERVISOR_SHARE: Final = 0.05
_POINT_SHARE: Final = 0.6
_KILLS_A_ROUND: Final = 100
_MEAN_PAUSE_S: Final = 3.0
_LONGEST_PAUSE_S: Final = 12.0
_TWIN_SHARE: Final = 0.15
_EVENTS: Final = (
    (0.15, BlowKind.DATABASE, "postgres"),
    (0.30, BlowKind.GARBAGE, "traces"),
    (0.50, BlowKind.BROKER, "broker"),
    (0.65, BlowKind.MEMBERS, "groups"),
    (0.80, BlowKind.MODELS, "models"),
)
"""What comes besides kills, and after which share of a round of a hundred kills."""


def make_schedule(random: Random, *, num_kills: int) -> list[Blow]:
    """Return what is done: every failpoint in turn, random moments, and what comes besides.

    All of the points come round once in every 50 kills; a short run has as many of them as fit.
    """
    num_points = max(len(POINTS), num_kills // 50 * len(POINTS))
    num_points = min(num_points, int(num_kills * _POINT_SHARE))
    num_supervisor = max(1, round(num_kills * _SUPERVISOR_SHARE))
    points = list(POINTS)
    random.shuffle(points)
    targets: list[tuple[BlowKind, str, HeldAt | None]] = [
        (BlowKind.PROCESS, at.service, at)
        for at in (points[number % len(points)] for number in range(num_points))
    ]
    targets += [(BlowKind.PROCESS, SUPERVISOR, None)] * num_supervisor
    targets += [_anybody(random) for _ in range(num_kills - len(targets))]
    random.shuffle(targets)
    kills = [
        Blow(kind=kind, target=target, at=at, pause_s=_pause_s(random))
        for kind, target, at in targets
    ]
    return list(_with_events(kills, random))


def _anybody(random: Random) -> tuple[BlowKind, str, None]:
    service = random.choice([name for name in SERVICES for _ in range(_WEIGHTS[name])])
    kind = BlowKind.GUARD if random.random() < _GUARD_SHARE else BlowKind.PROCESS
    return kind, service, None


def _pause_s(random: Random) -> float:
    """Return a pause: sometimes none, so that two die together; else exponential."""
    if random.random() < _TWIN_SHARE:
        return 0.0
    return min(_LONGEST_PAUSE_S, -_MEAN_PAUSE_S * math.log(1 - random.random()))


def _with_events(kills: list[Blow], random: Random) -> Iterator[Blow]:
    num_rounds = max(1, len(kills) // _KILLS_A_ROUND)
    size = len(kills) / num_rounds
    due = {
        int(size * (round_ + share)): (kind, target)
        for round_ in range(num_rounds)
        for share, kind, target in _EVENTS
    }
    for number, blow in enumerate(kills):
        if number in due:
            kind, target = due[number]
            yield Blow(kind=kind, target=target, pause_s=_pause_s(random))
        yield blow
