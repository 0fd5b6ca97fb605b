"""Faults planted in a judge on purpose, so that what they do downstream can be measured."""

import hashlib
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

from deltawheel.contracts.ids import canonical_json, digest_of
from deltawheel.contracts.settings import JudgeSettings
from deltawheel.contracts.trace import Trace

__all__ = ["PlantedFaults"]

_WORST: Final = 1.0
_BEST: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantedFaults:
    """Noise, length bias, self-preference and inversion; none of them, by default.

    All are in points of the 1–5 scale and deterministic: the same trace gets the same fault.

    Args:
        noise: Standard deviation of what is added to each score.
        length_bias: Added per 100 characters of trace.
        self_preference: Added to traces of `favourite`.
        favourite: Name of the preferred generator.
        inverted: Whether every score, all else done, becomes 6 minus itself.
        seed: Of the noise.
    """

    noise: float = 0.0
    length_bias: float = 0.0
    self_preference: float = 0.0
    favourite: str | None = None
    inverted: bool = False
    seed: int = 0

    @classmethod
    def from_settings(cls, settings: JudgeSettings) -> "PlantedFaults":
        """Take the faults that the settings ask for."""
        return cls(
            noise=settings.noise,
            length_bias=settings.length_bias,
            self_preference=settings.self_preference,
            favourite=settings.favourite,
            inverted=settings.inverted,
            seed=settings.seed,
        )

    @property
    def name(self) -> str:
        """Name the faults exactly, for the judge's revision: a faulty judge is another judge.

        Empty where none is planted. The digest at the end tells apart what reads alike.
        """
        parts = [
            f"noise={self.noise!r},seed={self.seed}" if self.noise else "",
            f"length-bias={self.length_bias!r}" if self.length_bias else "",
            f"prefers-{self.favourite}={self.self_preference!r}" if self.self_preference else "",
            "inverted" if self.inverted else "",
        ]
        named = "+".join(filter(None, parts))
        return f"{named}#{digest_of(named).removeprefix('sha256:')[:8]}" if named else ""

    def apply(self, score: float, dimension: str, trace: Trace) -> float:
        """Return the score as a judge with these faults would give it, within 1 to 5."""
        if self.noise:
            score += self._noise_of(trace.trace_id, dimension)
        score += self.length_bias * len(trace.text) / 100
        if trace.generator == self.favourite:
            score += self.self_preference
        score = min(_BEST, max(_WORST, score))
        return _WORST + _BEST - score if self.inverted else score

    def _noise_of(self, trace_id: str, dimension: str) -> float:
        """Draw from the normal distribution by hash, so that no order of calls changes a draw."""
        key = canonical_json([self.seed, trace_id, dimension])
        bits = int.from_bytes(hashlib.sha256(key).digest()[:6])
        return self.noise * NormalDist().inv_cdf((bits + 0.5) / 2**48)
