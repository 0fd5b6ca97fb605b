"""What monitoring shows of a jury."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from deltawheel.contracts.agreement import panels
from deltawheel.contracts.krippendorff import alpha
from deltawheel.contracts.ports import Telemetry
from deltawheel.contracts.record import Record
from deltawheel.contracts.store import Store
from deltawheel.services.runtime.handler import Tick
from deltawheel.services.runtime.offload import offload

__all__ = ["JuryGauges"]

_EVERY_S: Final = 30.0
_NUM_NEWEST: Final = 500
"""Reading so many judgements takes a tenth of a second."""
_FEWEST: Final = 50
"""Of fewer traces, alpha says more about them than about the judges."""


@dataclass(frozen=True, slots=True)
class JuryGauges:
    """Keeps the gauges of agreement equal to the newest opinions of the panel that sits now."""

    store: Store
    telemetry: Telemetry

    @property
    def tick(self) -> Tick:
        """When they are read anew."""
        return Tick(name="agreement", interval_s=_EVERY_S, run=self.refresh)

    async def refresh(self) -> Sequence[Record]:
        """Show each dimension's alpha, where there are enough traces to say it."""
        newest = await offload(lambda: self.store.jury_judgements(limit=_NUM_NEWEST))
        for panel in panels(newest)[:1]:
            for dimension in panel.dimensions:
                scores = [row for row in panel.scores(dimension) if len(row) > 1]
                if len(scores) >= _FEWEST and (found := alpha(scores)) is not None:
                    self.telemetry.set("deltawheel_judge_agreement", found, dimension=dimension)
        return []
