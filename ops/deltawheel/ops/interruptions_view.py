"""What holds a wheel up, as `status` and `doctor` show it: halts, outages, deferrals, drift."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from deltawheel.contracts.anchor_runs import AnchorRuns, JudgeDrift
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
    drift: JudgeDrift | None = None

    def as_json(self) -> dict[str, Any]:
        """Return it for machines."""
        return {
            "halted_partitions": [asdict(halt) for halt in self.halts],
            "deferred": [asdict(backlog) for backlog in self.backlogs],
            "outages": [asdict(outage) for outage in self.outages],
            "judge_drift": _drift_json(self.drift) if self.drift else None,
        }

    def lines(self, now: datetime) -> Iterator[str]:
        """Yield a sentence for each."""
        for halt in self.halts:
            yield (
                f"halted: {halt.service} at partition {halt.partition} of {halt.topic}, offset "
                f"{halt.offset}, for {age(halt.halted_at, now)}: {halt.reason}; put the deployment "
                "right, then `deltawheel resume`"
            )
        if self.drift:
            yield f"drifted: {self.drift.sentence}"
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
        halts=store.halts(),
        backlogs=store.backlogs(),
        outages=_lasting(store, now),
        drift=_drift(store),
    )


def _drift(store: AnchorRuns) -> JudgeDrift | None:
    """Return the drift of the judge whose anchors were judged last."""
    for entry in store.anchor_runs(1):
        return store.judge_drift(entry.run.judge_revision, entry.run.rubric_digest)
    return None


def _drift_json(drift: JudgeDrift) -> dict[str, Any]:
    return {
        "judge": drift.run.judge,
        "judge_revision": drift.run.judge_revision,
        "shifts": drift.run.drifted,
        "last_good_at": drift.last_good_at,
        "first_bad_at": drift.first_bad_at,
    }


def _lasting(store: Outages, now: datetime) -> list[Outage]:
    """Return the outages that last, one a dependency: every process that meets one notes it."""
    earliest: dict[str, Outage] = {}
    for outage in store.outages(since=now - _LASTING):
        earliest.setdefault(outage.dependency, outage)
    return list(earliest.values())
