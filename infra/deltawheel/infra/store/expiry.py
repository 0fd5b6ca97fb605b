"""Expiry, the last resort: slots that waited too long, measured in time in which the wheel turned.

A wheel that was stopped, or whose generation was paused, has not tried: such spans are
standstills. Every expiry moves forward by those, and by the outages of dependencies, that it has
lived through (ARCHITECTURE §4.2); where they overlap, once. They are rows, so that the audit can
tell a slot that an outage has cost from one that was lost.
"""

from datetime import datetime, timedelta

from sqlalchemy import Connection, func, select, update

from deltawheel.contracts.judgement import SlotFailed
from deltawheel.contracts.prompt import PromptKey
from deltawheel.infra.store.columns import UtcDateTime
from deltawheel.infra.store.outages import SqlOutages, overlap
from deltawheel.infra.store.owed import LedgerDebts, ended_slots, num_ended
from deltawheel.infra.store.part import insert_missing, same_attempt, same_prompt
from deltawheel.infra.store.tables import ASSIGNMENTS, PROMPTS, STANDSTILLS, TRANSITIONS, WATCHES

__all__ = ["LedgerExpiry"]

_MOMENT = UtcDateTime()


class LedgerExpiry(LedgerDebts, SqlOutages):
    """What ends by waiting."""

    def watch(self, *, at: datetime, longest_gap: timedelta, is_paused: bool) -> None:
        """Note that the wheel turns; what lies since the last note may be a standstill.

        It is one if generation is paused, or if the last note is longer ago than `longest_gap`:
        then nobody was there to note anything. A first note only begins.
        """
        with self._database.writing() as connection:
            row = {"wheel": self._wheel, "seen_at": at}
            if insert_missing(connection, WATCHES, [row]):
                return
            seen_at = connection.execute(
                select(WATCHES.c.seen_at).where(WATCHES.c.wheel == self._wheel)
            ).scalar_one()
            if seen_at >= at or not self._moves(connection, seen_at, at):
                return
            if is_paused or at - seen_at > longest_gap:
                self._stand_still(connection, seen_at, at)

    def standstill(self, since: datetime, until: datetime) -> timedelta:
        """Return for how much of this span the wheel stood still or lacked a dependency."""
        with self._database.reading() as connection:
            return overlap(self._interruptions(connection, since), since, until)

    def expired(self, *, at: datetime, limit: int) -> list[SlotFailed]:
        """Return an end for each open slot whose assignment has expired.

        It looks at no more than `limit` prompts, the first to expire. Interruptions move none of
        them past a prompt that was opened later for as long: what is behind these waits, too.
        """
        began_at = func.coalesce(TRANSITIONS.c.opened_at, PROMPTS.c.accepted_at, type_=_MOMENT)
        expires_at = func.coalesce(
            TRANSITIONS.c.expires_at, ASSIGNMENTS.c.expires_at, type_=_MOMENT
        )
        late = (
            select(
                PROMPTS.c.prompt_id,
                PROMPTS.c.round,
                PROMPTS.c.attempt,
                PROMPTS.c.accepted_at,
                ASSIGNMENTS.c.num_slots,
                began_at.label("began_at"),
                expires_at.label("expires_at"),
            )
            .join(ASSIGNMENTS, same_prompt(ASSIGNMENTS, PROMPTS))
            .outerjoin(TRANSITIONS, same_attempt(TRANSITIONS, PROMPTS))
            .where(self._is_open(), expires_at <= at, num_ended() < ASSIGNMENTS.c.num_slots)
            .order_by(expires_at, PROMPTS.c.prompt_id, PROMPTS.c.round)
            .limit(limit)
        )
        failures: list[SlotFailed] = []
        with self._database.reading() as connection:
            plans = connection.execute(late).all()
            if not plans:
                return []
            spans = self._interruptions(connection, min(row.began_at for row in plans))
            moved = {row: row.expires_at + overlap(spans, row.began_at, at) for row in plans}
            over = [row for row, expires_at in moved.items() if expires_at <= at]
            ended = ended_slots(connection, [PromptKey(row[0], row[1]) for row in over])
        for row in over:
            failures.extend(
                SlotFailed(
                    prompt_id=row.prompt_id,
                    round=row.round,
                    slot=slot,
                    attempt=row.attempt,
                    reason=f"expired: no judged trace by {moved[row].isoformat()}",
                    is_expired=True,
                    accepted_at=row.accepted_at,
                    failed_at=at,
                )
                for slot in range(row.num_slots)
                if (row.prompt_id, row.round, slot) not in ended
            )
        return failures[:limit]

    def _moves(self, connection: Connection, seen_at: datetime, at: datetime) -> bool:
        """Replace the last note, unless another member has done so meanwhile."""
        move = (
            update(WATCHES)
            .where(WATCHES.c.wheel == self._wheel, WATCHES.c.seen_at == seen_at)
            .values(seen_at=at)
            .returning(WATCHES.c.wheel)
        )
        return connection.execute(move).first() is not None

    def _stand_still(self, connection: Connection, since: datetime, until: datetime) -> None:
        """Lengthen the standstill that ended where this one begins, or begin a new one."""
        spans = STANDSTILLS.c
        lengthen = (
            update(STANDSTILLS)
            .where(spans.wheel == self._wheel, spans.ended_at == since)
            .values(ended_at=until)
            .returning(spans.began_at)
        )
        if connection.execute(lengthen).first() is None:
            row = {"wheel": self._wheel, "began_at": since, "ended_at": until}
            insert_missing(connection, STANDSTILLS, [row])
