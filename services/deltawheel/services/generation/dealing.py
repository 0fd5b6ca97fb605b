"""What prompts are dealt over: the pool, its ladder and the pause, read from the store at times."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Final

from deltawheel.contracts.clock import Clock
from deltawheel.contracts.generator import Generator
from deltawheel.contracts.ladder import NO_EVIDENCE, LadderEvidence, UpdateBy
from deltawheel.contracts.pool import Pool
from deltawheel.contracts.probe import counted
from deltawheel.contracts.settings import Settings
from deltawheel.contracts.store import PAUSE_LEASE, Store
from deltawheel.services.generation.rotation import Table, active_pairs
from deltawheel.services.generation.turnover import window_at
from deltawheel.services.runtime.offload import offload

__all__ = ["Dealing", "View"]

_FRESH_S: Final = 1.0
_EVIDENCE_FRESH_S: Final = 30.0
"""Probes are few and come in minutes; judged work takes seconds to read where it counts."""


@dataclass(slots=True, kw_only=True)
class View:
    """The pool and the pause as the store had them less than a second ago."""

    pool: Pool
    dealt: Sequence[Generator]
    is_paused: bool
    read_at_s: float
    window: int
    evidence: LadderEvidence
    tables: dict[str, Table] = field(default_factory=dict)
    whole_tables: dict[str, Table] = field(default_factory=dict)
    """Those that there would be if nobody had left."""


@dataclass(slots=True, kw_only=True)
class Dealing:
    """Reads what prompts are dealt over, anew once it is old."""

    settings: Settings
    store: Store
    clock: Clock
    _view: View | None = field(default=None, init=False)
    _evidence: LadderEvidence = field(default=NO_EVIDENCE, init=False)
    _evidence_until_s: float | None = field(default=None, init=False)

    def forget(self) -> None:
        """Have everything read anew for the next prompt: pool or ladder have changed."""
        self._view = self._evidence_until_s = None

    async def look(self) -> tuple[View, bool]:
        """Return the view, and whether it was read just now; one caller at a time."""
        at_s = self.clock.monotonic()
        if self._view is not None and at_s - self._view.read_at_s <= _FRESH_S:
            return self._view, False
        pool = Pool.from_log(await offload(self.store.pool_log))
        is_paused = await offload(self.store.is_leased, PAUSE_LEASE, at=self.clock.now())
        window = window_at(self.clock.now(), self.settings.rotation)
        pairs = active_pairs(pool, self.settings.rotation, window=window)
        view = View(
            pool=pool,
            dealt=list(chain.from_iterable(pairs)),
            is_paused=is_paused,
            read_at_s=at_s,
            window=window,
            evidence=await self._read_evidence(at_s),
        )
        if self._view is not None and _have_same_tables(view, self._view):
            view.tables, view.whole_tables = self._view.tables, self._view.whole_tables
        self._view = view
        return view, True

    def table(self, view: View, domain: str) -> Table:
        """Return what there is to deal in a domain; the ladder is worked out once for a view."""
        if domain not in view.tables:
            view.tables[domain] = self._table(view, view.pool, domain)
        return view.tables[domain]

    def waits_for_absent(self, view: View, domain: str) -> bool:
        """Whether there would be a pair in a domain if all who have left came back."""
        if not view.pool.absent:
            return False
        if domain not in view.whole_tables:
            whole = replace(view.pool, absent={})
            view.whole_tables[domain] = self._table(view, whole, domain)
        return bool(view.whole_tables[domain].pairs)

    def _table(self, view: View, pool: Pool, domain: str) -> Table:
        return Table.of(
            pool,
            self.settings.rotation,
            domain=domain,
            window=view.window,
            evidence=view.evidence,
            update_by=self.settings.ladder.update_by,
        )

    async def _read_evidence(self, at_s: float) -> LadderEvidence:
        """Read what the estimates hang on, and nothing else."""
        if self._evidence_until_s is not None and at_s < self._evidence_until_s:
            return self._evidence
        match self.settings.ladder.update_by:
            case UpdateBy.PROBE:
                found = LadderEvidence(probes=counted(await offload(self.store.probes)))
            case UpdateBy.JUDGED:
                found = LadderEvidence(contests=await offload(self.store.judged_work))
            case UpdateBy.NONE:
                found = NO_EVIDENCE
        self._evidence, self._evidence_until_s = found, at_s + _EVIDENCE_FRESH_S
        return found


def _have_same_tables(one: View, other: View) -> bool:
    return (one.pool, one.window, one.evidence) == (other.pool, other.window, other.evidence)
