"""Judging: every dimension or none, and a slot that cannot be judged alike ends failed."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deltawheel.contracts.errors import InvalidRecordError, RetryLaterError
from deltawheel.contracts.failpoints import Failpoint
from deltawheel.contracts.judgement import Judgement, Score, SlotFailed
from deltawheel.contracts.ports import Assessment
from deltawheel.contracts.record import Record
from deltawheel.contracts.rubric import Rubric
from deltawheel.contracts.settings import JudgeSettings
from deltawheel.contracts.trace import FinishReason, Trace
from deltawheel.infra.store.store import SqlStore
from deltawheel.infra.telemetry import PrometheusTelemetry
from deltawheel.services.judging.handler import Judging
from tests.records import (
    WHEEL,
    a_generator,
    a_judgement,
    a_prompt,
    a_rubric,
    a_slot_failure,
    a_trace,
    an_assignment,
    seconds,
    some_scores,
)
from tests.services.fakes import (
    PANEL,
    FakeClock,
    FakeFailpoints,
    FakeJudge,
    KilledError,
    add_asked,
    die,
    held,
    metric,
    pass_by,
)


class Stage:
    """Judging over a store that holds an assigned prompt."""

    def __init__(self, store: SqlStore) -> None:
        self.store = store
        self.judge = FakeJudge()
        self.clock = FakeClock()
        self.telemetry = PrometheusTelemetry()
        self.failpoints = FakeFailpoints()
        self.prompt = add_asked(store)
        self.handler = self.with_rubric(a_rubric())

    def with_rubric(self, rubric: Rubric) -> Judging:
        return Judging(
            store=self.store,
            judge=self.judge,
            rubric=rubric,
            clock=self.clock,
            telemetry=self.telemetry,
            failpoints=self.failpoints,
            concurrency=8,
        )

    async def refusal(self, trace: Trace, handler: Judging | None = None) -> str:
        """Return why the slot failed, when it did so unjudged, and the event is what is stored."""
        [failure] = await (handler or self.handler).handle(trace)
        assert isinstance(failure, SlotFailed)
        assert self.judge.read == []
        group = held(self.store, self.prompt)
        assert (group.slot_failures, group.judgements) == ([failure], [])
        assert (failure.slot, failure.failed_at) == (trace.slot, self.clock.at)
        return failure.reason

    @property
    def num_found(self) -> float | None:
        return metric(self.telemetry, "deltawheel_effects_found_total", effect="judgement")


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with closing(SqlStore(f"sqlite:///{tmp_path / 'store.db'}", wheel=WHEEL)) as store:
        yield Stage(store)


async def test_trace_is_judged_and_its_judgement_returned_as_stored(stage: Stage) -> None:
    trace = stage.store.add_traces([a_trace(slot=1)])[0]
    scores = some_scores(3.0, factuality=5.0)
    stage.judge.score = lambda trace: Assessment(scores=scores, is_correct=False)
    [judgement] = await stage.handler.handle(trace)
    assert judgement == a_judgement(
        trace, scores=scores, judge_revision=PANEL, is_correct=False, judged_at=stage.clock.at
    )
    group = held(stage.store, stage.prompt)
    assert group.judgements == [judgement]
    assert group.ended_slots == {1}


async def test_missing_dimension_is_asked_again(stage: Stage) -> None:
    trace = stage.store.add_traces([a_trace()])[0]
    some = {name: Score(mean=4.0) for name in ("factuality", "signal_to_noise", "step_coherence")}
    stage.judge.score = lambda trace: Assessment(scores=some)
    missing = "computational_precision, strategy_coherence"
    with pytest.raises(RetryLaterError, match=f"left out scores of {trace.trace_id}: {missing}$"):
        await stage.handler.handle(trace)
    assert held(stage.store, stage.prompt).ended_slots == set()
    stage.judge.score = lambda trace: Assessment(scores=some_scores())
    [judgement] = await stage.handler.handle(trace)
    assert isinstance(judgement, Judgement)


async def test_score_of_a_dimension_that_the_rubric_does_not_ask_for_is_left_out(
    stage: Stage,
) -> None:
    trace = stage.store.add_traces([a_trace()])[0]
    more = some_scores() | {"charm": Score(mean=5.0)}
    stage.judge.score = lambda trace: Assessment(scores=more)
    [judgement] = await stage.handler.handle(trace)
    assert isinstance(judgement, Judgement)
    assert judgement.scores == some_scores()


async def test_judge_that_does_not_answer_is_asked_again(stage: Stage) -> None:
    def time_out(trace: Trace) -> Assessment:
        raise TimeoutError

    trace = stage.store.add_traces([a_trace()])[0]
    stage.judge.score = time_out
    with pytest.raises(RetryLaterError, match=f"did not answer for {trace.trace_id}"):
        await stage.handler.handle(trace)
    assert held(stage.store, stage.prompt).ended_slots == set()


@pytest.mark.parametrize("reason", [FinishReason.LENGTH, FinishReason.OTHER])
async def test_cut_off_trace_ends_its_slot_failed_and_is_not_judged(
    stage: Stage, reason: FinishReason
) -> None:
    trace = stage.store.add_traces([a_trace(finish_reason=reason, completion_tokens=256)])[0]
    said = await stage.refusal(trace)
    assert said.startswith(f"the trace was cut off after 256 tokens ({reason.value}): raise")


async def test_slot_that_was_assigned_to_another_judge_ends_failed(stage: Stage) -> None:
    trace = stage.store.add_traces([a_trace()])[0]
    stage.judge.revision = "judge@2"
    said = await stage.refusal(trace)
    assert said == "assigned to judge@1, but the judge now is judge@2"


async def test_slot_that_was_assigned_under_another_rubric_ends_failed(stage: Stage) -> None:
    trace = stage.store.add_traces([a_trace()])[0]
    said = await stage.refusal(trace, stage.with_rubric(Rubric(name="newer")))
    assert said == "assigned under another rubric than the one in the settings now"


async def in_family(stage: Stage, family: str | None, **ways: Any) -> Record:
    """Handle a trace by a generator of this family, as the judge's settings have it."""
    members = a_generator("strong", family=family), a_generator("weak")
    prompt = stage.store.add_prompts([a_prompt("3+3=")])[0]
    assignment = stage.store.add_assignments([an_assignment(prompt, generators=members)])[0]
    trace = stage.store.add_traces([a_trace(assignment)])[0]
    model = {"name": "grader", "server": "local", "family": "llama"}
    settings = JudgeSettings.model_validate({"kind": "llm", "model": model, **ways})
    handler = replace(stage.handler, shares_family=settings.shares_family, refuses=settings.refuses)
    [event] = await handler.handle(trace)
    return event


@pytest.mark.parametrize(("family", "said"), [("Llama", True), ("qwen", False), (None, None)])
async def test_judgement_says_whether_a_judge_is_of_the_generators_family(
    stage: Stage, family: str | None, said: bool | None
) -> None:
    judgement = await in_family(stage, family)
    assert isinstance(judgement, Judgement)
    assert judgement.is_same_family is said


async def test_trace_of_a_judges_own_family_is_refused_where_the_settings_say_so(
    stage: Stage,
) -> None:
    failure = await in_family(stage, "llama", same_family="refuse")
    assert isinstance(failure, SlotFailed)
    assert failure.reason.startswith("strong and a judge are both of family llama (judge.same_fam")
    assert stage.judge.read == []
    assert isinstance(await in_family(stage, "llama"), SlotFailed), "the slot has ended"


async def test_trace_without_assignment_ends_its_slot_failed(stage: Stage) -> None:
    [stage.prompt] = stage.store.add_prompts([a_prompt("2+2=")])
    trace = stage.store.add_traces([a_trace(an_assignment(stage.prompt))])[0]
    assert await stage.refusal(trace) == "the trace has no assignment"


async def test_judgement_that_is_there_is_returned_without_judging(stage: Stage) -> None:
    trace = stage.store.add_traces([a_trace()])[0]
    judgement = stage.store.add_judgements([a_judgement(trace, judge_revision=PANEL)])[0]
    assert await stage.handler.handle(trace) == [judgement]
    assert stage.judge.read == []
    assert stage.num_found == 1


async def test_judgement_of_the_other_slot_is_not_taken_for_this_one(stage: Stage) -> None:
    first, second = (stage.store.add_traces([a_trace(slot=slot)])[0] for slot in (0, 1))
    stage.store.add_judgements([a_judgement(first, judge_revision=PANEL)])
    await stage.handler.handle(second)
    assert stage.judge.read == [second]
    assert stage.num_found is None


async def test_trace_of_a_slot_that_has_failed_is_not_judged(stage: Stage) -> None:
    trace = stage.store.add_traces([a_trace(slot=1)])[0]
    failure = stage.store.add_slot_failures([a_slot_failure(slot=1, reason="expired")])[0]
    assert await stage.handler.handle(trace) == [failure]
    assert stage.judge.read == []
    assert stage.num_found == 1


async def test_judgement_that_another_member_stored_first_is_the_one_returned(stage: Stage) -> None:
    trace = stage.store.add_traces([a_trace()])[0]
    earlier = a_judgement(trace, level=2.0, judge_revision=PANEL)

    def score(trace: Trace) -> Assessment:
        stage.store.add_judgements([earlier])
        return Assessment(scores=some_scores(5.0))

    stage.judge.score = score
    assert await stage.handler.handle(trace) == [earlier]


async def test_what_is_judged_is_the_stored_text_and_not_the_messages(stage: Stage) -> None:
    stored = stage.store.add_traces([a_trace(answer="stored")])[0]
    await stage.handler.handle(a_trace(answer="on the wire"))
    assert stage.judge.read == [stored]


async def test_killed_before_judging_it_judges_when_the_trace_comes_again(stage: Stage) -> None:
    trace = stage.store.add_traces([a_trace()])[0]
    stage.failpoints.act = die
    with pytest.raises(KilledError):
        await stage.handler.handle(trace)
    assert stage.failpoints.reached == [(Failpoint.JUDGING_RECEIVED, trace.trace_id)]
    assert stage.judge.read == []
    stage.failpoints.act = pass_by
    await stage.handler.handle(trace)
    assert held(stage.store, stage.prompt).ended_slots == {0}


@pytest.mark.parametrize(
    "trace", [a_trace(slot=1), a_trace(an_assignment(a_prompt("never submitted")))]
)
async def test_trace_that_the_store_does_not_hold_is_invalid(stage: Stage, trace: Trace) -> None:
    stage.store.add_traces([a_trace()])
    with pytest.raises(InvalidRecordError, match=f"holds no trace {trace.trace_id}"):
        await stage.handler.handle(trace)
    assert stage.judge.read == []
    assert held(stage.store, stage.prompt).ended_slots == set()


async def test_other_records_are_invalid_and_end_no_slot(stage: Stage) -> None:
    record: Record = a_prompt()
    with pytest.raises(InvalidRecordError, match="no use for a Prompt"):
        await stage.handler.handle(record)
    assert stage.handler.slot_ends(record, "refused", seconds(1)) == ()


async def test_trace_that_can_never_be_judged_ends_its_slot(stage: Stage) -> None:
    def refuse(trace: Trace) -> Assessment:
        raise InvalidRecordError("no judge can read this")

    trace = stage.store.add_traces([a_trace(slot=1)])[0]
    stage.judge.score = refuse
    with pytest.raises(InvalidRecordError, match="no judge can read this"):
        await stage.handler.handle(trace)
    [end] = stage.handler.slot_ends(trace, "no judge can read this", seconds(50))
    assert end == a_slot_failure(slot=1, reason="no judge can read this", failed_at=seconds(50))


def test_slot_that_ends_is_the_stored_traces_and_not_the_messages(stage: Stage) -> None:
    trace = stage.store.add_traces([a_trace(slot=1)])[0]
    claimed = trace.model_copy(update={"slot": 0})
    [end] = stage.handler.slot_ends(claimed, "refused", seconds(50))
    assert end == a_slot_failure(slot=1, reason="refused", failed_at=seconds(50))


def test_strangers_trace_ends_nothing(stage: Stage) -> None:
    assert stage.handler.slot_ends(a_trace(), "the store holds no trace", seconds(50)) == ()


async def test_strangers_trace_under_a_stored_id_ends_nothing(stage: Stage) -> None:
    trace = stage.store.add_traces([a_trace()])[0]
    other = add_asked(stage.store, a_prompt("2+2="))
    borrowed = trace.model_copy(update={"prompt_id": other.prompt_id})
    with pytest.raises(InvalidRecordError, match="holds no trace"):
        await stage.handler.handle(borrowed)
    assert stage.handler.slot_ends(borrowed, "the store holds no trace", seconds(50)) == ()
