"""How long a kill is felt: until the process answers again and the store shows progress."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from deltawheel.contracts.store import Progress
from deltawheel.ops.bench.chaos.wheel import Victim
from deltawheel.ops.supervisor.runfile import RunRecord

__all__ = ["Recovery", "percentile"]

_WORK: Final[Mapping[str, Callable[[Progress], int]]] = MappingProxyType(
    {
        "gateway": lambda progress: progress.prompts,
        "generation": lambda progress: progress.traces,
        "judging": lambda progress: progress.judgements,
        "curation": lambda progress: progress.closed,
        "supervisor": lambda progress: progress.traces + progress.judgements + progress.closed,
        "broker": lambda progress: progress.traces + progress.judgements + progress.closed,
        "postgres": lambda progress: progress.traces + progress.judgements + progress.closed,
    }
)
"""What a process adds to, or lets others add to; training and monitoring add nothing that the
stream waits for."""


@dataclass(slots=True, kw_only=True)
class Recovery:
    """One kill, followed until it is no longer felt. Times are seconds of a monotonic clock."""

    cause: str
    victim: Victim
    killed_at_s: float
    ready_at_s: float | None = None
    recovered_at_s: float | None = None
    _baseline: int = 0

    @property
    def is_over(self) -> bool:
        """Whether it has been recovered from."""
        return self.recovered_at_s is not None

    @property
    def took_s(self) -> float:
        """Return how long it took, once it is over."""
        if self.recovered_at_s is None:
            raise ValueError(f"{self.victim.name} has not recovered yet")
        return self.recovered_at_s - self.killed_at_s

    def look(self, now_s: float, run: RunRecord | None, progress: Progress | None) -> None:
        """Take note of how things stand; `progress` is unset where the store did not answer."""
        if self.is_over:
            return
        if self.ready_at_s is None:
            self._look_for_answer(now_s, run, progress)
            return
        count = _WORK[self.victim.name]
        if progress is not None and count(progress) > self._baseline:
            self.recovered_at_s = now_s

    def _look_for_answer(
        self, now_s: float, run: RunRecord | None, progress: Progress | None
    ) -> None:
        if not self.victim.is_replaced(run):
            return
        if self.victim.name not in _WORK:
            self.ready_at_s = self.recovered_at_s = now_s
        elif progress is not None:
            self.ready_at_s, self._baseline = now_s, _WORK[self.victim.name](progress)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that is at least as large as this share of all; 0 of none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
