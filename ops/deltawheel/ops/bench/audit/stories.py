"""What a filled store is made of: the rows of one prompt for each way to end, as patterns.

Real records are built once a batch; of each further prompt only the ids and its number are new.
So a million prompts take minutes, and every row is what the wheel itself would have written.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import Table

from deltawheel.contracts.assignment import Assignment, Slot
from deltawheel.contracts.generator import Generator, GeneratorDelta, Sampling
from deltawheel.contracts.ids import canonical_json, digest_of, seed_of
from deltawheel.contracts.judgement import JudgedTrace, Judgement, Score, SlotFailed
from deltawheel.contracts.outcome import Closing, Outcome, UnpairedCause
from deltawheel.contracts.pair import PreferencePair, QuarantinedPair
from deltawheel.contracts.prompt import Prompt, PromptSubmission
from deltawheel.contracts.rubric import Rubric
from deltawheel.contracts.trace import FinishReason, Trace
from deltawheel.infra.store import rows, tables

__all__ = ["Pattern", "Story", "stories", "story_of"]

_RUBRIC = Rubric()
_JUDGE = "bench-judge-1"
_MARK = "NUMBER"
_OUTCOMES: tuple[tuple[int, Outcome | None], ...] = (
    (75, Outcome.PAIRED),
    (95, Outcome.UNPAIRED),
    (97, Outcome.QUARANTINED),
    (99, Outcome.DEAD_LETTERED),
    (100, None),
)
"""Of a hundred prompts, up to which number each ends so; None is still in flight."""
_GENERATORS = tuple(
    Generator(
        name=name,
        revision=digest_of(f"weights of {name}"),
        endpoint="server:main",
        model=f"{name}-1",
        capability=capability,
        sampling=Sampling(temperature=Decimal("0.7"), max_tokens=64),
    )
    for name, capability in (("strong", 2.0), ("weak", 0.0))
)


@dataclass(frozen=True, slots=True)
class Pattern:
    """One row of a story: its table, and its values with places for what is new."""

    table: Table
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Story:
    """All rows of one prompt, and how its ids come of its number."""

    patterns: Sequence[Pattern]
    id_fields: Mapping[str, str]

    def ids(self, number: int) -> dict[str, Any]:
        """Return what is put into the patterns' places."""
        given: dict[str, Any] = {"number": number}
        for name, fields in self.id_fields.items():
            if name == "pair":
                given["first"], given["second"] = sorted((given["trace0"], given["trace1"]))
            digest = hashlib.sha256((fields % given).encode()).hexdigest()[:32]
            given[name] = f"{name.rstrip('01')}_{digest}"
        return given


def story_of(number: int) -> Outcome | None:
    """Return how the prompt of this number ends."""
    place = number % 100
    return next(outcome for limit, outcome in _OUTCOMES if place < limit)


def stories(wheel: str, accepted_at: datetime) -> dict[Outcome | None, Story]:
    """Build the rows of prompts that were accepted at this time."""
    return {outcome: _story(wheel, outcome, accepted_at) for _, outcome in _OUTCOMES}


def _story(wheel: str, outcome: Outcome | None, at: datetime) -> Story:
    prompt = PromptSubmission(domain="sums", text=f"{_MARK}+1=", reference_answer=_MARK).accept(
        wheel=wheel, accepted_at=at
    )
    assignment = _assignment(prompt)
    pair = _pair(prompt, assignment)
    places = {
        pair.pair_id: "%(pair)s",
        **{assignment.trace_id(slot): f"%(trace{slot})s" for slot in (0, 1)},
        prompt.prompt_id: "%(prompt)s",
        _MARK: "%(number)d",
    }
    patterns = [
        Pattern(table, {name: _with_places(value, places) for name, value in row.items()})
        for table, row in _rows(wheel, outcome, prompt, assignment, pair)
    ]
    return Story(patterns, _id_fields(prompt, assignment, pair, places))


def _with_places(value: object, places: Mapping[str, str]) -> object:
    if not isinstance(value, str):
        return value
    text = value.replace("%", "%%")
    for known, place in places.items():
        text = text.replace(known, place)
    return text


def _id_fields(
    prompt: Prompt, assignment: Assignment, pair: PreferencePair, places: Mapping[str, str]
) -> dict[str, str]:
    """Return the canonical JSON that each id is the digest of, with places in it."""
    messages = [[message.role, message.content] for message in prompt.messages]
    fields: dict[str, list[object]] = {
        "prompt": ["prompt", 1, prompt.wheel, prompt.domain, messages, prompt.reference_answer]
    }
    for slot, generator in enumerate(_GENERATORS):
        sampling = generator.sampling
        of_whom = [slot, generator.name, generator.revision]
        how = [sampling.temperature, sampling.top_p, sampling.max_tokens]
        fields[f"trace{slot}"] = ["trace", 1, assignment.prompt_id, 0, *of_whom, *how]
    json = {name: canonical_json(given).decode() for name, given in fields.items()}
    pair_json = canonical_json(["pair", 1, "FIRST", "SECOND", pair.rubric_digest]).decode()
    json["pair"] = pair_json.replace("FIRST", "%(first)s").replace("SECOND", "%(second)s")
    return {
        name: text if name == "pair" else str(_with_places(text, places))
        for name, text in json.items()
    }


def _rows(
    wheel: str,
    outcome: Outcome | None,
    prompt: Prompt,
    assignment: Assignment,
    pair: PreferencePair,
) -> Iterator[tuple[Table, Mapping[str, Any]]]:
    closed_at = prompt.accepted_at + timedelta(seconds=5) if outcome else None
    yield tables.PROMPTS, {**rows.prompt_row(prompt, wheel), "attempt": 1, "closed_at": closed_at}
    yield tables.ASSIGNMENTS, rows.assignment_row(assignment, wheel)
    if outcome is Outcome.DEAD_LETTERED:
        for slot in (0, 1):
            yield tables.SLOT_ENDS, rows.failed_end_row(_failure(prompt, slot), wheel)
    else:
        scores = (5.0, 5.0) if outcome is Outcome.UNPAIRED else (5.0, 2.0)
        for slot, level in enumerate(scores):
            judged = _judged(assignment, slot, level)
            yield tables.TRACES, rows.trace_row(judged.trace, wheel)
            if outcome is None and slot == 1:
                return
            yield tables.JUDGEMENTS, rows.judgement_row(judged.judgement, wheel)
            yield tables.SLOT_ENDS, rows.judged_end_row(judged.judgement, wheel, attempt=1)
    if outcome is not None and closed_at is not None:
        yield tables.CLOSINGS, rows.closing_row(_closing(prompt, outcome, closed_at), wheel)
    if outcome is Outcome.PAIRED:
        yield tables.PAIRS, rows.pair_row(pair, wheel)
        for row in rows.delta_rows(pair, wheel):
            yield tables.PAIR_DELTAS, row
    if outcome is Outcome.QUARANTINED and closed_at is not None:
        odd = QuarantinedPair(pair=pair, expectations=("texts-differ",), quarantined_at=closed_at)
        yield tables.QUARANTINE, rows.quarantine_row(odd, wheel)
        for row in rows.reason_rows(odd, wheel):
            yield tables.QUARANTINE_REASONS, row


def _assignment(prompt: Prompt) -> Assignment:
    return Assignment(
        prompt_id=prompt.prompt_id,
        round=prompt.round,
        slots=tuple(Slot(index=index, generator=it) for index, it in enumerate(_GENERATORS)),
        judge_revisions=(_JUDGE,),
        rubric_digest=_RUBRIC.digest,
        generator_delta=GeneratorDelta(estimate=2.0, stderr=0.5, ladder_revision="bench"),
        policy="round-robin",
        accepted_at=prompt.accepted_at,
        assigned_at=prompt.accepted_at + timedelta(seconds=1),
        expires_at=prompt.accepted_at + timedelta(hours=1),
    )


def _judged(assignment: Assignment, slot: int, level: float) -> JudgedTrace:
    generator, trace_id = assignment.slots[slot].generator, assignment.trace_id(slot)
    answer = "17+8=25;25*3=75;75-4=71;71+9=80;A:80"
    common: dict[str, Any] = {
        "trace_id": trace_id,
        "prompt_id": assignment.prompt_id,
        "round": assignment.round,
        "slot": slot,
        "accepted_at": assignment.accepted_at,
    }
    trace = Trace(
        **common,
        generator=generator.name,
        generator_revision=generator.revision,
        served_model=generator.model,
        sampling=generator.sampling,
        seed=seed_of(trace_id),
        answer=answer,
        text_digest=digest_of(answer),
        prompt_tokens=8,
        completion_tokens=len(answer),
        finish_reason=FinishReason.STOP,
        lineage_depth=0,
        generated_at=assignment.accepted_at + timedelta(seconds=2),
    )
    judgement = Judgement(
        **common,
        judge="bench-judge",
        judge_revision=_JUDGE,
        rubric_digest=_RUBRIC.digest,
        scores={name: Score(mean=level) for name in _RUBRIC.dimensions},
        judged_at=assignment.accepted_at + timedelta(seconds=3),
    )
    return JudgedTrace(trace=trace, judgement=judgement)


def _pair(prompt: Prompt, assignment: Assignment) -> PreferencePair:
    chosen, rejected = (_judged(assignment, slot, (5.0, 2.0)[slot]) for slot in (0, 1))
    deltas = _RUBRIC.deltas(chosen.judgement, rejected.judgement)
    return PreferencePair(
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
        rubric_digest=_RUBRIC.digest,
        deltas=deltas,
        order_delta=_RUBRIC.order_delta(deltas),
        generator_delta=assignment.generator_delta,
        accepted_at=prompt.accepted_at,
        paired_at=prompt.accepted_at + timedelta(seconds=4),
    )


def _failure(prompt: Prompt, slot: int) -> SlotFailed:
    return SlotFailed(
        prompt_id=prompt.prompt_id,
        round=prompt.round,
        slot=slot,
        reason="the trace was cut off after 64 tokens",
        accepted_at=prompt.accepted_at,
        failed_at=prompt.accepted_at + timedelta(seconds=3),
    )


def _closing(prompt: Prompt, outcome: Outcome, closed_at: datetime) -> Closing:
    return Closing(
        prompt_id=prompt.prompt_id,
        round=prompt.round,
        outcome=outcome,
        cause=UnpairedCause.TIE if outcome is Outcome.UNPAIRED else None,
        reason="a bench closed it",
        closed_at=closed_at,
    )
