"""Outages as rows, and for how long anything could not have been done."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection, case, select

from deltawheel.contracts.errors import BROKER, STORE
from deltawheel.contracts.interruptions import Outage
from deltawheel.infra.store.loop_tables import OUTAGES
from deltawheel.infra.store.part import Part, upserting
from deltawheel.infra.store.tables import STANDSTILLS

__all__ = ["Span", "SqlOutages", "merged", "overlap"]

Span = tuple[datetime, datetime]


class SqlOutages(Part):
    """The `Outages` port."""

    def note_outages(self, outages: Sequence[Outage]) -> None:
        """Store spans; one of the same beginning is prolonged, never shortened."""
        if not outages:
            return
        rows = [
            {
                "wheel": self._wheel,
                "dependency": outage.dependency,
                "began_at": outage.began_at,
                "ended_at": outage.ended_at,
            }
            for outage in sorted(outages, key=lambda each: (each.dependency, each.began_at))
        ]
        with self._database.writing() as connection:
            insert = upserting(connection, OUTAGES)
            new, held = insert.excluded.ended_at, OUTAGES.c.ended_at
            prolonging = insert.on_conflict_do_update(
                index_elements=list(OUTAGES.primary_key.columns),
                set_={"ended_at": case((new > held, new), else_=held)},
            )
            connection.execute(prolonging, rows)

    def outages(self, *, since: datetime) -> list[Outage]:
        """Return the spans that ended after this moment, the oldest first."""
        spans = OUTAGES.c
        those = (
            select(spans.dependency, spans.began_at, spans.ended_at)
            .where(spans.wheel == self._wheel, spans.ended_at > since)
            .order_by(spans.began_at, spans.dependency)
        )
        with self._database.reading() as connection:
            return [Outage(**row) for row in connection.execute(those).mappings()]

    def interruption(
        self, since: datetime, until: datetime, *, dependency: str | None
    ) -> timedelta:
        """Return for how much of this span a record that needs the dependency had to wait."""
        needed = {STORE, BROKER} | ({dependency} if dependency else set())
        with self._database.reading() as connection:
            return overlap(self._interruptions(connection, since, needed), since, until)

    def _interruptions(
        self, connection: Connection, since: datetime, of: Iterable[str] | None = None
    ) -> list[Span]:
        """Return standstills and outages that ended after `since`, merged where they overlap.

        Outages of these dependencies, or of any.
        """
        still, outs = STANDSTILLS.c, OUTAGES.c
        standstills = select(still.began_at, still.ended_at).where(
            still.wheel == self._wheel, still.ended_at > since
        )
        outages = select(outs.began_at, outs.ended_at).where(
            outs.wheel == self._wheel, outs.ended_at > since
        )
        if of is not None:
            outages = outages.where(outs.dependency.in_(sorted(of)))
        rows = [*connection.execute(standstills), *connection.execute(outages)]
        return merged((began_at, ended_at) for began_at, ended_at in rows)


def merged(spans: Iterable[Span]) -> list[Span]:
    """Join spans that overlap or touch, so that no second counts twice."""
    joined: list[Span] = []
    for began_at, ended_at in sorted(spans):
        if joined and began_at <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], ended_at)
        else:
            joined.append((began_at, ended_at))
    return joined


def overlap(spans: Sequence[Span], since: datetime, until: datetime) -> timedelta:
    """Return how much of the time from `since` to `until` lies in these spans, which are apart."""
    shared = (min(until, ended_at) - max(since, began_at) for began_at, ended_at in spans)
    return sum((span for span in shared if span > timedelta(0)), timedelta(0))
