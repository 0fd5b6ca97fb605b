"""What monitoring shows of judging."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from deltawheel.contracts.agreement import panels
from deltawheel.contracts.clock import Clock
from deltawheel.contracts.judging_states import score_spreads
from deltawheel.contracts.krippendorff import alpha
from deltawheel.contracts.ports import Telemetry
from deltawheel.contracts.record import Record
from deltawheel.contracts.store import Store
from deltawheel.services.runtime.handler import Tick
from deltawheel.services.runtime.offload import offload

__all__ = ["JudgingGauges"]

_EVERY_S: Final = 30.0
_NUM_SCORED: Final = 200
_NUM_OPINIONS: Final = 500
"""Reading so many judgements takes two tenths of a second."""
_FEWEST: Final = 50
"""Of fewer traces, a figure says more about them than about the judges."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgingGauges:
    """Keeps the gauges of judging equal to the rows."""

    store: Store
    clock: Clock
    telemetry: Telemetry

    def ticks(self, refresh_s: float) -> tuple[Tick, ...]:
        """Return when they are read anew: states often, what needs payloads now and then."""
        return (
            Tick(name="judging", interval_s=refresh_s, run=self.show_states),
            Tick(name="judges", interval_s=max(_EVERY_S, refresh_s), run=self.show_judges),
        )

    async def show_states(self) -> Sequence[Record]:
        """Show how many traces wait, and for how long."""
        states = await offload(self.store.judging_states)
        for state, number in states.counts.items():
            self.telemetry.set("deltawheel_judging", number, state=state)
        oldest = states.oldest_unjudged_at
        age_s = (self.clock.now() - oldest).total_seconds() if oldest else 0.0
        self.telemetry.set("deltawheel_oldest_pending_judgement_seconds", age_s)
        return []

    async def show_judges(self) -> Sequence[Record]:
        """Show whether judges agree, and whether they tell traces apart."""
        await self._show_agreement()
        newest = await offload(self.store.newest_judgements, _NUM_SCORED)
        for dimension, spread in score_spreads(newest, fewest=_FEWEST).items():
            self.telemetry.set("deltawheel_judge_score_spread", spread, dimension=dimension)
        return []

    async def _show_agreement(self) -> None:
        """Show alpha of the panel that sits now, where there are enough traces to say it."""
        newest = await offload(lambda: self.store.jury_judgements(limit=_NUM_OPINIONS))
        for panel in panels(newest)[:1]:
            for dimension in panel.dimensions:
                scores = [row for row in panel.scores(dimension) if len(row) > 1]
                if len(scores) >= _FEWEST and (found := alpha(scores)) is not None:
                    self.telemetry.set("deltawheel_judge_agreement", found, dimension=dimension)
