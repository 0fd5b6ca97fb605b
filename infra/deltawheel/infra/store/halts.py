"""Halted partitions, and whether a record speaks of anything that is stored."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, and_, select, update

from deltawheel.contracts.events import key_of
from deltawheel.contracts.interruptions import Halt
from deltawheel.contracts.promotion import Promotion
from deltawheel.contracts.record import Record
from deltawheel.infra.store.columns import is_key
from deltawheel.infra.store.cycle_tables import PROMOTIONS
from deltawheel.infra.store.loop_tables import HALTS
from deltawheel.infra.store.part import Part, insert_missing
from deltawheel.infra.store.tables import PROMPTS, TRACES

__all__ = ["SqlHalts"]


class SqlHalts(Part):
    """The `Halts` port."""

    def add_halts(self, halts: Sequence[Halt]) -> None:
        """Store halts; of a partition that is halted already, the first one stands."""
        rows = [
            {
                "wheel": self._wheel,
                "service": halt.service,
                "topic": halt.topic,
                "partition": halt.partition,
                "halted_at": halt.halted_at,
                "offset": halt.offset,
                "reason": halt.reason,
            }
            for halt in halts
        ]
        if rows:
            with self._database.writing() as connection:
                insert_missing(connection, HALTS, rows)

    def halts(self, service: str | None = None) -> list[Halt]:
        """Return the halts that nobody has ended, the oldest first."""
        halt = HALTS.c
        those = (
            select(
                halt.service, halt.topic, halt.partition, halt.offset, halt.reason, halt.halted_at
            )
            .where(halt.wheel == self._wheel, halt.resumed_at.is_(None))
            .order_by(halt.halted_at, halt.service, halt.topic, halt.partition)
        )
        if service is not None:
            those = those.where(halt.service == service)
        with self._database.reading() as connection:
            return [Halt(**row) for row in connection.execute(those).mappings()]

    def resume_halts(self, halts: Sequence[Halt], *, by: str, at: datetime) -> list[Halt]:
        """End halts; return those that nobody had ended before."""
        with self._database.writing() as connection:
            return [
                halt
                for halt in halts
                if connection.execute(
                    update(HALTS)
                    .where(self._is(halt), HALTS.c.resumed_at.is_(None))
                    .values(resumed_at=at, resumed_by=by)
                    .returning(HALTS.c.halted_at)
                ).first()
            ]

    def _is(self, halt: Halt) -> ColumnElement[bool]:
        row = HALTS.c
        return and_(
            row.wheel == self._wheel,
            row.service == halt.service,
            row.topic == halt.topic,
            row.partition == halt.partition,
            row.halted_at == halt.halted_at,
        )

    def holds(self, record: Record) -> bool:
        """Whether this wheel's rows have what the record speaks of.

        A prompt by its id and round; whatever speaks of a trace, only together with that trace.
        """
        if isinstance(record, Promotion):
            return self._has(PROMOTIONS.c.promotion_id, record.promotion_id)
        key = key_of(record)
        if key is None or not self._has(PROMPTS.c.prompt_id, key.prompt_id):
            return False
        trace_id = getattr(record, "trace_id", None)
        return trace_id is None or self._has(TRACES.c.trace_id, trace_id)

    def _has(self, column: ColumnElement[str], value: str) -> bool:
        if not is_key(value):
            return False
        table = column.table
        found = select(column).where(column == value, table.c.wheel == self._wheel).limit(1)
        with self._database.reading() as connection:
            return connection.scalar(found) is not None
