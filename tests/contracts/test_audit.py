"""The derivation: which counts an honest prompt can have, and what is said of all others."""

from datetime import timedelta
from typing import Any

import pytest

from deltawheel.contracts.audit import Stage, derive_outcome, examine
from deltawheel.contracts.evidence import Evidence
from deltawheel.contracts.outcome import Outcome, UnpairedCause
from deltawheel.contracts.prompt import PromptKey
from tests.records import T0

PAIRED = Evidence(
    key=PromptKey("prompt_1", 0),
    opened_at=T0,
    num_slots=2,
    traces=2,
    judgements=2,
    ended_slots=2,
    pairs=1,
    outcome=Outcome.PAIRED.value,
)
TIE = {"outcome": Outcome.UNPAIRED.value, "cause": UnpairedCause.TIE.value}
SINGLE = {"outcome": Outcome.UNPAIRED.value, "cause": UnpairedCause.SINGLE_SURVIVOR.value}
QUARANTINED = {"outcome": Outcome.QUARANTINED.value, "quarantined": 1}
DEAD = {"outcome": Outcome.DEAD_LETTERED.value}
NOTHING = {"num_slots": None, "traces": 0, "judgements": 0, "ended_slots": 0, "pairs": 0}
AGAIN = {"attempt": 2, "marked_attempt": 2, "num_transitions": 1}
OPEN = {"outcome": None, "pairs": 0}


def evidence(*changes: dict[str, Any], **further: Any) -> Evidence:
    row = PAIRED
    for change in (*changes, further):
        row = row._replace(**change)
    return row


@pytest.mark.parametrize(
    "row",
    [
        evidence(),
        evidence(QUARANTINED, pairs=0),
        evidence(TIE, pairs=0),
        evidence(SINGLE, pairs=0, judgements=1, failed_slots=1),
        evidence(SINGLE, pairs=0, failed_slots=1),
        evidence(DEAD, pairs=0, judgements=0, failed_slots=2),
        evidence(DEAD, NOTHING, prompt_failures=1),
        evidence(DEAD, pairs=0, prompt_failures=1, ended_slots=1),
        evidence(num_slots=3, traces=3, judgements=3, ended_slots=3, pairs=2, quarantined=1),
        evidence(AGAIN),
        evidence(AGAIN, quarantined=1),
        evidence(AGAIN, QUARANTINED, pairs=0),
        evidence(AGAIN, TIE, pairs=0, quarantined=1),
        evidence(AGAIN, SINGLE, failed_slots=1, was_paired=True),
        evidence(DEAD, is_current=False, failed_slots=2, judgements=1),
        evidence(QUARANTINED, is_current=False),
    ],
)
def test_each_honest_end_is_accounted_for(row: Evidence) -> None:
    audit = examine([row])
    assert audit.findings == []
    assert audit.outcomes.total() == 1
    assert not audit.in_flight


@pytest.mark.parametrize(
    ("row", "stage"),
    [
        (evidence(NOTHING, OPEN), Stage.ASSIGNMENT),
        (evidence(NOTHING, OPEN, prompt_failures=1), Stage.CLOSING),
        (evidence(OPEN, traces=1, judgements=0, ended_slots=0), Stage.TRACES),
        (evidence(OPEN, traces=1, judgements=1, ended_slots=1), Stage.TRACES),
        (evidence(OPEN, traces=2, judgements=1, ended_slots=1), Stage.JUDGEMENT),
        (evidence(OPEN, traces=1, judgements=0, ended_slots=1, failed_slots=1), Stage.JUDGEMENT),
        (evidence(OPEN), Stage.CLOSING),
        (evidence(OPEN, AGAIN, ended_slots=1), Stage.JUDGEMENT),
        (evidence(OPEN, AGAIN, quarantined=1), Stage.CLOSING),
        (evidence(OPEN, AGAIN, pairs=1, ended_slots=1, was_paired=True), Stage.JUDGEMENT),
    ],
)
def test_prompt_in_flight_is_no_finding_and_tells_what_it_waits_for(
    row: Evidence, stage: Stage
) -> None:
    audit = examine([row])
    assert audit.findings == []
    assert audit.stages.keys() == {stage}
    assert audit.in_flight == 1


def test_oldest_in_flight_counts_from_when_its_attempt_was_opened() -> None:
    late = T0 + timedelta(hours=1)
    rows = [evidence(OPEN, AGAIN, opened_at=late), evidence(OPEN, opened_at=late)]
    audit = examine(rows)
    assert (audit.in_flight, audit.oldest_in_flight_at) == (2, late)
    earlier = evidence(OPEN, key=PromptKey("prompt_2", 0))
    audit = examine([*rows, earlier])
    assert (audit.oldest_in_flight_at, audit.stages[Stage.CLOSING].oldest) == (T0, earlier.key)


@pytest.mark.parametrize(
    ("row", "kind", "fact"),
    [
        (evidence(pairs=0), "contradictory", "stored as paired, the evidence says unpaired"),
        (evidence(judgements=1), "missing", "2 slots ended judged, but 1 judgements"),
        (evidence(traces=1), "missing", "2 slots ended judged, but 1 traces"),
        (
            evidence(TIE, ended_slots=1, pairs=0),
            "missing",
            "closed as unpaired with 1 of 2 slots ended",
        ),
        (evidence(lost_slots=1), "lost", "1 slots expired while nothing stood still"),
        (evidence(pairs=2), "double", "2 pairs from 2 slots"),
        (
            evidence(quarantined=1),
            "double",
            "2 pairs, stored and quarantined, from 2 slots",
        ),
        (evidence(ended_slots=3, judgements=3, traces=2), "double", "3 slot ends for 2 slots"),
        (evidence(traces=3), "double", "3 traces for 2 slots"),
        (evidence(failed_slots=1), "contradictory", "1 pairs, but 1 slots ended judged"),
        (evidence(outcome=None), "contradictory", "has pairs but is not closed"),
        (
            evidence(OPEN, quarantined=1),
            "contradictory",
            "has quarantined pairs but is not closed",
        ),
        (evidence(TIE), "contradictory", "stored as unpaired, the evidence says paired"),
        (
            evidence(DEAD, pairs=0),
            "contradictory",
            "stored as dead-lettered, the evidence says unpaired",
        ),
        (evidence(cause="tie"), "contradictory", "closed as paired with the cause 'tie'"),
        (
            evidence(TIE, pairs=0, cause=None),
            "contradictory",
            "closed as unpaired with the cause None",
        ),
        (
            evidence(SINGLE, pairs=0),
            "contradictory",
            "closed as unpaired (single-survivor), but 2 slots ended judged",
        ),
        (
            evidence(TIE, pairs=0, failed_slots=1),
            "contradictory",
            "closed as unpaired (tie), but 1 slots ended judged",
        ),
        (evidence(outcome="won"), "contradictory", "closed as 'won', which no prompt can be"),
        (
            evidence(marked_attempt=2),
            "contradictory",
            "marked as in attempt 2, but its transitions have opened 1",
        ),
        (
            evidence(is_mark_right=False),
            "contradictory",
            "prompts.closed_at says otherwise than the closings: closed as paired",
        ),
        (
            evidence(OPEN, is_mark_right=False),
            "contradictory",
            "prompts.closed_at says otherwise than the closings: not closed",
        ),
        (
            evidence(AGAIN, attempt=3, marked_attempt=3),
            "missing",
            "1 transitions have opened attempt 3: one each was needed for every attempt after the "
            "first",
        ),
        (
            evidence(OPEN, num_slots=None),
            "missing",
            "its assignment: there are traces, judgements, slot ends or pairs",
        ),
        (
            evidence(is_current=False),
            "contradictory",
            "closed as paired with no failed slot, and yet another attempt was opened",
        ),
    ],
)
def test_falsified_evidence_is_found_and_named(row: Evidence, kind: str, fact: str) -> None:
    audit = examine([row])
    found = [(f.kind, f.prompt_id, f.attempt, f.fact) for f in audit.findings]
    assert (kind, "prompt_1", row.attempt, fact) in found
    assert not audit.is_clean


@pytest.mark.parametrize(
    ("row", "outcome"),
    [
        (evidence(quarantined=1), Outcome.PAIRED),
        (evidence(QUARANTINED, pairs=0), Outcome.QUARANTINED),
        (evidence(pairs=0), Outcome.UNPAIRED),
        (evidence(pairs=0, failed_slots=2), Outcome.DEAD_LETTERED),
        (evidence(NOTHING, prompt_failures=1), Outcome.DEAD_LETTERED),
        (evidence(NOTHING), None),
        (evidence(pairs=0, ended_slots=1), None),
    ],
)
def test_outcome_is_derived_by_precedence(row: Evidence, outcome: Outcome | None) -> None:
    assert derive_outcome(row) is outcome


def test_findings_beyond_what_is_kept_are_still_counted() -> None:
    audit = examine(evidence(pairs=0, key=PromptKey(f"p{n}", 0)) for n in range(10_100))
    assert (len(audit.findings), audit.num_findings) == (10_000, 10_100)
