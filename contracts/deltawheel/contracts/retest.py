"""Test–retest: how far judgements of one and the same text lie apart."""

from collections.abc import Sequence
from statistics import fmean

__all__ = ["pooled_variance", "reliability"]


def pooled_variance(groups: Sequence[Sequence[float]]) -> float:
    """Return the variance of a single score within its text, pooled over texts; 0 if none repeats.

    Each group holds the scores of one text. Groups count by their degrees of freedom.
    """
    squares = sum(_squares(group) for group in groups)
    freedom = sum(len(group) - 1 for group in groups if group)
    return squares / freedom if freedom else 0.0


def reliability(groups: Sequence[Sequence[float]]) -> float | None:
    """Return the share of the scores' variance that lies between texts: ICC(1), 1 at best.

    The one-way random model of Shrout and Fleiss (1979), for groups of one size. None where
    nothing varies, or too little was repeated, so that there is no telling.
    """
    size = min(map(len, groups), default=0)
    if len(groups) < 2 or size < 2:
        return None
    cut = [list(group[:size]) for group in groups]
    means = [fmean(group) for group in cut]
    between = size * _squares(means) / (len(cut) - 1)
    within = pooled_variance(cut)
    total = between + (size - 1) * within
    return (between - within) / total if total else None


def _squares(values: Sequence[float]) -> float:
    if not values:
        return 0.0
    mean = fmean(values)
    return sum((value - mean) ** 2 for value in values)
