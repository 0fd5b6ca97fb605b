"""Crontab lines: read here, so that a wrong one is refused with the settings and not at night."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Self

__all__ = ["Crontab"]

_MONTHS: Final = {
    name: number
    for number, name in enumerate(
        ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"), 1
    )
}
_WEEKDAYS: Final = {
    name: number for number, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))
}
_PART: Final = re.compile(
    r"(?:\*|([0-9]{1,2}|[a-z]{3})(?:-([0-9]{1,2}|[a-z]{3}))?)(?:/([0-9]{1,2}))?"
)
_LONGEST: Final = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


@dataclass(frozen=True, slots=True, kw_only=True)
class Crontab:
    """When something is due: every field as the sorted values that it allows.

    `weekdays` count from Sunday, 0 to 6. All five must allow a minute.
    """

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]

    @classmethod
    def parse(cls, line: str) -> Self:
        """Read a line of five fields: minute, hour, day, month, weekday.

        Raises:
            ValueError: names the field, what stands there, and what would be valid.
        """
        fields = line.split()
        if len(fields) != 5:
            raise ValueError(
                f"a crontab line has five fields, minute hour day month weekday, not {len(fields)}"
                "; valid is for example '0 3 * * *'"
            )
        minute, hour, day, month, weekday = fields
        found = cls(
            minutes=_values("minute", minute, 0, 59),
            hours=_values("hour", hour, 0, 23),
            days=_values("day", day, 1, 31),
            months=_values("month", month, 1, 12, _MONTHS),
            weekdays=_weekdays(weekday),
        )
        if found.days[0] > max(_LONGEST[month - 1] for month in found.months):
            raise ValueError(f"no month {month} has a day {day}: it would never be due")
        return found


def _weekdays(field: str) -> tuple[int, ...]:
    """Read 7 as the Sunday that ends a week, as in 5-7 and fri-sun."""
    found = _values("weekday", re.sub(r"-sun\b", "-7", field.lower()), 0, 7, _WEEKDAYS)
    return tuple(sorted({day % 7 for day in found}))


def _values(
    name: str, field: str, least: int, most: int, names: Mapping[str, int] = MappingProxyType({})
) -> tuple[int, ...]:
    def number(text: str) -> int:
        return int(text) if text.isdigit() else names.get(text, -1)

    found: set[int] = set()
    for part in field.lower().split(","):
        match = _PART.fullmatch(part)
        first, last, step = match.groups() if match else ("?", None, None)
        start = number(first or str(least))
        # A step without an end runs on to the last value, as in 5/15.
        end = number(last or (first if first and not step else str(most)))
        if not least <= start <= end <= most or (step and not int(step)):
            named = f" or {', '.join(names)}" if names else ""
            raise ValueError(
                f"{part!r} is no {name}: valid are {least} to {most}{named}, ranges such as "
                f"{least}-{least + 2}, *, and steps such as */2"
            )
        found.update(range(start, end + 1, int(step or 1)))
    return tuple(sorted(found))
