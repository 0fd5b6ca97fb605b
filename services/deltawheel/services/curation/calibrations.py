"""Which calibration the deltas of new pairs take their variances from."""

from dataclasses import dataclass, field

from deltawheel.contracts.calibration import Calibration, Calibrations
from deltawheel.contracts.clock import Clock

__all__ = ["NewestCalibrations"]

_READ_AGAIN_S = 60.0
"""A new calibration may be a minute late: reading it for each batch would cost a query each."""


@dataclass(slots=True)
class NewestCalibrations:
    """The newest calibration of each judge revision under the rubric, as it was a minute ago."""

    store: Calibrations
    rubric_digest: str
    clock: Clock
    _read: dict[str, tuple[float, Calibration | None]] = field(default_factory=dict, init=False)

    def of(self, judge_revision: str) -> Calibration | None:
        """Return it; None where that revision was never calibrated under this rubric."""
        now_s = self.clock.monotonic()
        held = self._read.get(judge_revision)
        if held is None or now_s - held[0] >= _READ_AGAIN_S:
            newest = self.store.newest_calibration(judge_revision, self.rubric_digest)
            self._read[judge_revision] = held = (now_s, newest)
        return held[1]
