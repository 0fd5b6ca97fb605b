"""Pairing: what the judged traces of one prompt make."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from itertools import combinations

from deltawheel.contracts.assignment import Assignment
from deltawheel.contracts.calibration import Calibration
from deltawheel.contracts.judgement import JudgedTrace
from deltawheel.contracts.outcome import Closing, Outcome, UnpairedCause
from deltawheel.contracts.pair import PreferencePair, QuarantinedPair
from deltawheel.contracts.rubric import Rubric
from deltawheel.contracts.store import Group, GroupEnd

__all__ = ["form_pairs", "group_end"]

_UNPAIRED_REASONS = {
    UnpairedCause.TIE: "tie",
    UnpairedCause.SINGLE_SURVIVOR: "single survivor",
    UnpairedCause.JUDGED_OTHERWISE: (
        "judged under another rubric or by another judge than curation's rubric and the assignment "
        "name: were the settings changed while the prompt was open?"
    ),
}


def form_pairs(
    group: Group,
    rubric: Rubric,
    *,
    at: datetime,
    calibrated: Callable[[str], Calibration | None] = lambda judge_revision: None,
) -> list[PreferencePair]:
    """Pair every two judged traces that do not tie; the better by `order_by` is chosen.

    Only judgements under this rubric by the panel of the assignment count. Cut-off traces have no
    judgement, so they never enter. `calibrated` gives a judge revision's calibration under this
    rubric, which the variances of deltas are from; without one, the judgements' own are added.
    """
    assignment = group.assignment
    if assignment is None:
        return []
    judged = _judged(group, assignment, rubric)
    pairs = (
        _pair(group, assignment, rubric, first, second, calibrated, at)
        for first, second in combinations(judged, 2)
    )
    return [pair for pair in pairs if pair is not None]


def _judged(group: Group, assignment: Assignment, rubric: Rubric) -> list[JudgedTrace]:
    failed = {failure.slot for failure in group.slot_failures}
    return [
        JudgedTrace(trace=group.traces[judgement.trace_id], judgement=judgement)
        for judgement in sorted(group.judgements, key=lambda judgement: judgement.slot)
        if judgement.rubric_digest == rubric.digest
        and judgement.judge_revision in assignment.judge_revisions
        and judgement.trace_id in group.traces
        and judgement.slot not in failed
    ]


def _pair(
    group: Group,
    assignment: Assignment,
    rubric: Rubric,
    first: JudgedTrace,
    second: JudgedTrace,
    calibrated: Callable[[str], Calibration | None],
    at: datetime,
) -> PreferencePair | None:
    calibration = calibrated(first.judgement.judge_revision)
    variances = calibration.variances if calibration else None
    deltas = rubric.deltas(first.judgement, second.judgement, variances=variances)
    order_delta = rubric.order_delta(deltas)
    if rubric.is_tie(order_delta):
        return None
    if order_delta < 0:
        first, second = second, first
        deltas = rubric.deltas(first.judgement, second.judgement, variances=variances)
        order_delta = rubric.order_delta(deltas)
    believed = assignment.generator_delta
    sign = 1 if first.trace.slot < second.trace.slot else -1
    return PreferencePair(
        prompt=group.prompt,
        chosen=first,
        rejected=second,
        rubric_digest=rubric.digest,
        deltas=deltas,
        order_delta=order_delta,
        generator_delta=believed.model_copy(update={"estimate": sign * believed.estimate}),
        calibration_id=calibration.calibration_id if calibration else None,
        accepted_at=group.prompt.accepted_at,
        paired_at=at,
    )


def group_end(
    group: Group,
    pairs: Sequence[PreferencePair],
    failures: Mapping[str, tuple[str, ...]],
    *,
    rubric: Rubric,
    at: datetime,
) -> GroupEnd:
    """Decide a group's outcome: paired > quarantined > unpaired > dead-lettered.

    `pairs` are what `form_pairs` made under the rubric, `failures` the failed expectations by
    pair id.
    """
    passed = [pair for pair in pairs if pair.pair_id not in failures]
    quarantined = [
        QuarantinedPair(pair=pair, expectations=failures[pair.pair_id], quarantined_at=at)
        for pair in pairs
        if pair.pair_id in failures
    ]
    outcome = _outcome(group, len(passed), len(quarantined))
    cause = _cause(group, rubric) if outcome is Outcome.UNPAIRED else None
    closing = Closing(
        prompt_id=group.prompt.prompt_id,
        round=group.prompt.round,
        attempt=group.attempt,
        outcome=outcome,
        cause=cause,
        reason=_UNPAIRED_REASONS[cause] if cause else _reason(group, outcome),
        closed_at=at,
    )
    return GroupEnd(closing=closing, pairs=passed, quarantined=quarantined)


def _outcome(group: Group, num_passed: int, num_quarantined: int) -> Outcome:
    if num_passed:
        return Outcome.PAIRED
    if num_quarantined:
        return Outcome.QUARANTINED
    if group.prompt_failure is not None or _num_survivors(group) < 1:
        return Outcome.DEAD_LETTERED
    return Outcome.UNPAIRED


def _num_survivors(group: Group) -> int:
    return len(group.ended_slots) - len(group.slot_failures)


def _cause(group: Group, rubric: Rubric) -> UnpairedCause:
    if _num_survivors(group) == 1:
        return UnpairedCause.SINGLE_SURVIVOR
    judged = _judged(group, group.assignment, rubric) if group.assignment else []
    is_tie = len({each.trace.slot for each in judged}) > 1
    return UnpairedCause.TIE if is_tie else UnpairedCause.JUDGED_OTHERWISE


def _reason(group: Group, outcome: Outcome) -> str:
    if outcome is Outcome.PAIRED:
        return "stored"
    if outcome is Outcome.QUARANTINED:
        return "every pair failed a data-quality check"
    if group.prompt_failure is not None:
        return group.prompt_failure.reason
    reasons = sorted({failure.reason for failure in group.slot_failures})
    return "no slot gave a judged trace: " + "; ".join(reasons)
