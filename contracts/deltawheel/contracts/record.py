"""The base of everything on the wire."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import cached_property
from typing import Annotated, Any, Self

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
    """Frozen, and tolerant of fields that a later minor version added (additive changes only).

    Every list and mapping of the wire is `Annotated[…, FailFast()]`: pydantic would otherwise
    describe each wrong element, and a record of 4 MB can hold two million (15 s, 3 GB).
    """

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="strings")

    @cached_property
    def wire(self) -> str:
        """The record as JSON: written once, though it is both stored and sent."""
        return self.model_dump_json()

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy, without what the original has worked out from its fields and kept (its ids)."""
        copied = super().model_copy(update=update, deep=deep)
        for name in copied.__dict__.keys() - type(self).model_fields.keys():
            del copied.__dict__[name]
        return copied


def _in_utc(value: datetime) -> datetime:
    if value.tzinfo is UTC:
        return value
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
