"""Stored pairs and ties, looked at one by one: what only ids and scores can tell."""

from collections.abc import Collection, Iterator
from itertools import combinations

from deltawheel.contracts.evidence import Finding, FindingKind, PromptRows, TiedScores
from deltawheel.contracts.ids import content_id
from deltawheel.contracts.rubric import Rubric

__all__ = ["Ties", "row_names", "strange_pairs"]

_DOUBLE: FindingKind = "double"
_CONTRADICTORY: FindingKind = "contradictory"
_Apart = tuple[float, str, str]


class Ties:
    """Checks closings as a tie by the scores under one rubric, whose weights are known."""

    def __init__(self, rubric: Rubric | None) -> None:
        self._rubric = rubric
        self._digest = rubric.digest if rubric else None
        weights = rubric.order_by if rubric else {}
        total = float(sum(weights.values()))
        self._weights = {name: float(weight) / total for name, weight in weights.items()}

    def is_doubtful(self, tie: TiedScores) -> bool:
        """Tell whether any two of the traces differ, be they paired or late."""
        return self._apart(tie, None) is not None

    def finding(self, tie: TiedScores, rows: PromptRows) -> Finding | None:
        """Name the two traces that differ most, of those whose slots ended judged."""
        judged = {
            end.trace_id
            for end in rows.slot_ends
            if end.kind == "judged" and end.attempt == tie.attempt
        }
        apart = self._apart(tie, judged)
        if apart is None:
            return None
        difference, high, low = apart
        return Finding(
            kind=_CONTRADICTORY,
            fact=f"closed as a tie, but its traces differ by {difference:.3g} points and no pair "
            "is stored",
            prompt_id=tie.key.prompt_id,
            round=tie.key.round,
            attempt=tie.attempt,
            rows=(high, low),
        )

    def _apart(self, tie: TiedScores, of: Collection[str | None] | None) -> _Apart | None:
        if self._rubric is None:
            return None
        values = {
            str(found["trace_id"]): sum(
                weight * found["scores"][name]["mean"] for name, weight in self._weights.items()
            )
            for found in tie.judgements
            if found["rubric_digest"] == self._digest and (of is None or found["trace_id"] in of)
        }
        if len(values) < 2:
            return None
        low, high = min(values, key=values.__getitem__), max(values, key=values.__getitem__)
        difference = values[high] - values[low]
        return None if self._rubric.is_tie(difference) else (difference, high, low)


def row_names(rows: PromptRows) -> Iterator[str]:
    """Yield what tells a prompt's slot ends and pairs from others."""
    for end in rows.slot_ends:
        yield f"slot {end.slot} of attempt {end.attempt}: {end.kind} {end.trace_id or ''}".strip()
    for pair in rows.pairs:
        yield f"{'quarantined ' if pair.is_quarantined else ''}{pair.pair_id}"


def strange_pairs(rows: PromptRows) -> Iterator[Finding]:
    """Name pairs that no two judged slots make, and such as hold the traces of another."""
    proven = _pair_ids(rows)
    judged = {end.trace_id for end in rows.slot_ends if end.kind == "judged"}
    sides: dict[frozenset[str], str] = {}
    for pair in sorted(rows.pairs):
        first = sides.setdefault(frozenset(pair.traces), pair.pair_id)
        if first != pair.pair_id:
            kind, fact = _DOUBLE, f"{pair.pair_id} holds the same two traces as {first}"
        elif cut_off := sorted(rows.cut_off & set(pair.traces)):
            kind, fact = _CONTRADICTORY, f"{pair.pair_id} holds a cut-off trace: {cut_off[0]}"
        elif unjudged := sorted(set(pair.traces) - judged):
            kind = _CONTRADICTORY
            fact = f"{pair.pair_id} holds a trace whose slot never ended judged: {unjudged[0]}"
        elif pair.pair_id not in proven:
            kind, fact = _CONTRADICTORY, f"{pair.pair_id} is the id of no two judged traces"
        else:
            continue
        yield Finding(
            kind=kind,
            fact=fact,
            prompt_id=rows.key.prompt_id,
            round=rows.key.round,
            rows=(pair.pair_id, *pair.traces),
        )


def _pair_ids(rows: PromptRows) -> set[str]:
    """Return the ids of all pairs that the judged slots of an attempt can make."""
    judged = [end for end in rows.slot_ends if end.kind == "judged" and end.trace_id is not None]
    return {
        content_id("pair", 1, *sorted((str(one.trace_id), str(other.trace_id))), one.rubric_digest)
        for one, other in combinations(judged, 2)
        if one.attempt == other.attempt and one.rubric_digest == other.rubric_digest
    }
