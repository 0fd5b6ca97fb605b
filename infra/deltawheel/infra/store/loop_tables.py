"""The runtime loop's tables: outages, deferred records, halted partitions, letters to be sent."""

from typing import Annotated, Any, ClassVar, TypeAlias, cast

from sqlalchemy import BigInteger, Index, MetaData
from sqlmodel import Field, SQLModel

from deltawheel.infra.store.columns import (
    METADATA,
    LongText,
    Moment,
    OptionalBytes,
    OptionalMoment,
    Row,
    table_of,
)

__all__ = ["DEFERRALS", "DEFERRED_PROMPTS", "HALTS", "OUTAGES", "UNSENT_LETTERS"]

_BIG = cast(Any, BigInteger)
_Offset: TypeAlias = Annotated[int, Field(sa_type=_BIG)]
"""Offsets of a busy partition outgrow 32 bits."""


class OutageRow(SQLModel, table=True):
    """A span in which a dependency did not answer."""

    metadata: ClassVar[MetaData] = METADATA
    __tablename__ = "outages"

    wheel: str = Field(primary_key=True)
    dependency: str = Field(primary_key=True)
    began_at: Moment = Field(primary_key=True)
    ended_at: Moment


class DeferralRow(Row, table=True):
    """A record that waits for its next try; its bytes need not be text. Gone when it is done."""

    __tablename__ = "deferrals"
    __table_args__ = (Index(None, "wheel", "service", "due_at"),)

    deferral_id: str = Field(primary_key=True)
    service: str
    topic: str
    partition: int
    offset: _Offset
    key: OptionalBytes = None
    value: OptionalBytes = None
    headers: LongText
    reason: LongText
    dependency: str | None = None
    tries: int
    prompt_id: str | None = None
    round: int | None = None
    deferred_at: Moment
    due_at: Moment
    deadline_at: Moment


class DeferredPromptRow(Row, table=True):
    """A prompt of which a record was deferred, since when; it explains what that has cost."""

    __tablename__ = "deferred_prompts"

    prompt_id: str = Field(primary_key=True)
    round: int = Field(primary_key=True)
    deferred_at: Moment


class HaltRow(SQLModel, table=True):
    """A partition that a service has stopped at, until an operator resumes it."""

    metadata: ClassVar[MetaData] = METADATA
    __tablename__ = "halts"

    wheel: str = Field(primary_key=True)
    service: str = Field(primary_key=True)
    topic: str = Field(primary_key=True)
    partition: int = Field(primary_key=True)
    halted_at: Moment = Field(primary_key=True)
    offset: _Offset
    reason: LongText
    resumed_at: OptionalMoment = None
    resumed_by: str | None = None


class UnsentLetterRow(Row, table=True):
    """A dead letter whose message is not known to be in its topic. Gone when it is."""

    __tablename__ = "unsent_letters"

    letter_id: str = Field(primary_key=True)
    service: str
    died_at: Moment


DEFERRALS = table_of(DeferralRow)
DEFERRED_PROMPTS = table_of(DeferredPromptRow)
HALTS = table_of(HaltRow)
OUTAGES = table_of(OutageRow)
UNSENT_LETTERS = table_of(UnsentLetterRow)

_IS_HALTED = HALTS.c.resumed_at.is_(None)
Index(
    "ix_halts_open",
    HALTS.c.wheel,
    HALTS.c.service,
    HALTS.c.topic,
    HALTS.c.partition,
    unique=True,
    sqlite_where=_IS_HALTED,
    postgresql_where=_IS_HALTED,
)
