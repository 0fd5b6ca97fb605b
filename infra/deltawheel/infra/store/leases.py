"""Named leases."""

from datetime import datetime

from sqlalchemy import delete, or_, select

from deltawheel.infra.store.cycle_tables import LEASES
from deltawheel.infra.store.part import Part, upserting

__all__ = ["SqlLeases"]


class SqlLeases(Part):
    """The `Leases` port: compare-and-set in one statement; a lease holds up to and at its end."""

    def acquire_lease(self, name: str, *, token: str, at: datetime, until: datetime) -> bool:
        """Take or prolong a lease; False while another token holds it."""
        row = {"wheel": self._wheel, "name": name, "token": token, "lease_until": until}
        with self._database.writing() as connection:
            taken = connection.execute(
                upserting(connection, LEASES)
                .values(row)
                .on_conflict_do_update(
                    index_elements=[LEASES.c.wheel, LEASES.c.name],
                    set_={"token": token, "lease_until": until},
                    where=or_(LEASES.c.token == token, LEASES.c.lease_until < at),
                )
                .returning(LEASES.c.token)
            )
            return taken.first() is not None

    def release_lease(self, name: str, *, token: str) -> None:
        """Give a lease back; nothing happens if it is no longer held."""
        with self._database.writing() as connection:
            connection.execute(
                delete(LEASES).where(
                    LEASES.c.wheel == self._wheel, LEASES.c.name == name, LEASES.c.token == token
                )
            )

    def is_leased(self, name: str, *, at: datetime) -> bool:
        """Tell whether somebody holds the lease."""
        holder = select(LEASES.c.token).where(
            LEASES.c.wheel == self._wheel, LEASES.c.name == name, LEASES.c.lease_until >= at
        )
        with self._database.reading() as connection:
            return connection.scalar(holder) is not None
