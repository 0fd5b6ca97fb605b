"""The audit: every prompt's outcome derived anew from evidence, and compared with the stored one.

Pure: it reads rows and says what they do not explain. Two processes cannot disagree about a
prompt without the audit naming it.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from itertools import chain
from typing import Final

from deltawheel.contracts.derivation import derive_outcome, facts_of
from deltawheel.contracts.evidence import (
    KNOWN_OUTCOMES,
    Evidence,
    Finding,
    PromptRows,
    Snapshot,
)
from deltawheel.contracts.outcome import Outcome
from deltawheel.contracts.prompt import PromptKey
from deltawheel.contracts.rubric import Rubric
from deltawheel.contracts.stored_pairs import Ties, row_names, strange_pairs

__all__ = ["Audit", "InFlight", "Stage", "account", "derive_outcome", "examine"]

Progress = Callable[[str], None]
_MOST_FINDINGS: Final = 10_000
"""How many findings are kept; all are counted."""
_AT_ONCE: Final = 500
_REPORTED_EVERY: Final = 50_000
_SHAPE: Final = 2
"""Where an evidence's shape begins: before it stands what tells prompts apart."""


class Stage(StrEnum):
    """What a prompt in flight waits for."""

    ASSIGNMENT = "assignment"
    TRACES = "traces"
    JUDGEMENT = "judgement"
    CLOSING = "closing"


@dataclass(slots=True, kw_only=True)
class InFlight:
    """The prompts that wait for the same thing; the oldest one's attempt began at `oldest_at`."""

    prompts: int
    oldest_at: datetime | None
    oldest: PromptKey


@dataclass(slots=True, kw_only=True)
class Audit:
    """What became of every accepted prompt."""

    prompts: int = 0
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    stages: dict[Stage, InFlight] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    num_findings: int = 0
    counted: Counter[str] = field(default_factory=Counter)
    """Rows that belong to a prompt, by the evidence's field."""

    @property
    def is_clean(self) -> bool:
        """Whether every prompt is accounted for."""
        return not self.num_findings

    @property
    def in_flight(self) -> int:
        """How many prompts have no outcome yet."""
        return sum(stage.prompts for stage in self.stages.values())

    @property
    def oldest_in_flight_at(self) -> datetime | None:
        """When the current attempt began at the prompt that waits longest."""
        return min(
            (stage.oldest_at for stage in self.stages.values() if stage.oldest_at), default=None
        )

    def add(self, finding: Finding) -> None:
        """Count a finding, and keep it while there is room."""
        self.num_findings += 1
        if len(self.findings) < _MOST_FINDINGS:
            self.findings.append(finding)

    def note_open(self, row: Evidence, stage: Stage) -> None:
        """Count a prompt in flight."""
        held = self.stages.get(stage)
        if held is None:
            self.stages[stage] = InFlight(prompts=1, oldest_at=row.opened_at, oldest=row.key)
            return
        held.prompts += 1
        if row.opened_at and (held.oldest_at is None or row.opened_at < held.oldest_at):
            held.oldest_at, held.oldest = row.opened_at, row.key


def _say_nothing(_: str) -> None:
    """Leave out the progress."""


def account(
    snapshot: Snapshot,
    *,
    rubric: Rubric | None = None,
    progress: Progress = _say_nothing,
    is_deep: bool = False,
) -> Audit:
    """Account for every prompt of a store.

    Args:
        snapshot: What is read, all of one moment.
        rubric: Ties under it are checked by their scores; under any other, nobody has the weights.
        progress: Told what is being read.
        is_deep: Read every payload too, and compare with it what its row says in columns.
    """
    audit = Audit()
    odd = _Odd()
    progress("prompts")
    _examine(snapshot.evidence(), audit, odd, progress)
    progress("superseded attempts")
    for row in snapshot.superseded():
        odd.note(row, audit)
    progress("ties")
    _check_ties(snapshot, audit, Ties(rubric))
    progress("what rows refer to")
    totals = snapshot.totals()
    uncounted = [name for name, number in totals.items() if audit.counted[name] != number]
    for finding in snapshot.strays(of=uncounted):
        audit.add(finding)
    if is_deep:
        progress("payloads")
        for finding in chain(snapshot.unproven(None), snapshot.contents()):
            audit.add(finding)
    progress("the rows of what stands out")
    for part in _parts(odd.keys):
        for rows in snapshot.rows(part):
            odd.name(rows, audit)
        for finding in () if is_deep else snapshot.unproven(part):
            audit.add(finding)
    return audit


def _check_ties(snapshot: Snapshot, audit: Audit, ties: Ties) -> None:
    doubtful = {tie.key: tie for tie in snapshot.ties() if ties.is_doubtful(tie)}
    for part in _parts(doubtful):
        for rows in snapshot.rows(part):
            if finding := ties.finding(doubtful[rows.key], rows):
                audit.add(finding)


def examine(rows: Iterable[Evidence]) -> Audit:
    """Account for prompts by their counts alone."""
    audit = Audit()
    _examine(rows, audit, _Odd(), _say_nothing)
    return audit


class _Odd:
    """Prompts whose single rows must be read: those with findings, and those of many slots."""

    def __init__(self) -> None:
        self.keys: dict[PromptKey, None] = {}
        self._odd: dict[tuple[object, ...], bool] = {}
        self._places: dict[PromptKey, list[int]] = {}

    def is_odd(self, row: Evidence, shape: tuple[object, ...]) -> bool:
        """Tell whether `note` has something to do for a row; rows of one shape are alike in it."""
        known = self._odd.get(shape)
        if known is None:
            known = any(facts_of(row)) or _has_many_pairs(row)
            self._odd[shape] = known
        return known

    def note(self, row: Evidence, audit: Audit) -> None:
        """Add the findings of one row."""
        for kind, fact in facts_of(row):
            self.keys.setdefault(row.key)
            self._places.setdefault(row.key, []).append(len(audit.findings))
            audit.add(
                Finding(
                    kind=kind,
                    fact=fact,
                    prompt_id=row.key.prompt_id,
                    round=row.key.round,
                    attempt=row.attempt,
                )
            )
        if _has_many_pairs(row):
            self.keys.setdefault(row.key)

    def name(self, rows: PromptRows, audit: Audit) -> None:
        """Add the ids of its rows to a prompt's findings, and what only ids can tell."""
        named = tuple(row_names(rows))
        for place in self._places.get(rows.key, ()):
            if place < len(audit.findings):
                audit.findings[place] = replace(audit.findings[place], rows=named)
        for finding in strange_pairs(rows):
            audit.add(finding)


def _has_many_pairs(row: Evidence) -> bool:
    """Tell whether ids must be looked at: of two slots, numbers say everything about the pair."""
    return (row.num_slots or 0) > 2 and row.pairs + row.quarantined > 0


def _examine(rows: Iterable[Evidence], audit: Audit, odd: _Odd, progress: Progress) -> None:
    shapes: Counter[tuple[object, ...]] = Counter()
    examples: dict[tuple[object, ...], Evidence] = {}
    for row in rows:
        audit.prompts += 1
        if audit.prompts % _REPORTED_EVERY == 0:
            progress(f"{audit.prompts} prompts")
        shape: tuple[object, ...] = row[_SHAPE:]
        shapes[shape] += 1
        if shape not in examples:
            examples[shape] = row
        if odd.is_odd(row, shape):
            odd.note(row, audit)
        if row.outcome is None:
            audit.note_open(row, _stage(row))
    for shape, number in shapes.items():
        _count(examples[shape], number, audit)


def _count(row: Evidence, number: int, audit: Audit) -> None:
    """Count what so many prompts of one shape have."""
    if row.outcome in KNOWN_OUTCOMES:
        audit.outcomes[Outcome(row.outcome)] += number
    audit.counted["num_slots"] += number * (row.num_slots is not None)
    audit.counted["outcome"] += number * row.is_closed
    for name in ("traces", "judgements", "ended_slots", "pairs", "quarantined"):
        audit.counted[name] += number * int(getattr(row, name))


def _parts(keys: Iterable[PromptKey]) -> Iterator[Sequence[PromptKey]]:
    every = list(keys)[:_MOST_FINDINGS]
    for start in range(0, len(every), _AT_ONCE):
        yield every[start : start + _AT_ONCE]


def _stage(row: Evidence) -> Stage:
    if row.num_slots is None:
        return Stage.CLOSING if row.prompt_failures else Stage.ASSIGNMENT
    if row.ended_slots >= row.num_slots:
        return Stage.CLOSING
    # Failed slots may have a trace or none: at least these have nothing to be judged yet.
    has_all = row.traces + row.failed_slots >= row.num_slots
    return Stage.JUDGEMENT if has_all else Stage.TRACES
