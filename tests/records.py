"""Records for tests: every argument has a default, so that a test names only what it is about.

They fit each other: `a_trace(assignment, slot=1)` fills slot 1 of that assignment, `a_judgement`
of a trace is one of it, `a_pair()` is made of all of these. The same arguments, the same record.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from deltawheel.contracts.assignment import Assignment, Slot
from deltawheel.contracts.cycle import Cycle, Trigger
from deltawheel.contracts.dead_letter import DeadLetter
from deltawheel.contracts.events import InboundMessage
from deltawheel.contracts.generator import (
    Generator,
    GeneratorDelta,
    PoolEvent,
    PoolEventKind,
    Sampling,
)
from deltawheel.contracts.ids import digest_of, seed_of
from deltawheel.contracts.interruptions import Deferral
from deltawheel.contracts.judgement import JudgedTrace, Judgement, PromptFailed, Score, SlotFailed
from deltawheel.contracts.outcome import Closing, Outcome, UnpairedCause
from deltawheel.contracts.pair import PreferencePair, QuarantinedPair
from deltawheel.contracts.probe import Probe
from deltawheel.contracts.promotion import Promotion
from deltawheel.contracts.prompt import Message, Prompt, PromptKey
from deltawheel.contracts.rubric import Rubric
from deltawheel.contracts.store import GroupEnd
from deltawheel.contracts.trace import FinishReason, Trace

WHEEL = "test"
JUDGE = "judge@1"
"""The revision of the judge in every assignment, and of every judgement that names no other."""
T0 = datetime(2026, 1, 1, tzinfo=UTC)
"""When every test's prompts are accepted; later records follow in the seconds after it."""


def seconds(number: float) -> datetime:
    return T0 + timedelta(seconds=number)


def a_rubric() -> Rubric:
    return Rubric()


def a_generator(
    name: str = "strong",
    *,
    revision: str = "r1",
    capability: float | None = None,
    adapter_path: str | None = None,
    lineage_depth: int = 0,
    **given: Any,
) -> Generator:
    """`strong` stands at 1 on the ladder and `weak` at 0, unless told otherwise."""
    rung = {"strong": 1.0, "weak": 0.0}.get(name, 0.5) if capability is None else capability
    return Generator(
        name=name,
        revision=revision,
        endpoint="server:main",
        model=f"{name}-{revision}",
        adapter_path=adapter_path,
        capability=rung,
        lineage_depth=lineage_depth,
        sampling=Sampling(temperature=Decimal("0.7"), max_tokens=256),
        **given,
    )


def a_prompt(
    text: str = "1+1=",
    *,
    round: int = 0,
    domain: str = "sums",
    reference_answer: str | None = "2",
    accepted_at: datetime = T0,
) -> Prompt:
    return Prompt(
        wheel=WHEEL,
        domain=domain,
        messages=(Message(role="user", content=text),),
        reference_answer=reference_answer,
        round=round,
        accepted_at=accepted_at,
    )


def an_assignment(
    prompt: Prompt | None = None,
    *,
    generators: Sequence[Generator] = (),
    rubric: Rubric | None = None,
    assigned_at: datetime | None = None,
    expires_at: datetime | None = None,
) -> Assignment:
    prompt = prompt or a_prompt()
    members = generators or (a_generator("strong"), a_generator("weak"))
    return Assignment(
        prompt_id=prompt.prompt_id,
        round=prompt.round,
        slots=tuple(Slot(index=index, generator=member) for index, member in enumerate(members)),
        judge_revisions=(JUDGE,),
        rubric_digest=(rubric or a_rubric()).digest,
        generator_delta=GeneratorDelta(
            estimate=members[0].capability - members[1].capability,
            stderr=0.5,
            ladder_revision="ladder-1",
        ),
        policy="round-robin",
        accepted_at=prompt.accepted_at,
        assigned_at=assigned_at or prompt.accepted_at + timedelta(seconds=1),
        expires_at=expires_at or prompt.accepted_at + timedelta(hours=1),
    )


def a_trace(
    assignment: Assignment | None = None,
    slot: int = 0,
    *,
    answer: str = "1+1=2",
    reasoning: str = "",
    completion_tokens: int | None = None,
    finish_reason: FinishReason = FinishReason.STOP,
    generated_at: datetime | None = None,
) -> Trace:
    assignment = assignment or an_assignment()
    generator = assignment.slots[slot].generator
    trace_id = assignment.trace_id(slot)
    return Trace(
        trace_id=trace_id,
        prompt_id=assignment.prompt_id,
        round=assignment.round,
        slot=slot,
        generator=generator.name,
        generator_revision=generator.revision,
        served_model=generator.model,
        sampling=generator.sampling,
        seed=seed_of(trace_id),
        reasoning=reasoning,
        answer=answer,
        text_digest=digest_of(f"{reasoning}{answer}"),
        prompt_tokens=4,
        completion_tokens=len(answer) if completion_tokens is None else completion_tokens,
        finish_reason=finish_reason,
        lineage_depth=generator.lineage_depth,
        accepted_at=assignment.accepted_at,
        generated_at=generated_at or assignment.accepted_at + timedelta(seconds=2),
    )


def some_scores(
    level: float = 4.0, *, rubric: Rubric | None = None, **exceptions: float
) -> dict[str, Score]:
    """Return the same score on every dimension, with exceptions by name."""
    dimensions = (rubric or a_rubric()).dimensions
    return {name: Score(mean=exceptions.get(name, level)) for name in dimensions}


def a_judgement(
    trace: Trace | None = None,
    *,
    level: float = 4.0,
    scores: Mapping[str, Score] | None = None,
    judge_revision: str = JUDGE,
    rubric: Rubric | None = None,
    is_correct: bool | None = True,
    judged_at: datetime | None = None,
) -> Judgement:
    trace = trace or a_trace()
    rubric = rubric or a_rubric()
    return Judgement(
        trace_id=trace.trace_id,
        prompt_id=trace.prompt_id,
        round=trace.round,
        slot=trace.slot,
        judge="judge",
        judge_revision=judge_revision,
        rubric_digest=rubric.digest,
        scores=some_scores(level, rubric=rubric) if scores is None else scores,
        is_correct=is_correct,
        accepted_at=trace.accepted_at,
        judged_at=judged_at or trace.accepted_at + timedelta(seconds=3),
    )


def a_judged_trace(
    assignment: Assignment | None = None, slot: int = 0, *, level: float = 4.0, answer: str = "2"
) -> JudgedTrace:
    trace = a_trace(assignment, slot, answer=answer)
    return JudgedTrace(trace=trace, judgement=a_judgement(trace, level=level))


def a_slot_failure(
    assignment: Assignment | None = None,
    slot: int = 0,
    *,
    reason: str = "cut off",
    failed_at: datetime | None = None,
) -> SlotFailed:
    assignment = assignment or an_assignment()
    return SlotFailed(
        prompt_id=assignment.prompt_id,
        round=assignment.round,
        slot=slot,
        reason=reason,
        accepted_at=assignment.accepted_at,
        failed_at=failed_at or assignment.accepted_at + timedelta(seconds=3),
    )


def a_prompt_failure(
    prompt: Prompt | None = None,
    *,
    reason: str = "the pool has fewer than two members",
    failed_at: datetime | None = None,
) -> PromptFailed:
    prompt = prompt or a_prompt()
    return PromptFailed(
        prompt_id=prompt.prompt_id,
        round=prompt.round,
        reason=reason,
        accepted_at=prompt.accepted_at,
        failed_at=failed_at or prompt.accepted_at + timedelta(seconds=3),
    )


def a_pair(
    prompt: Prompt | None = None,
    *,
    chosen_level: float = 5.0,
    rejected_level: float = 2.0,
    chosen_slot: int = 0,
    generators: Sequence[Generator] = (),
    chosen_answer: str = "1+1=2",
    rejected_answer: str = "1+1=3",
    paired_at: datetime | None = None,
) -> PreferencePair:
    """Made of the default assignment's slots 0 and 1; `chosen_slot=1` gives the mirror image."""
    prompt = prompt or a_prompt()
    rubric = a_rubric()
    assignment = an_assignment(prompt, generators=generators, rubric=rubric)
    chosen = a_judged_trace(assignment, chosen_slot, level=chosen_level, answer=chosen_answer)
    rejected = a_judged_trace(
        assignment, 1 - chosen_slot, level=rejected_level, answer=rejected_answer
    )
    deltas = rubric.deltas(chosen.judgement, rejected.judgement)
    estimate = assignment.generator_delta.estimate * (1 if chosen_slot == 0 else -1)
    return PreferencePair(
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
        rubric_digest=rubric.digest,
        deltas=deltas,
        order_delta=rubric.order_delta(deltas),
        generator_delta=assignment.generator_delta.model_copy(update={"estimate": estimate}),
        accepted_at=prompt.accepted_at,
        paired_at=paired_at or prompt.accepted_at + timedelta(seconds=4),
    )


def a_quarantined_pair(
    pair: PreferencePair | None = None,
    *,
    expectations: Sequence[str] = ("expect_answers_to_differ",),
) -> QuarantinedPair:
    pair = pair or a_pair()
    return QuarantinedPair(
        pair=pair, expectations=tuple(expectations), quarantined_at=pair.paired_at
    )


def a_closing(
    prompt: Prompt | PromptKey | None = None,
    *,
    outcome: Outcome = Outcome.PAIRED,
    cause: UnpairedCause = UnpairedCause.TIE,
    attempt: int = 1,
    closed_at: datetime | None = None,
) -> Closing:
    key = prompt if isinstance(prompt, PromptKey) else (prompt or a_prompt()).key
    return Closing(
        prompt_id=key.prompt_id,
        round=key.round,
        attempt=attempt,
        outcome=outcome,
        cause=cause if outcome is Outcome.UNPAIRED else None,
        reason="a test closed it",
        closed_at=closed_at or seconds(5),
    )


def a_paired_end(pair: PreferencePair | None = None) -> GroupEnd:
    """Return what closes the pair's group with it."""
    pair = pair or a_pair()
    return GroupEnd(closing=a_closing(pair.prompt), pairs=(pair,))


def a_quarantined_end(quarantined: QuarantinedPair | None = None) -> GroupEnd:
    """Return what closes the quarantined pair's group with it."""
    held = quarantined or a_quarantined_pair()
    end = a_closing(held.pair.prompt, outcome=Outcome.QUARANTINED)
    return GroupEnd(closing=end, quarantined=(held,))


def a_dead_letter(
    value: bytes | None = b"\xff not json",
    *,
    prompt_key: PromptKey | None = None,
    died_at: datetime | None = None,
) -> DeadLetter:
    return DeadLetter(
        topic=f"{WHEEL}.traces",
        partition=0,
        offset=7,
        key=b"\x00key",
        value=value,
        headers=(("ce_type", b"\xfe"),),
        service="judging",
        error="InvalidRecordError",
        reason="not a valid Trace",
        prompt_key=prompt_key,
        died_at=died_at or seconds(6),
    )


def a_deferral(
    value: bytes = b"{}",
    *,
    service: str = "judging",
    due_s: float = 0,
    dependency: str | None = None,
) -> Deferral:
    return Deferral(
        message=InboundMessage(
            topic="test.traces",
            partition=1,
            offset=2**40,
            key=b"\x00key",
            value=value,
            headers=(("ce_type", b"\xff\x00"), ("empty", b"")),
        ),
        service=service,
        reason="left out a dimension",
        dependency=dependency,
        tries=6,
        prompt_key=a_prompt().key,
        deferred_at=T0,
        due_at=seconds(due_s),
        deadline_at=T0 + timedelta(days=1),
    )


def a_pool_event(
    generator: Generator | None = None,
    *,
    kind: PoolEventKind = PoolEventKind.DECLARED,
    cause: str = "settings 0",
    at: datetime = T0,
) -> PoolEvent:
    return PoolEvent(
        kind=kind, generator=generator or a_generator(), reason="a test said so", at=at, cause=cause
    )


def a_cycle(cause: str = "first", *, requested_at: datetime = T0) -> Cycle:
    return Cycle.request(wheel=WHEEL, trigger=Trigger.OPERATOR, cause=cause, at=requested_at)


def a_promotion(
    cycle: Cycle | None = None,
    *,
    version: str = "1",
    replaces: str | None = None,
    promoted_at: datetime | None = None,
) -> Promotion:
    return Promotion(
        cycle_id=(cycle or a_cycle()).cycle_id,
        model_name="deltawheel-test",
        version=version,
        replaces=replaces,
        generator=a_generator(f"champion-{version}", revision=f"v{version}", lineage_depth=1),
        promoted_at=promoted_at or seconds(10),
    )


def a_probe(
    generator: Generator | None = None,
    *,
    domain: str = "sums",
    items_id: str = "items",
    num_items: int = 10,
    num_right: int = 5,
    at: datetime = T0,
) -> Probe:
    generator = generator or a_generator()
    return Probe(
        generator=generator.name,
        revision=generator.revision,
        domain=domain,
        items_id=items_id,
        num_items=num_items,
        num_right=num_right,
        prompt_tokens=10 * num_items,
        completion_tokens=20 * num_items,
        probed_at=at,
    )
