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
    Field,
    PlainSerializer,
    StringConstraints,
)

from deltawheel.contracts.ids import MAX_DECIMAL_PLACES, decimal_text

__all__ = ["MAX_COUNT", "CanonicalDecimal", "Count", "Domain", "Name", "Record", "UtcTime"]


class Record(BaseModel):
    """Frozen, and tolerant of fields that a later minor version added (additive changes only)."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="strings")


def _in_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("lies outside of the years 1 to 9999 in UTC") from error


_NAME = re.compile(r"^[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?$")

UtcTime = Annotated[AwareDatetime, AfterValidator(_in_utc)]
"""A point in time; naive values are refused, others are turned into UTC."""

MAX_COUNT = 2**31 - 1

Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
"""A whole number that fits the integer column of every database: a larger one would stop a loop."""

CanonicalDecimal = Annotated[
    Decimal,
    Field(max_digits=2 * MAX_DECIMAL_PLACES, decimal_places=MAX_DECIMAL_PLACES),
    PlainSerializer(decimal_text, return_type=str, when_used="json"),
]
"""A number that stands in ids: exact, and with one text only (`0.70` and `0.7` are the same)."""

Name = Annotated[str, StringConstraints(pattern=_NAME.pattern)]
"""A name that is safe in topics, metric labels, URLs and file names."""

Domain = Name
"""What kind of task a prompt is; capability, quotas and evaluations are kept per domain."""
