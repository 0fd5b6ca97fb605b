"""The audit: every prompt's outcome derived anew from evidence, and compared with the stored one.

Pure: it reads rows and says what they do not explain. Two processes cannot disagree about a
prompt without the audit naming it.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from deltawheel.contracts.outcome import Outcome
from deltawheel.contracts.store import Evidence

__all__ = ["Audit", "Finding", "FindingKind", "derive_outcome", "examine"]

FindingKind = Literal["missing", "double", "contradictory", "lost"]
_MISSING: FindingKind = "missing"
_DOUBLE: FindingKind = "double"
_CONTRADICTORY: FindingKind = "contradictory"
_LOST: FindingKind = "lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One prompt whose rows do not add up, and what is wrong with them."""

    kind: FindingKind
    prompt_id: str
    round: int
    fact: str


@dataclass(slots=True, kw_only=True)
class Audit:
    """What became of every accepted prompt."""

    prompts: int = 0
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    in_flight: int = 0
    oldest_in_flight_at: datetime | None = None
    findings: list[Finding] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether every prompt is accounted for."""
        return not self.findings


def derive_outcome(evidence: Evidence) -> Outcome | None:
    """Return the outcome that the evidence alone proves, or None while the prompt is in flight.

    Precedence as ARCHITECTURE §4: paired > quarantined > unpaired > dead-lettered.
    """
    if evidence.pairs:
        return Outcome.PAIRED
    if evidence.quarantined:
        return Outcome.QUARANTINED
    if evidence.prompt_failures:
        return Outcome.DEAD_LETTERED
    if evidence.num_slots is None or evidence.ended_slots < evidence.num_slots:
        return None
    return Outcome.UNPAIRED if evidence.judged_slots else Outcome.DEAD_LETTERED


def examine(rows: Iterable[Evidence]) -> Audit:
    """Account for every prompt."""
    audit = Audit()
    for row in rows:
        audit.prompts += 1
        audit.findings.extend(_findings(row))
        if row.closings:
            audit.outcomes[row.closings[-1]] += 1
            continue
        audit.in_flight += 1
        if audit.oldest_in_flight_at is None or row.accepted_at < audit.oldest_in_flight_at:
            audit.oldest_in_flight_at = row.accepted_at
    return audit


def _findings(row: Evidence) -> Iterable[Finding]:
    def found(kind: FindingKind, fact: str) -> Finding:
        return Finding(kind=kind, prompt_id=row.key.prompt_id, round=row.key.round, fact=fact)

    derived = derive_outcome(row)
    stored = row.closings[-1] if row.closings else None
    if len(row.closings) > 1:
        yield found(_DOUBLE, f"{len(row.closings)} closings")
    if row.num_slots is not None:
        possible = row.num_slots * (row.num_slots - 1) // 2
        if row.pairs + row.quarantined > possible:
            yield found(_DOUBLE, f"{row.pairs + row.quarantined} pairs from {row.num_slots} slots")
        if row.ended_slots > row.num_slots:
            yield found(_DOUBLE, f"{row.ended_slots} slot ends for {row.num_slots} slots")
    if row.lost_slots:
        yield found(_LOST, f"{row.lost_slots} slots expired while nothing stood still")
    if row.judged_slots > row.judgements:
        yield found(
            _MISSING, f"{row.judged_slots} slots ended judged, but {row.judgements} judgements"
        )
    if row.judged_slots > row.traces:
        yield found(_MISSING, f"{row.judged_slots} slots ended judged, but {row.traces} traces")
    if stored is None and (row.pairs or row.quarantined):
        yield found(_CONTRADICTORY, "has pairs but is not closed")
    if stored is not None and derived is None:
        yield found(
            _MISSING,
            f"closed as {stored.value} with {row.ended_slots} of {row.num_slots or 0} slots ended",
        )
    if stored is not None and derived is not None and stored is not derived:
        yield found(_CONTRADICTORY, f"stored as {stored.value}, the evidence says {derived.value}")
