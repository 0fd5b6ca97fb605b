"""Points in time as people write them."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

__all__ = ["moment_of"]

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def moment_of(value: str, now: datetime) -> datetime:
    """Read an age (`90m`, `2d`) or an ISO 8601 time, in UTC unless it says otherwise.

    Raises:
        ValueError: it is neither.
    """
    if age := re.fullmatch(r"(\d{1,6})([smhd])", value):
        return now - timedelta(**{_UNITS[age[2]]: int(age[1])})
    try:
        moment = datetime.fromisoformat(value)
    except ValueError as error:
        raise ValueError(
            f"{value!r} is no time: give an age such as 90m or 2d, or 2026-05-01T12:00"
        ) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
