"""What judging does with a trace."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from deltawheel.contracts.clock import Clock
from deltawheel.contracts.errors import InvalidRecordError, RetryLaterError
from deltawheel.contracts.failpoints import Failpoint
from deltawheel.contracts.judgement import Judgement, SlotFailed
from deltawheel.contracts.ports import Failpoints, Judge, Telemetry
from deltawheel.contracts.record import Record
from deltawheel.contracts.rubric import Rubric
from deltawheel.contracts.store import Group, Store
from deltawheel.contracts.topics import Topic
from deltawheel.contracts.trace import Trace
from deltawheel.services.runtime.handler import Tick
from deltawheel.services.runtime.ledger import BatchedLedger

__all__ = ["Judging"]


@dataclass(slots=True, kw_only=True)
class Judging:
    """Ask the judge for every dimension of a trace, and accept nothing less.

    A cut-off trace is not judged: its slot ends failed. So does the slot of a trace whose panel or
    rubric, fixed at assignment, this judge is not, for both sides of a pair must be scored alike,
    and that of a trace by a family that may not be judged, whoever dealt it that slot.

    Args:
        shares_family: Whether a judge is of this family, as the judge's settings know it.
        refuses: Whether a family may not be judged.
    """

    store: Store
    judge: Judge
    rubric: Rubric
    clock: Clock
    telemetry: Telemetry
    failpoints: Failpoints
    concurrency: int
    shares_family: Callable[[str | None], bool | None] = lambda family: None
    refuses: Callable[[str | None], bool] = lambda family: False
    name: str = "judging"
    topics: tuple[Topic, ...] = (Topic.TRACES,)
    ticks: Sequence[Tick] = ()
    _ledger: BatchedLedger = field(init=False)

    def __post_init__(self) -> None:
        self._ledger = BatchedLedger(self.store, clock=self.clock)

    async def handle(self, record: Record) -> Sequence[Record]:
        """Return the trace's judgement as the store holds it, or the end of its slot."""
        if not isinstance(record, Trace):
            raise InvalidRecordError(f"judging has no use for a {type(record).__name__}")
        group = await self._ledger.group(record.key)
        trace = group.traces.get(record.trace_id) if group else None
        if group is None or trace is None:
            raise InvalidRecordError(f"the store holds no trace {record.trace_id}")
        if found := self._found(group, trace):
            self.telemetry.count("deltawheel_effects_found_total", effect="judgement")
            if isinstance(found, Judgement) and trace.slot not in group.ended_slots:
                return [await self._ledger.add_judgement(found)]
            return [found]
        await self.failpoints.reach(Failpoint.JUDGING_RECEIVED, trace.trace_id)
        if reason := self._refusal(group, trace):
            failure = self._failure(group, trace, reason, self.clock.now())
            return [await self._ledger.add_slot_failure(failure)]
        return [await self._judge(group, trace)]

    def slot_ends(self, record: Record, reason: str, at: datetime) -> Sequence[SlotFailed]:
        """A trace that can never be judged ends its slot; a stranger's ends nothing."""
        if not isinstance(record, Trace):
            return ()
        group = self.store.group(record.key)
        trace = group.traces.get(record.trace_id) if group else None
        if group is None or trace is None:
            return ()
        return (self._failure(group, trace, reason, at),)

    def _found(self, group: Group, trace: Trace) -> Judgement | SlotFailed | None:
        for judgement in group.judgements:
            if judgement.trace_id == trace.trace_id:
                return judgement
        for failure in group.slot_failures:
            if failure.slot == trace.slot:
                return failure
        return None

    def _refusal(self, group: Group, trace: Trace) -> str | None:
        if trace.is_cut_off:
            return (
                f"the trace was cut off after {trace.completion_tokens} tokens "
                f"({trace.finish_reason.value}): raise the generator's sampling.max_tokens"
            )
        assignment = group.assignment
        if assignment is None:
            return "the trace has no assignment"
        if self.judge.revision not in assignment.judge_revisions:
            return (
                f"assigned to {', '.join(assignment.judge_revisions)}, but the judge now is "
                f"{self.judge.revision}"
            )
        if assignment.rubric_digest != self.rubric.digest:
            return "assigned under another rubric than the one in the settings now"
        if self.refuses(family := assignment.slots[trace.slot].generator.family):
            return (
                f"{trace.generator} and a judge are both of family {family} (judge.same_family: "
                "refuse): judge by another family, or set that to record"
            )
        return None

    async def _judge(self, group: Group, trace: Trace) -> Judgement:
        try:
            assessment = await self.judge.assess(group.prompt, trace, self.rubric)
        except TimeoutError as error:
            raise RetryLaterError(f"the judge did not answer for {trace.trace_id}") from error
        if missing := self.rubric.dimensions.keys() - assessment.scores.keys():
            raise RetryLaterError(
                f"the judge left out scores of {trace.trace_id}: {', '.join(sorted(missing))}"
            )
        judgement = Judgement(
            trace_id=trace.trace_id,
            prompt_id=trace.prompt_id,
            round=trace.round,
            slot=trace.slot,
            judge=self.judge.name,
            judge_revision=self.judge.revision,
            rubric_digest=self.rubric.digest,
            scores={name: assessment.scores[name] for name in self.rubric.dimensions},
            is_correct=assessment.is_correct,
            is_same_family=self._is_same_family(group, trace),
            opinions=assessment.opinions,
            accepted_at=trace.accepted_at,
            judged_at=self.clock.now(),
        )
        return await self._ledger.add_judgement(judgement)

    def _is_same_family(self, group: Group, trace: Trace) -> bool | None:
        if group.assignment is None:
            return None
        return self.shares_family(group.assignment.slots[trace.slot].generator.family)

    def _failure(self, group: Group, trace: Trace, reason: str, at: datetime) -> SlotFailed:
        return SlotFailed(
            prompt_id=trace.prompt_id,
            round=trace.round,
            slot=trace.slot,
            attempt=group.attempt,
            reason=reason,
            accepted_at=trace.accepted_at,
            failed_at=at,
        )
