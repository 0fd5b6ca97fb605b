"""Cycles, their fenced steps, and the promotions that came of them."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    and_,
    case,
    or_,
    select,
    update,
)

from deltawheel.contracts.cycle import Cycle, CycleState, CycleStep, StepName, StepState
from deltawheel.contracts.gate import Verdict
from deltawheel.contracts.promotion import Promotion
from deltawheel.infra.store.columns import is_key
from deltawheel.infra.store.cycle_tables import CYCLE_STEPS, CYCLES, PROMOTIONS
from deltawheel.infra.store.part import Part, Row, first_writers, insert_missing

__all__ = ["SqlCycleLog"]

_OVER = (CycleState.ENDED.value, CycleState.FAILED.value)
_SETTLED = (StepState.DONE.value, StepState.SKIPPED.value, StepState.FAILED.value)
_PLACES = {name: place for place, name in enumerate(StepName)}


class SqlCycleLog(Part):
    """The `CycleLog` port.

    A step's row is changed only by one statement that also compares its token: two runners cannot
    both win, and one whose lease was taken over cannot write.
    """

    def add_cycle(self, cycle: Cycle) -> Cycle:
        """Store a requested cycle."""
        with self._database.writing() as connection:
            if insert_missing(connection, CYCLES, [_cycle_row(cycle, self._wheel)]):
                steps = [_step_row(cycle.cycle_id, step, self._wheel) for step in cycle.steps]
                insert_missing(connection, CYCLE_STEPS, steps)
                return cycle
            return _cycles(connection, _select(cycle.cycle_id))[0]

    def cycle(self, cycle_id: str) -> Cycle | None:
        """Return one cycle with its steps."""
        if not is_key(cycle_id):
            return None
        with self._database.reading() as connection:
            return next(iter(_cycles(connection, _select(cycle_id))), None)

    def cycles(self, limit: int) -> list[Cycle]:
        """Return the newest cycles, newest first."""
        newest = (
            select(CYCLES)
            .where(CYCLES.c.wheel == self._wheel)
            .order_by(CYCLES.c.requested_at.desc(), CYCLES.c.cycle_id)
            .limit(limit)
        )
        with self._database.reading() as connection:
            return _cycles(connection, newest)

    def open_cycles(self) -> list[Cycle]:
        """Return the cycles that have not ended, oldest first."""
        opened = (
            select(CYCLES)
            .where(CYCLES.c.wheel == self._wheel, CYCLES.c.state.not_in(_OVER))
            .order_by(CYCLES.c.requested_at, CYCLES.c.cycle_id)
        )
        with self._database.reading() as connection:
            return _cycles(connection, opened)

    def begin_step(
        self, cycle_id: str, name: StepName, *, token: str, at: datetime, lease_until: datetime
    ) -> CycleStep | None:
        """Take the step's lease and count the attempt; None while another holds it.

        Also None once the step is settled, or the cycle over. The error of the attempt before
        stays until this one ends, to be told if it is the last.
        """
        steps = CYCLE_STEPS.c
        is_free = or_(
            steps.state != StepState.RUNNING.value,
            steps.token == token,
            steps.lease_until.is_(None),
            steps.lease_until < at,
        )
        is_open = (
            select(CYCLES.c.cycle_id)
            .where(CYCLES.c.cycle_id == cycle_id, CYCLES.c.state.not_in(_OVER))
            .exists()
        )
        begin = (
            update(CYCLE_STEPS)
            .where(_is_step(cycle_id, name), steps.state.not_in(_SETTLED), is_free, is_open)
            .values(
                state=StepState.RUNNING.value,
                attempt=steps.attempt + 1,
                token=token,
                lease_until=lease_until,
                started_at=at,
                ended_at=None,
            )
            .returning(*steps)
        )
        with self._database.writing() as connection:
            row = connection.execute(begin).mappings().first()
        return None if row is None else _step(row)

    def renew_step(self, cycle_id: str, name: StepName, *, token: str, until: datetime) -> bool:
        """Prolong the lease; False when the token no longer holds it."""
        renew = (
            update(CYCLE_STEPS)
            .where(
                _is_step(cycle_id, name),
                CYCLE_STEPS.c.token == token,
                CYCLE_STEPS.c.state == StepState.RUNNING.value,
            )
            .values(lease_until=until)
            .returning(CYCLE_STEPS.c.token)
        )
        with self._database.writing() as connection:
            return connection.execute(renew).first() is not None

    def finish_step(
        self,
        cycle_id: str,
        name: StepName,
        *,
        token: str,
        state: StepState,
        at: datetime,
        result: Mapping[str, Any] | None = None,
        error: str | None = None,
        is_counted: bool = True,
    ) -> bool:
        """Write the step's end and give its lease back; False when the token is fenced off.

        The same end by the same token twice is one end, so that a call whose answer was lost can
        be made again.
        """
        steps = CYCLE_STEPS.c
        is_running = steps.state == StepState.RUNNING.value
        attempt = steps.attempt if is_counted else steps.attempt - case((is_running, 1), else_=0)
        finish = (
            update(CYCLE_STEPS)
            .where(
                _is_step(cycle_id, name),
                steps.token == token,
                steps.state.in_((StepState.RUNNING.value, state.value)),
            )
            .values(
                state=state.value,
                attempt=attempt,
                ended_at=at,
                lease_until=None,
                result=json.dumps(dict(result or {})),
                error=error,
            )
            .returning(steps.token)
        )
        with self._database.writing() as connection:
            return connection.execute(finish).first() is not None

    def end_cycle(
        self,
        cycle_id: str,
        *,
        state: CycleState,
        at: datetime,
        verdict: Verdict | None = None,
        error: str | None = None,
    ) -> None:
        """Write the cycle's state and, once it has ended, its verdict or error.

        A cycle that has ended keeps its end.
        """
        ended: Row = {}
        if state.value in _OVER:
            ended = {"ended_at": at, "verdict": verdict and verdict.value, "error": error}
        end = (
            update(CYCLES)
            .where(CYCLES.c.cycle_id == cycle_id, CYCLES.c.state.not_in(_OVER))
            .values(state=state.value, **ended)
        )
        with self._database.writing() as connection:
            connection.execute(end)

    def add_promotion(self, promotion: Promotion) -> Promotion:
        """Store the decision to promote, before the alias moves."""
        row = {
            "wheel": self._wheel,
            "promotion_id": promotion.promotion_id,
            "cycle_id": promotion.cycle_id,
            "promoted_at": promotion.promoted_at,
            "payload": promotion.model_dump_json(),
        }
        with self._database.writing() as connection:
            return first_writers(connection, PROMOTIONS, [row], [promotion])[0]

    def promotions(self) -> list[Promotion]:
        """Return all promotions, oldest first."""
        oldest = (
            select(PROMOTIONS.c.payload)
            .where(PROMOTIONS.c.wheel == self._wheel)
            .order_by(PROMOTIONS.c.promoted_at, PROMOTIONS.c.promotion_id)
        )
        with self._database.reading() as connection:
            held = connection.scalars(oldest).all()
        return [Promotion.model_validate_json(payload) for payload in held]


def _select(cycle_id: str) -> Select[Any]:
    return select(CYCLES).where(CYCLES.c.cycle_id == cycle_id)


def _is_step(cycle_id: str, name: StepName) -> ColumnElement[bool]:
    return and_(CYCLE_STEPS.c.cycle_id == cycle_id, CYCLE_STEPS.c.name == name.value)


def _cycles(connection: Connection, statement: Select[Any]) -> list[Cycle]:
    rows = connection.execute(statement).mappings().all()
    steps: dict[str, list[CycleStep]] = {row["cycle_id"]: [] for row in rows}
    theirs = select(CYCLE_STEPS).where(CYCLE_STEPS.c.cycle_id.in_(list(steps)))
    for step in connection.execute(theirs).mappings():
        steps[step["cycle_id"]].append(_step(step))
    return [_cycle(row, steps[row["cycle_id"]]) for row in rows]


def _cycle(row: RowMapping, steps: Sequence[CycleStep]) -> Cycle:
    ordered = sorted(steps, key=lambda step: _PLACES[step.name])
    return Cycle.model_validate({**row, "steps": ordered})


def _cycle_row(cycle: Cycle, wheel: str) -> Row:
    return {
        "wheel": wheel,
        "cycle_id": cycle.cycle_id,
        "trigger": cycle.trigger.value,
        "state": cycle.state.value,
        "requested_at": cycle.requested_at,
        "ended_at": cycle.ended_at,
        "verdict": cycle.verdict and cycle.verdict.value,
        "error": cycle.error,
    }


def _step(row: RowMapping) -> CycleStep:
    return CycleStep.model_validate({**row, "result": json.loads(row["result"])})


def _step_row(cycle_id: str, step: CycleStep, wheel: str) -> Row:
    fields = step.model_dump(exclude={"result"})
    fixed = {"name": step.name.value, "state": step.state.value}
    result = json.dumps(dict(step.result))
    return {"wheel": wheel, "cycle_id": cycle_id, **fields, **fixed, "result": result}
