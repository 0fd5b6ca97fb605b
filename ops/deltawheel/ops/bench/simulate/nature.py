"""What models, judge and checks would say if nothing went wrong: a pure function of the seed.

From it follows how each prompt must end whatever went wrong on the way, which is what the real
wheel is held to.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from deltawheel.contracts.assignment import Assignment
from deltawheel.contracts.gate import Verdict
from deltawheel.contracts.ids import content_id, seed_of
from deltawheel.contracts.outcome import Outcome

__all__ = ["Answer", "Expected", "Nature"]

_LEVELS = 5


class Answer(StrEnum):
    """What a generator makes of a slot."""

    GOOD = "good"
    CUT_OFF = "cut off"
    REFUSED = "refused"
    """The server answers 400, and always will."""


@dataclass(frozen=True, slots=True)
class Expected:
    """How a prompt must end, and with which pair."""

    outcome: Outcome
    pair_id: str | None = None
    chosen: str | None = None


@dataclass(frozen=True, slots=True)
class Nature:
    """The world as it is under one seed. Models know a trace by the seed they are asked with."""

    seed: str

    def answer(self, trace_seed: int) -> Answer:
        """Tell what a generator makes of a slot: mostly something good."""
        draw = self._draw("answer", trace_seed, 100)
        if draw < 5:
            return Answer.REFUSED
        return Answer.CUT_OFF if draw < 12 else Answer.GOOD

    def is_judgeable(self, trace_seed: int) -> bool:
        """Whether the judge can say anything of this trace."""
        return self._draw("judgeable", trace_seed, 100) >= 4

    def level(self, trace_seed: int) -> float:
        """Return the score that the judge gives it on every dimension, 1 to 5."""
        return 1.0 + self._draw("level", trace_seed, _LEVELS)

    def passes(self, pair_id: str) -> bool:
        """Whether a pair passes the data-quality checks."""
        return self._draw("check", pair_id, 100) >= 12

    def verdict(self, cycle_id: str) -> Verdict:
        """Return what the gate will say of a cycle's candidate."""
        return (Verdict.PROMOTE, Verdict.REJECT, Verdict.INCONCLUSIVE)[
            self._draw("verdict", cycle_id, 3)
        ]

    def expect(self, assignment: Assignment) -> Expected:
        """Derive how the prompt of this assignment must end."""
        ids = [assignment.trace_id(slot.index) for slot in assignment.slots]
        seeds = {trace_id: seed_of(trace_id) for trace_id in ids}
        judged = [
            trace_id
            for trace_id, seed in seeds.items()
            if self.answer(seed) is Answer.GOOD and self.is_judgeable(seed)
        ]
        if not judged:
            return Expected(Outcome.DEAD_LETTERED)
        levels = {trace_id: self.level(seeds[trace_id]) for trace_id in judged}
        return self.expect_of_levels(levels, assignment.rubric_digest)

    def expect_of_levels(self, levels: Mapping[str, float], rubric_digest: str) -> Expected:
        """Derive how a prompt must end of which these traces were judged so."""
        if len(levels) < 2 or len(set(levels.values())) < 2:
            return Expected(Outcome.UNPAIRED)
        chosen = max(levels, key=lambda trace_id: levels[trace_id])
        pair_id = pair_id_of(list(levels), rubric_digest)
        outcome = Outcome.PAIRED if self.passes(pair_id) else Outcome.QUARANTINED
        return Expected(outcome, pair_id, chosen)

    def _draw(self, what: str, subject: str | int, below: int) -> int:
        digest = hashlib.sha256(f"{self.seed}/{what}/{subject}".encode()).digest()
        return int.from_bytes(digest[:6]) % below


def pair_id_of(traces: Sequence[str], rubric_digest: str) -> str:
    """Name the pair of two traces, as `PreferencePair.pair_id` does."""
    return content_id("pair", 1, *sorted(traces), rubric_digest)
