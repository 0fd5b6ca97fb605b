"""How far the judges of a jury agree, from what the store keeps of each."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, Final

from deltawheel.contracts.agreement import Panel, higher, panels
from deltawheel.contracts.clock import Random
from deltawheel.contracts.judgement import Judgement
from deltawheel.contracts.krippendorff import Scale, alpha, alpha_interval
from deltawheel.contracts.store import JudgementShelf

__all__ = ["Agreement", "agreements"]

_PAGE: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """On one dimension, of a whole panel or of two of its judges."""

    dimension: str
    judges: tuple[str, ...]
    num_traces: int
    interval_alpha: float | None
    interval: tuple[float, float] | None
    ordinal_alpha: float | None
    first_is_higher: float | None = None
    """By how many points the first of two judges scores higher."""

    def told(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "dimension": self.dimension,
            "judges": list(self.judges),
            "traces": self.num_traces,
            "alpha": self.interval_alpha,
            "interval": self.interval,
            "ordinal_alpha": self.ordinal_alpha,
            "first_is_higher_by": self.first_is_higher,
        }


def agreements(
    store: JudgementShelf, random: Random, *, since: datetime | None, limit: int
) -> list[tuple[Panel, list[Agreement]]]:
    """Return for each panel, the newest first, what its judges agree on.

    First the whole panel on every dimension; then, where it has more than two judges, each two.
    """
    read = islice(_judgements(store, since), limit)
    return [(panel, list(_of_panel(panel, random))) for panel in panels(read)]


def _judgements(store: JudgementShelf, since: datetime | None) -> Iterator[Judgement]:
    last: Judgement | None = None
    while page := store.jury_judgements(limit=_PAGE, before=last, since=since):
        yield from page
        last = page[-1]


def _of_panel(panel: Panel, random: Random) -> Iterator[Agreement]:
    for name in panel.dimensions:
        yield _agreement(name, panel.judges, panel.scores(name), random)
    if len(panel.judges) == 2:
        return
    for one, other in panel.pairs():
        for name in panel.dimensions:
            judges = panel.judges[one], panel.judges[other]
            yield _agreement(name, judges, panel.both(one, other, name), random)


def _agreement(
    dimension: str, judges: tuple[str, ...], scores: list[list[float]], random: Random
) -> Agreement:
    judged = [row for row in scores if len(row) > 1]
    return Agreement(
        dimension=dimension,
        judges=judges,
        num_traces=len(judged),
        interval_alpha=alpha(judged),
        interval=alpha_interval(judged, random=random),
        ordinal_alpha=alpha(judged, Scale.ORDINAL),
        first_is_higher=higher(judged) if len(judges) == 2 else None,
    )
