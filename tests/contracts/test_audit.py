from datetime import UTC, datetime
from typing import Any

import pytest

from deltawheel.contracts.audit import examine
from deltawheel.contracts.outcome import Outcome
from deltawheel.contracts.prompt import PromptKey
from deltawheel.contracts.store import Evidence

AT = datetime(2026, 1, 1, tzinfo=UTC)
PAIRED: dict[str, Any] = {
    "key": PromptKey("prompt_1", 0),
    "accepted_at": AT,
    "num_slots": 2,
    "traces": 2,
    "judgements": 2,
    "ended_slots": 2,
    "judged_slots": 2,
    "lost_slots": 0,
    "pairs": 1,
    "quarantined": 0,
    "prompt_failures": 0,
    "closings": (Outcome.PAIRED,),
}


def evidence(**changes: Any) -> Evidence:
    return Evidence(**{**PAIRED, **changes})


@pytest.mark.parametrize(
    "row",
    [
        evidence(),
        evidence(pairs=0, quarantined=1, closings=(Outcome.QUARANTINED,)),
        evidence(pairs=0, closings=(Outcome.UNPAIRED,)),
        evidence(pairs=0, judgements=1, judged_slots=1, closings=(Outcome.UNPAIRED,)),
        evidence(pairs=0, judgements=0, judged_slots=0, closings=(Outcome.DEAD_LETTERED,)),
        evidence(
            num_slots=None,
            traces=0,
            judgements=0,
            ended_slots=0,
            judged_slots=0,
            pairs=0,
            prompt_failures=1,
            closings=(Outcome.DEAD_LETTERED,),
        ),
    ],
)
def test_each_honest_end_is_accounted_for(row: Evidence) -> None:
    audit = examine([row])
    assert audit.is_clean
    assert audit.outcomes.total() == 1


def test_prompt_in_flight_is_no_finding_and_tells_its_age() -> None:
    audit = examine([evidence(pairs=0, ended_slots=1, judged_slots=1, closings=())])
    assert audit.is_clean
    assert (audit.in_flight, audit.oldest_in_flight_at) == (1, AT)


@pytest.mark.parametrize(
    ("changes", "kind", "fact"),
    [
        ({"pairs": 0}, "contradictory", "stored as paired, the evidence says unpaired"),
        ({"judgements": 1}, "missing", "2 slots ended judged, but 1 judgements"),
        ({"traces": 1}, "missing", "2 slots ended judged, but 1 traces"),
        ({"ended_slots": 1, "pairs": 0}, "missing", "closed as paired with 1 of 2 slots ended"),
        ({"lost_slots": 1}, "lost", "1 slots expired while nothing stood still"),
        ({"pairs": 2}, "double", "2 pairs from 2 slots"),
        ({"closings": (Outcome.PAIRED, Outcome.PAIRED)}, "double", "2 closings"),
        ({"closings": ()}, "contradictory", "has pairs but is not closed"),
        (
            {"closings": (Outcome.UNPAIRED,)},
            "contradictory",
            "stored as unpaired, the evidence says paired",
        ),
    ],
)
def test_falsified_evidence_is_found_and_named(
    changes: dict[str, Any], kind: str, fact: str
) -> None:
    audit = examine([evidence(**changes)])
    assert [(f.kind, f.prompt_id, f.fact) for f in audit.findings] == [(kind, "prompt_1", fact)]
