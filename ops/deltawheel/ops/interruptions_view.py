"""What holds a wheel up, as `status` and `doctor` show it: halts, deferred records, outages."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from deltawheel.contracts.interruptions import Backlog, Halt, Outage, Outages
from deltawheel.contracts.store import Store
from deltawheel.ops.console import age

__all__ = ["Interruptions", "find_interruptions"]

_LASTING: Final = timedelta(seconds=15)
"""An outage that lasts is prolonged every second or so; older ones are over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interruptions:
    """What waits, and for what."""

    halts: list[Halt]
    backlogs: list[Backlog]
    outages: list[Outage]

    def as_json(self) -> dict[str, Any]:
        """Return it for machines."""
        return {
            "halted_partitions": [asdict(halt) for halt in self.halts],
            "deferred": [asdict(backlog) for backlog in self.backlogs],
            "outages": [asdict(outage) for outage in self.outages],
        }

    def lines(self, now: datetime) -> Iterator[str]:
        """Yield a sentence for each."""
        for halt in self.halts:
            yield (
                f"halted: {halt.service} at partition {halt.partition} of {halt.topic}, offset "
                f"{halt.offset}, for {age(halt.halted_at, now)}: {halt.reason}; put the deployment "
                "right, then `deltawheel resume`"
            )
        for outage in self.outages:
            yield f"down: {outage.dependency}, for {age(outage.began_at, now)}"
        for backlog in self.backlogs:
            yield (
                f"deferred: {backlog.num_records} records of {backlog.service}, the oldest for "
                f"{age(backlog.oldest_at, now)}"
            )


def find_interruptions(store: Store, *, now: datetime) -> Interruptions:
    """Read what holds the wheel up at this moment."""
    return Interruptions(
        halts=store.halts(), backlogs=store.backlogs(), outages=_lasting(store, now)
    )


def _lasting(store: Outages, now: datetime) -> list[Outage]:
    """Return the outages that last, one a dependency: every process that meets one notes it."""
    earliest: dict[str, Outage] = {}
    for outage in store.outages(since=now - _LASTING):
        earliest.setdefault(outage.dependency, outage)
    return list(earliest.values())
