"""One record of each event type, for readers of the wire: always the same, checked in as files.

They tell one story: a prompt is dealt to two generators, both traces are judged and paired, and a
cycle promotes what it trained. Beside it stands what goes wrong on the way.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from deltawheel.contracts.assignment import Assignment, Slot
from deltawheel.contracts.cycle import Cycle, Trigger
from deltawheel.contracts.generator import Generator, PoolEvent, PoolEventKind, Sampling
from deltawheel.contracts.ids import digest_of, seed_of
from deltawheel.contracts.judgement import JudgedTrace, Judgement, PromptFailed, Score, SlotFailed
from deltawheel.contracts.pair import PreferencePair, QuarantinedPair
from deltawheel.contracts.pool import Pool, generator_delta
from deltawheel.contracts.promotion import Promotion
from deltawheel.contracts.prompt import Prompt, PromptSubmission
from deltawheel.contracts.record import Record
from deltawheel.contracts.rubric import Rubric
from deltawheel.contracts.trace import FinishReason, Trace

__all__ = ["examples"]

_WHEEL = "default"
_ACCEPTED_AT = datetime(2026, 1, 1, 12, tzinfo=UTC)
_RUBRIC = Rubric()
_JUDGE, _JUDGE_REVISION = "sandbox", "sandbox-1"
_BEST = dict.fromkeys(_RUBRIC.dimensions, 5.0)
_SHORTCUT = dict.fromkeys(_RUBRIC.dimensions, 1.0) | {"signal_to_noise": 5.0}
_STRONG, _WEAK = (
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
_POOL = Pool.from_log(
    [
        PoolEvent(
            kind=PoolEventKind.DECLARED,
            generator=generator,
            reason="declared in the settings",
            at=_ACCEPTED_AT,
            cause="settings 0",
        )
        for generator in (_STRONG, _WEAK)
    ]
)


def _at(seconds: int) -> datetime:
    return _ACCEPTED_AT + timedelta(seconds=seconds)


def examples() -> Mapping[type[Record], Record]:
    """Return one record of each class that travels, by that class."""
    prompt, other = _prompt("17+8*3=", "75"), _prompt("9-4+2=", "7")
    pair = _pair(prompt, "17+8=25;25*3=75;A:75", "A:65")
    blank = _pair(other, "9-4=5;5+2=7;A:7", " ")
    records: tuple[Record, ...] = (
        prompt,
        pair.chosen.trace,
        pair.chosen.judgement,
        SlotFailed(
            prompt_id=prompt.prompt_id,
            round=prompt.round,
            slot=1,
            reason="the trace was cut off after 64 tokens (length): raise the generator's "
            "sampling.max_tokens",
            accepted_at=prompt.accepted_at,
            failed_at=_at(2),
        ),
        PromptFailed(
            prompt_id=other.prompt_id,
            round=other.round,
            reason="no two generators could be paired for generation.expire_after_s (3600 s)",
            accepted_at=other.accepted_at,
            failed_at=_at(3601),
        ),
        pair,
        QuarantinedPair(pair=blank, expectations=("texts-are-written",), quarantined_at=_at(4)),
        _promotion(),
    )
    return {type(record): record for record in records}


def _prompt(text: str, reference_answer: str) -> Prompt:
    submission = PromptSubmission(domain="sums", text=text, reference_answer=reference_answer)
    return submission.accept(wheel=_WHEEL, accepted_at=_ACCEPTED_AT)


def _assignment(prompt: Prompt) -> Assignment:
    generators = (_STRONG, _WEAK)
    return Assignment(
        prompt_id=prompt.prompt_id,
        round=prompt.round,
        slots=tuple(Slot(index=index, generator=it) for index, it in enumerate(generators)),
        judge_revisions=(_JUDGE_REVISION,),
        rubric_digest=_RUBRIC.digest,
        generator_delta=generator_delta(*generators, pool=_POOL),
        policy="round-robin",
        accepted_at=prompt.accepted_at,
        assigned_at=_at(1),
        expires_at=_at(3600),
    )


def _judged(
    assignment: Assignment, slot: int, answer: str, scores: Mapping[str, float]
) -> JudgedTrace:
    generator, trace_id = assignment.slots[slot].generator, assignment.trace_id(slot)
    trace = Trace(
        trace_id=trace_id,
        prompt_id=assignment.prompt_id,
        round=assignment.round,
        slot=slot,
        generator=generator.name,
        generator_revision=generator.revision,
        served_model=generator.model,
        sampling=generator.sampling,
        seed=seed_of(trace_id),
        answer=answer,
        text_digest=digest_of(answer),
        prompt_tokens=8,
        completion_tokens=len(answer) + 1,
        finish_reason=FinishReason.STOP,
        lineage_depth=generator.lineage_depth,
        accepted_at=assignment.accepted_at,
        generated_at=_at(2),
    )
    judgement = Judgement(
        trace_id=trace_id,
        prompt_id=assignment.prompt_id,
        round=assignment.round,
        slot=slot,
        judge=_JUDGE,
        judge_revision=_JUDGE_REVISION,
        rubric_digest=_RUBRIC.digest,
        scores={name: Score(mean=mean) for name, mean in scores.items()},
        is_correct=scores["factuality"] == _BEST["factuality"],
        accepted_at=assignment.accepted_at,
        judged_at=_at(3),
    )
    return JudgedTrace(trace=trace, judgement=judgement)


def _pair(prompt: Prompt, chosen_answer: str, rejected_answer: str) -> PreferencePair:
    assignment = _assignment(prompt)
    chosen = _judged(assignment, 0, chosen_answer, _BEST)
    rejected = _judged(assignment, 1, rejected_answer, _SHORTCUT)
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
        paired_at=_at(4),
    )


def _promotion() -> Promotion:
    at = _at(60)
    cycle = Cycle.request(wheel=_WHEEL, trigger=Trigger.CRON, cause=at.isoformat(), at=at)
    model_name, version = f"deltawheel-{_WHEEL}", "1"
    return Promotion(
        cycle_id=cycle.cycle_id,
        model_name=model_name,
        version=version,
        replaces=None,
        generator=Generator(
            name=f"{model_name}-v{version}",
            revision=digest_of("weights of the candidate"),
            endpoint="server:main",
            model=f"{model_name}-v{version}",
            adapter_path="adapters/1",
            capability=2.5,
            lineage_depth=1,
            sampling=_STRONG.sampling,
        ),
        promoted_at=_at(600),
    )
