"""The capability ladder as it is shown: what is known of each member, part by part."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from deltawheel.contracts.ladder import Ladder, LadderEvidence, Rating
from deltawheel.contracts.logistic import Belief
from deltawheel.contracts.pool import Pool
from deltawheel.contracts.probe import counted
from deltawheel.contracts.settings import Settings

if TYPE_CHECKING:
    from deltawheel.contracts.store import Store

__all__ = ["COLUMNS", "ladders", "rows", "told"]


def ladders(store: "Store", settings: Settings, domains: Sequence[str] = ()) -> list[Ladder]:
    """Return the ladders of these domains; of none named, of all that anything is known of."""
    pool = Pool.from_log(store.pool_log())
    evidence = LadderEvidence(probes=counted(store.probes()), contests=store.judged_work())
    seen = {it.domain for it in evidence.probes} | {it.domain for it in evidence.contests}
    return [
        Ladder.of(
            pool.ranked(),
            domain=domain,
            evidence=evidence,
            update_by=settings.ladder.update_by,
            pool_revision=pool.revision,
        )
        for domain in domains or sorted(seen) or [settings.probe.domain]
    ]


def told(ladder: Ladder) -> dict[str, Any]:
    """Return all of a ladder, for machines."""
    return {
        "domain": ladder.domain,
        "scale": ladder.scale,
        "revision": ladder.revision,
        "ratings": [
            {
                "generator": it.generator.name,
                "generator_revision": it.generator.revision,
                "prior": it.prior._asdict(),
                "probe": it.probe._asdict() if it.probe else None,
                "judged": it.judged._asdict() if it.judged else None,
                "num_items": it.num_items,
                "num_right": it.num_right,
                "num_judged": it.num_judged,
                "estimate": it.estimate,
                "stderr": it.stderr,
            }
            for it in _ranked(ladder.ratings.values())
        ],
    }


COLUMNS = ("generator", "prior", "probe", "right", "judged", "pairs and ties", "estimate")


def rows(ladder: Ladder) -> list[tuple[object, ...]]:
    """Return a ladder's lines of the table, the most capable first."""
    return [
        (
            it.generator.name,
            _belief(it.prior),
            _belief(it.probe),
            f"{it.num_right}/{it.num_items}" if it.num_items else "-",
            _belief(it.judged),
            it.num_judged or "-",
            _belief(Belief(it.estimate, it.stderr)),
        )
        for it in _ranked(ladder.ratings.values())
    ]


def _ranked(ratings: Iterable[Rating]) -> list[Rating]:
    return sorted(ratings, key=lambda it: (-it.estimate, it.generator.name))


def _belief(belief: Belief | None) -> str:
    return "-" if belief is None else f"{belief.mean:+.2f} ± {belief.stderr:.2f}"
