"""Derivation: which outcome a prompt's evidence proves, and what of it does not fit.

Everything here hangs on the shape of an evidence alone, never on whose it is.
"""

from collections.abc import Iterator

from deltawheel.contracts.evidence import KNOWN_CAUSES, KNOWN_OUTCOMES, Evidence, FindingKind
from deltawheel.contracts.outcome import Outcome, UnpairedCause

__all__ = ["Fact", "derive_outcome", "facts_of"]

Fact = tuple[FindingKind, str]
"""A finding without its place."""

_MISSING: FindingKind = "missing"
_DOUBLE: FindingKind = "double"
_CONTRADICTORY: FindingKind = "contradictory"
_LOST: FindingKind = "lost"


def derive_outcome(row: Evidence) -> Outcome | None:
    """Return the outcome that the evidence alone proves, or None while the prompt is in flight.

    Precedence as ARCHITECTURE §4: paired > quarantined > unpaired > dead-lettered.
    """
    if row.pairs:
        return Outcome.PAIRED
    if row.quarantined:
        return Outcome.QUARANTINED
    return _derive_unpaired(row)


def _derive_unpaired(row: Evidence) -> Outcome | None:
    if row.prompt_failures:
        return Outcome.DEAD_LETTERED
    if row.num_slots is None or row.ended_slots < row.num_slots:
        return None
    return Outcome.UNPAIRED if row.judged_slots else Outcome.DEAD_LETTERED


def facts_of(row: Evidence) -> Iterator[Fact]:
    """Yield everything about an evidence that no honest work leaves behind."""
    if row.is_current:
        yield from _wrong_marks(row)
    yield from _wrong_counts(row)
    yield from _wrong_outcome(row)


def _wrong_marks(row: Evidence) -> Iterator[Fact]:
    if row.num_transitions != row.attempt - 1:
        yield (
            _MISSING,
            f"{row.num_transitions} transitions have opened attempt {row.attempt}: one each was "
            "needed for every attempt after the first",
        )
    if row.marked_attempt != row.attempt:
        yield (
            _CONTRADICTORY,
            f"marked as in attempt {row.marked_attempt}, but its transitions have opened "
            f"{row.attempt}",
        )
    if not row.is_mark_right:
        closing = f"closed as {row.outcome}" if row.is_closed else "not closed"
        yield _CONTRADICTORY, f"prompts.closed_at says otherwise than the closings: {closing}"


def _wrong_counts(row: Evidence) -> Iterator[Fact]:
    slots = row.num_slots
    if slots is None:
        if row.traces or row.judgements or row.ended_slots or row.pairs or row.quarantined:
            yield _MISSING, "its assignment: there are traces, judgements, slot ends or pairs"
        return
    if row.ended_slots > slots:
        yield _DOUBLE, f"{row.ended_slots} slot ends for {slots} slots"
    if row.is_current:
        yield from _wrong_pairs(row, slots)
        yield from _wrong_slots(row, slots)


def _wrong_pairs(row: Evidence, slots: int) -> Iterator[Fact]:
    possible = slots * (slots - 1) // 2
    proven = row.judged_slots * (row.judged_slots - 1) // 2
    for name, number in (("pairs", row.pairs), ("quarantined pairs", row.quarantined)):
        if number > possible:
            yield _DOUBLE, f"{number} {name} from {slots} slots"
    together = row.pairs + row.quarantined
    if row.attempt == 1 and together > proven:
        if max(row.pairs, row.quarantined) <= possible < together:
            yield _DOUBLE, f"{together} pairs, stored and quarantined, from {slots} slots"
        elif together <= possible:
            yield _CONTRADICTORY, f"{together} pairs, but {row.judged_slots} slots ended judged"


def _wrong_slots(row: Evidence, slots: int) -> Iterator[Fact]:
    if row.traces > slots:
        yield _DOUBLE, f"{row.traces} traces for {slots} slots"
    if row.lost_slots:
        yield _LOST, f"{row.lost_slots} slots expired while nothing stood still"
    for name, number in (("judgements", row.judgements), ("traces", row.traces)):
        if row.judged_slots > number:
            yield _MISSING, f"{row.judged_slots} slots ended judged, but {number} {name}"


def _wrong_outcome(row: Evidence) -> Iterator[Fact]:
    if row.outcome is None:
        if row.pairs and not row.was_paired:
            yield _CONTRADICTORY, "has pairs but is not closed"
        elif row.quarantined and row.attempt == 1:
            yield _CONTRADICTORY, "has quarantined pairs but is not closed"
        return
    if row.outcome not in KNOWN_OUTCOMES:
        yield _CONTRADICTORY, f"closed as {row.outcome!r}, which no prompt can be"
        return
    stored, derived = Outcome(row.outcome), _derivable(row)
    if not derived:
        yield (
            _MISSING,
            f"closed as {stored.value} with {row.ended_slots} of {row.num_slots or 0} slots ended",
        )
    elif stored not in derived:
        says = " or ".join(outcome.value for outcome in derived)
        yield _CONTRADICTORY, f"stored as {stored.value}, the evidence says {says}"
    if stored is Outcome.PAIRED and not row.is_current and not row.failed_slots:
        yield (
            _CONTRADICTORY,
            "closed as paired with no failed slot, and yet another attempt was opened",
        )
    yield from _wrong_cause(row, stored)


def _derivable(row: Evidence) -> tuple[Outcome, ...]:
    """Return every outcome that the evidence allows.

    It is one, except where attempts share rows: a quarantined pair of an earlier attempt is no
    proof about this one, and what a superseded attempt closed as was said before later pairs came.
    """
    plain = _derive_unpaired(row)
    if row.pairs and row.is_current and not row.was_paired:
        return (Outcome.PAIRED,)
    if row.quarantined and row.attempt == 1 and row.is_current:
        return (Outcome.QUARANTINED,)
    proven = [plain] if plain is not None else []
    if row.quarantined:
        proven.insert(0, Outcome.QUARANTINED)
    if row.pairs:
        proven.insert(0, Outcome.PAIRED)
    return tuple(proven)


def _wrong_cause(row: Evidence, stored: Outcome) -> Iterator[Fact]:
    if stored is not Outcome.UNPAIRED:
        if row.cause is not None:
            yield _CONTRADICTORY, f"closed as {stored.value} with the cause {row.cause!r}"
    elif row.cause not in KNOWN_CAUSES:
        yield _CONTRADICTORY, f"closed as unpaired with the cause {row.cause!r}"
    elif (row.cause == UnpairedCause.SINGLE_SURVIVOR.value) != (row.judged_slots == 1):
        yield (
            _CONTRADICTORY,
            f"closed as unpaired ({row.cause}), but {row.judged_slots} slots ended judged",
        )
