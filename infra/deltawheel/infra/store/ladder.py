"""What the capability ladder is made of: probes, and judged work by exact revision."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from sqlalchemy import FromClause, Select, and_, func, select

from deltawheel.contracts.ladder import Contest
from deltawheel.contracts.outcome import UnpairedCause
from deltawheel.contracts.probe import Probe
from deltawheel.infra.store.ladder_tables import PROBES
from deltawheel.infra.store.part import Part, first_writers, same_attempt, same_prompt
from deltawheel.infra.store.tables import CLOSINGS, PAIRS, PROMPTS, TRACES

__all__ = ["SqlLadderRows"]

_ONE = TRACES.alias("one")
_OTHER = TRACES.alias("other")


class SqlLadderRows(Part):
    """The `LadderRows` port."""

    def add_probes(self, probes: Sequence[Probe]) -> list[Probe]:
        """Store probes; return what the store holds under their ids."""
        if not probes:
            return []
        rows = [
            {
                "wheel": self._wheel,
                "probe_id": probe.probe_id,
                "probed_at": probe.probed_at,
                "payload": probe.model_dump_json(),
            }
            for probe in probes
        ]
        with self._database.writing() as connection:
            return first_writers(connection, PROBES, rows, probes)

    def probes(self) -> list[Probe]:
        """Return all probes, oldest first."""
        row = PROBES.c
        mine = (
            select(row.payload)
            .where(row.wheel == self._wheel)
            .order_by(row.probed_at, row.probe_id)
        )
        with self._database.reading() as connection:
            held = connection.scalars(mine).all()
        return [Probe.model_validate_json(payload) for payload in held]

    def judged_work(self) -> list[Contest]:
        """Return who was chosen over whom, and who tied, by exact revision and domain.

        Pairs name generators; which revision it was, the traces of their prompt say.
        """
        with self._database.reading() as connection:
            wins = connection.execute(self._wins()).all()
            ties = connection.execute(self._ties()).all()
        won = Counter({(a, b, domain): number for a, b, domain, number in _named(wins)})
        tied = Counter({(a, b, domain): number for a, b, domain, number in _named(ties)})
        return [
            Contest(
                first=a,
                second=b,
                domain=domain,
                wins=won[a, b, domain],
                losses=won[b, a, domain],
                ties=tied[a, b, domain] + tied[b, a, domain],
            )
            for a, b, domain in sorted({(*sorted(it[:2]), it[2]) for it in (*won, *tied)})
        ]

    def _wins(self) -> Select[Any]:
        chosen = and_(same_prompt(_ONE, PAIRS), _ONE.c.generator == PAIRS.c.chosen_generator)
        rejected = and_(
            same_prompt(_OTHER, PAIRS), _OTHER.c.generator == PAIRS.c.rejected_generator
        )
        who = (*_columns(_ONE), *_columns(_OTHER), PAIRS.c.domain)
        return (
            select(*who, func.count())
            .select_from(PAIRS)
            .join(_ONE, chosen)
            .join(_OTHER, rejected)
            .where(PAIRS.c.wheel == self._wheel)
            .group_by(*who)
        )

    def _ties(self) -> Select[Any]:
        """Count the prompts whose current attempt tied."""
        who = (*_columns(_ONE), *_columns(_OTHER), PROMPTS.c.domain)
        return (
            select(*who, func.count())
            .select_from(CLOSINGS)
            .join(PROMPTS, same_attempt(CLOSINGS, PROMPTS))
            .join(_ONE, and_(same_prompt(_ONE, CLOSINGS), _ONE.c.slot == 0))
            .join(_OTHER, and_(same_prompt(_OTHER, CLOSINGS), _OTHER.c.slot == 1))
            .where(CLOSINGS.c.wheel == self._wheel, CLOSINGS.c.cause == UnpairedCause.TIE.value)
            .group_by(*who)
        )


def _columns(traces: FromClause) -> tuple[Any, Any]:
    return traces.c.generator, traces.c.generator_revision


def _named(rows: Sequence[Any]) -> list[tuple[str, str, str, int]]:
    return [(f"{a}@{b}", f"{c}@{d}", domain, number) for a, b, c, d, domain, number in rows]
