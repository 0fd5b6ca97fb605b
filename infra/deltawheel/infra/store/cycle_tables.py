"""Training's tables: the pool's log, cycles with their steps, promotions, leases."""

from typing import ClassVar

from sqlalchemy import Index, MetaData, UniqueConstraint
from sqlmodel import Field, SQLModel

from deltawheel.infra.store.columns import (
    METADATA,
    LongText,
    Moment,
    OptionalLongText,
    OptionalMoment,
    Row,
    table_of,
)

__all__ = [
    "CYCLES",
    "CYCLE_STEPS",
    "LEASES",
    "POOL_EVENTS",
    "PROMOTIONS",
]


class PoolEventRow(Row, table=True):
    """A line of the pool's log; `seq` is the order."""

    __tablename__ = "pool_events"
    __table_args__ = (UniqueConstraint("wheel", "event_id"), {"sqlite_autoincrement": True})

    seq: int | None = Field(default=None, primary_key=True)
    event_id: str
    payload: LongText


class CycleRow(Row, table=True):
    """A training cycle."""

    __tablename__ = "cycles"
    __table_args__ = (Index(None, "wheel", "requested_at"),)

    cycle_id: str = Field(primary_key=True)
    trigger: str
    state: str
    requested_at: Moment
    ended_at: OptionalMoment = None
    verdict: str | None = None
    error: OptionalLongText = None


class CycleStepRow(Row, table=True):
    """A step of a cycle, with its lease. `result` is JSON."""

    __tablename__ = "cycle_steps"

    cycle_id: str = Field(primary_key=True, foreign_key="cycles.cycle_id")
    name: str = Field(primary_key=True)
    state: str
    attempt: int
    token: str | None = None
    lease_until: OptionalMoment = None
    started_at: OptionalMoment = None
    ended_at: OptionalMoment = None
    result: LongText
    error: OptionalLongText = None


class PromotionRow(Row, table=True):
    """A decision to promote."""

    __tablename__ = "promotions"

    promotion_id: str = Field(primary_key=True)
    cycle_id: str
    promoted_at: Moment
    payload: LongText


class LeaseRow(SQLModel, table=True):
    """A named lease and who holds it."""

    metadata: ClassVar[MetaData] = METADATA
    __tablename__ = "leases"

    wheel: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    token: str
    lease_until: Moment


CYCLES = table_of(CycleRow)
CYCLE_STEPS = table_of(CycleStepRow)
LEASES = table_of(LeaseRow)
POOL_EVENTS = table_of(PoolEventRow)
PROMOTIONS = table_of(PromotionRow)
