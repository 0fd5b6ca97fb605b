"""Deferred records: rows that leave when their record is done, or dead."""

import base64
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    bindparam,
    delete,
    func,
    or_,
    select,
)
from sqlalchemy import update as update_of

from deltawheel.contracts.events import InboundMessage
from deltawheel.contracts.interruptions import Backlog, Deferral
from deltawheel.contracts.prompt import PromptKey
from deltawheel.infra.store.loop_tables import DEFERRALS, DEFERRED_PROMPTS, HALTS
from deltawheel.infra.store.part import Part, Row, chunks, insert_missing
from deltawheel.infra.store.rows import prompt_columns

__all__ = ["SqlDeferrals", "end_deferrals"]

_CHANGING = ("reason", "dependency", "tries", "due_at")


class SqlDeferrals(Part):
    """The `Deferrals` port."""

    def add_deferrals(self, deferrals: Sequence[Deferral]) -> None:
        """Store deferred records; nothing happens to those that are there already."""
        rows = [_row(deferral, self._wheel) for deferral in deferrals]
        prompts = [
            {name: row[name] for name in ("wheel", "prompt_id", "round", "deferred_at")}
            for row in rows
            if row["prompt_id"] is not None
        ]
        with self._database.writing() as connection:
            insert_missing(connection, DEFERRALS, rows)
            insert_missing(connection, DEFERRED_PROMPTS, prompts)

    def claim_deferrals(
        self,
        service: str,
        *,
        at: datetime,
        until: datetime,
        limit: int,
        down: frozenset[str] = frozenset(),
    ) -> list[Deferral]:
        """Take due records, the longest due first, and let them be due again at `until`."""
        needed = DEFERRALS.c.dependency
        is_up = or_(needed.is_(None), needed.not_in(sorted(down)))
        due = self._waiting(service).where(DEFERRALS.c.due_at <= at, is_up).limit(limit)
        return self._claim(due, until)

    def claim_probe(
        self, service: str, dependency: str, *, at: datetime, until: datetime
    ) -> list[Deferral]:
        """Take one record that waits for this dependency."""
        is_free = DEFERRALS.c.due_at <= at
        one = self._waiting(service).where(DEFERRALS.c.dependency == dependency, is_free).limit(1)
        return self._claim(one, until)

    def _waiting(self, service: str) -> Select[Any]:
        row = DEFERRALS.c
        return (
            select(row.deferral_id, row.due_at)
            .where(row.wheel == self._wheel, row.service == service, ~_is_halted())
            .order_by(row.due_at, row.deferral_id)
        )

    def _claim(self, wanted: Select[Any], until: datetime) -> list[Deferral]:
        with self._database.reading() as connection:
            found = connection.execute(wanted).all()
        if not found:
            return []
        with self._database.writing() as connection:
            # By id: two members that take the same rows in another order wait for each other.
            taken = [
                deferral
                for deferral_id, due_at in sorted(found, key=lambda row: str(row[0]))
                if (deferral := _take(connection, deferral_id, due_at, until)) is not None
            ]
        return sorted(taken, key=lambda deferral: deferral.due_at)

    def postpone_deferrals(self, deferrals: Sequence[Deferral]) -> None:
        """Write when and why records are to be tried again."""
        change = (
            update_of(DEFERRALS)
            .where(DEFERRALS.c.deferral_id == bindparam("of_id"))
            .values({name: bindparam(f"new_{name}") for name in _CHANGING})
        )
        rows = [
            {"of_id": deferral.deferral_id}
            | {f"new_{name}": getattr(deferral, name) for name in _CHANGING}
            for deferral in sorted(deferrals, key=lambda each: each.deferral_id)
        ]
        with self._database.writing() as connection:
            connection.execute(change, rows)

    def end_deferrals(self, deferral_ids: Sequence[str]) -> None:
        """These records are done."""
        with self._database.writing() as connection:
            end_deferrals(connection, deferral_ids)

    def backlogs(self) -> list[Backlog]:
        """Return what is deferred, a line for each service that has any."""
        row = DEFERRALS.c
        counts = (
            select(row.service, func.count(), func.min(row.deferred_at))
            .where(row.wheel == self._wheel)
            .group_by(row.service)
            .order_by(row.service)
        )
        with self._database.reading() as connection:
            return [
                Backlog(service=service, num_records=number, oldest_at=oldest_at)
                for service, number, oldest_at in connection.execute(counts)
            ]


def _take(
    connection: Connection, deferral_id: str, due_at: datetime, until: datetime
) -> Deferral | None:
    """Claim one row, unless another member has moved its time meanwhile."""
    row = DEFERRALS.c
    claim = (
        update_of(DEFERRALS)
        .where(row.deferral_id == deferral_id, row.due_at == due_at)
        .values(due_at=until)
        .returning(*DEFERRALS.columns)
    )
    taken = connection.execute(claim).mappings().first()
    return None if taken is None else replace(_deferral(taken), due_at=due_at)


def end_deferrals(connection: Connection, deferral_ids: Sequence[str]) -> None:
    """Forget these deferrals, within a transaction."""
    for part in chunks(sorted(deferral_ids)):
        connection.execute(delete(DEFERRALS).where(DEFERRALS.c.deferral_id.in_(part)))


def _is_halted() -> ColumnElement[bool]:
    halt, row = HALTS.c, DEFERRALS.c
    return (
        select(halt.halted_at)
        .where(
            halt.wheel == row.wheel,
            halt.service == row.service,
            halt.topic == row.topic,
            halt.partition == row.partition,
            halt.resumed_at.is_(None),
        )
        .correlate(DEFERRALS)
        .exists()
    )


def _row(deferral: Deferral, wheel: str) -> Row:
    message = deferral.message
    headers = [[name, base64.b64encode(raw).decode()] for name, raw in message.headers]
    return {
        "wheel": wheel,
        "deferral_id": deferral.deferral_id,
        "service": deferral.service,
        "topic": message.topic,
        "partition": message.partition,
        "offset": message.offset,
        "key": message.key,
        "value": message.value,
        "headers": json.dumps(headers),
        "reason": deferral.reason,
        "dependency": deferral.dependency,
        "tries": deferral.tries,
        **prompt_columns(deferral.prompt_key),
        "deferred_at": deferral.deferred_at,
        "due_at": deferral.due_at,
        "deadline_at": deferral.deadline_at,
    }


def _deferral(row: RowMapping) -> Deferral:
    headers = ((name, base64.b64decode(raw)) for name, raw in json.loads(row["headers"]))
    prompt_id, round_ = row["prompt_id"], row["round"]
    return Deferral(
        prompt_key=None if prompt_id is None else PromptKey(prompt_id, round_),
        message=InboundMessage(
            topic=row["topic"],
            partition=row["partition"],
            offset=row["offset"],
            key=row["key"],
            value=row["value"],
            headers=tuple(headers),
        ),
        service=row["service"],
        reason=row["reason"],
        dependency=row["dependency"],
        tries=row["tries"],
        deferred_at=row["deferred_at"],
        due_at=row["due_at"],
        deadline_at=row["deadline_at"],
    )
