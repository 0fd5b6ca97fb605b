"""Turnover: which members are dealt to for a while, so that few models need be loaded at once.

Of many members `rotation.max_active` are active; the set changes with each window of
`rotation.turnover_s`. It hangs on the window's number and on the members that stand, and on nothing
else, so that every process of the service finds the same one.
"""

import hashlib
from collections.abc import Collection, Sequence
from datetime import datetime
from math import inf, log

from deltawheel.contracts.generator import Generator
from deltawheel.contracts.settings import RotationSettings

__all__ = ["active_members", "window_at"]


def window_at(at: datetime, rotation: RotationSettings) -> int:
    """Return the number of the window that a moment lies in; 0 where all members are active."""
    if rotation.max_active is None:
        return 0
    return int(at.timestamp() // rotation.turnover_s)


def active_members(
    pairs: Sequence[tuple[Generator, Generator]], *, window: int, max_active: int | None
) -> Collection[str]:
    """Return the names of those that are dealt to in a window, of all that may be paired.

    Whole pairs are drawn, each as likely as the product of its members' weights says, until no
    further one fits: so whoever is active has a partner, every two meet in the long run, and a
    member of twice the weight is active about twice as often. A promoted member is one like the
    others. Who weighs nothing is active only where there is room.
    """
    if max_active is None:
        return {member.name for pair in pairs for member in pair}
    active: set[str] = set()
    for pair in sorted(pairs, key=lambda pair: _place(pair, window)):
        if len(joined := active | {member.name for member in pair}) <= max_active:
            active = joined
    return active


def _place(pair: tuple[Generator, Generator], window: int) -> tuple[float, str]:
    """Return where a pair stands in its window's order: draws without replacement, by weight.

    The smallest of exponential variates at these rates (Efraimidis and Spirakis 2006).
    """
    first, second = sorted(member.reference for member in pair)
    digest = hashlib.sha256(f"{window}:{first}:{second}".encode()).hexdigest()
    weight = pair[0].weight * pair[1].weight
    chance = (int(digest[:13], 16) + 0.5) / 2**52
    return (-log(chance) / weight if weight else inf, digest)
