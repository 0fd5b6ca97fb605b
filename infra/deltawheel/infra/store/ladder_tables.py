"""What the capability ladder is made of: probes. Judged work is read from the pairs themselves."""

from sqlalchemy import Index
from sqlmodel import Field

from deltawheel.infra.store.columns import LongText, Moment, Row, table_of

__all__ = ["PROBES"]


class ProbeRow(Row, table=True):
    """What one generator made of some held-out prompts."""

    __tablename__ = "probes"
    __table_args__ = (Index(None, "wheel", "probed_at"),)

    wheel: str = Field(primary_key=True)
    probe_id: str = Field(primary_key=True)
    probed_at: Moment
    payload: LongText


PROBES = table_of(ProbeRow)
