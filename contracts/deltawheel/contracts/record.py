"""The base of everything on the wire."""

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    PlainSerializer,
    StringConstraints,
)

__all__ = ["CanonicalDecimal", "Domain", "Name", "Record", "UtcTime"]


class Record(BaseModel):
    """Frozen, and tolerant of fields that a later minor version added (additive changes only)."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="strings")


def _in_utc(value: datetime) -> datetime:
    return value.astimezone(UTC)


def _decimal_text(value: Decimal) -> str:
    return format(value.normalize(), "f") if value else "0"


_NAME = re.compile(r"^[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?$")

UtcTime = Annotated[AwareDatetime, AfterValidator(_in_utc)]
"""A point in time; naive values are refused, others are turned into UTC."""

CanonicalDecimal = Annotated[
    Decimal, PlainSerializer(_decimal_text, return_type=str, when_used="json")
]
"""A number that stands in ids: exact, and with one text only (`0.70` and `0.7` are the same)."""

Name = Annotated[str, StringConstraints(pattern=_NAME.pattern)]
"""A name that is safe in topics, metric labels, URLs and file names."""

Domain = Name
"""What kind of task a prompt is; capability, quotas and evaluations are kept per domain."""
