"""How far judging is, as `deltawheel status` shows it."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from deltawheel.contracts.judging_states import JudgingStates, score_spreads
from deltawheel.contracts.store import JudgementShelf
from deltawheel.ops.console import age

__all__ = ["JudgingView"]

_NUM_NEWEST: Final = 200
_FEWEST: Final = 50
"""Of fewer traces, scores that are all alike say nothing of the judge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgingView:
    """States, and how far the newest scores lie apart; empty where there are too few."""

    judged: int
    states: JudgingStates
    spreads: dict[str, float]

    @classmethod
    def read(cls, store: JudgementShelf, *, judged: int) -> "JudgingView":
        """Read them from the store; how many are judged has been counted."""
        newest = store.newest_judgements(_NUM_NEWEST)
        spreads = score_spreads(newest, fewest=_FEWEST)
        return cls(judged=judged, states=store.judging_states(), spreads=spreads)

    @property
    def counts(self) -> dict[str, int]:
        """The counts of traces by state."""
        return {"judged": self.judged, **self.states.counts}

    @property
    def is_blind(self) -> bool:
        """Whether the judge gives all traces the same scores."""
        return bool(self.spreads) and not any(self.spreads.values())

    def as_json(self) -> dict[str, Any]:
        """Return it for machines."""
        return {
            **self.counts,
            "oldest_pending_at": self.states.oldest_unjudged_at,
            "score_spread": self.spreads,
            "is_blind": self.is_blind,
        }

    def lines(self, now: datetime) -> Iterator[str]:
        """Yield what is to be said, a line for each."""
        counts = ", ".join(f"{number} {state}" for state, number in self.counts.items())
        oldest = self.states.oldest_unjudged_at
        waits = f" (the oldest trace waits for {age(oldest, now)})" if oldest else ""
        yield f"judging: {counts}{waits}"
        if self.is_blind:
            yield (
                "warning: the judge gives all of the newest traces the same scores, so every pair "
                "ties; `deltawheel judge try` shows what it is asked and answers"
            )
