"""The pool's log."""

from collections.abc import Sequence

from sqlalchemy import select

from deltawheel.contracts.generator import PoolEvent
from deltawheel.infra.store.cycle_tables import POOL_EVENTS
from deltawheel.infra.store.part import Part, upserting

__all__ = ["SqlPoolLog"]


class SqlPoolLog(Part):
    """The `PoolLog` port."""

    def add_pool_events(self, events: Sequence[PoolEvent]) -> None:
        """Append events; one whose id is there already changes nothing.

        One statement each, because a bulk insert promises no order, and the order is the meaning.
        """
        with self._database.writing() as connection:
            for event in events:
                row = {
                    "wheel": self._wheel,
                    "event_id": event.event_id,
                    "payload": event.model_dump_json(),
                }
                connection.execute(
                    upserting(connection, POOL_EVENTS).values(row).on_conflict_do_nothing()
                )

    def pool_log(self) -> list[PoolEvent]:
        """Return all events in the order in which they were appended."""
        log = (
            select(POOL_EVENTS.c.payload)
            .where(POOL_EVENTS.c.wheel == self._wheel)
            .order_by(POOL_EVENTS.c.seq)
        )
        with self._database.reading() as connection:
            held = connection.scalars(log).all()
        return [PoolEvent.model_validate_json(payload) for payload in held]
