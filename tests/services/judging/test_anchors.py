"""The judge is judged: on a schedule, by one member, and compared with what it once scored."""

import asyncio
import itertools
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from deltawheel.contracts.anchor_runs import AnchorVerdict
from deltawheel.contracts.anchors import AnchorCase
from deltawheel.contracts.errors import InvalidRecordError, RetryLaterError
from deltawheel.contracts.judgement import Score
from deltawheel.contracts.ports import Assessment
from deltawheel.contracts.trace import Trace
from deltawheel.infra.clock import SystemRandom
from deltawheel.infra.store.store import SqlStore
from deltawheel.infra.telemetry import PrometheusTelemetry
from deltawheel.services.judging.anchors import AnchorWatch
from tests.records import JUDGE, WHEEL, a_rubric, some_scores
from tests.services.fakes import FakeClock, FakeJudge, metric

RUBRIC = a_rubric()
CASE = AnchorCase(
    name="sum",
    task="1+1=",
    right_answer="2",
    solution="It is 2.",
    paraphrase=None,
    corrupted={"factuality": "It is 3.", "tone": "It is 2, you fool."},
)


class Stage:
    """A member of judging, and what it can be told about its judge."""

    def __init__(self, store: SqlStore) -> None:
        self.store = store
        self.judge = FakeJudge()
        self.clock = FakeClock()
        self.telemetry = PrometheusTelemetry()
        self.watch = self.member()

    def member(self) -> AnchorWatch:
        return AnchorWatch(
            store=self.store,
            judge=self.judge,
            rubric=RUBRIC,
            cases=[CASE],
            wheel=WHEEL,
            limit=0.25,
            interval_s=3_600,
            clock=self.clock,
            random=SystemRandom(0),
            telemetry=self.telemetry,
        )

    def scores(self, level: Callable[[Trace], float]) -> None:
        self.judge.score = lambda trace: Assessment(scores=some_scores(level(trace)))

    @property
    def verdicts(self) -> list[AnchorVerdict]:
        return [entry.run.verdict for entry in self.store.anchor_runs(9)]

    @property
    def is_drifted(self) -> float | None:
        return metric(self.telemetry, "deltawheel_judge_drifted", judge="judge")


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with closing(SqlStore(f"sqlite:///{tmp_path / 'store.db'}", wheel=WHEEL)) as store:
        yield Stage(store)


async def test_first_look_judges_a_baseline_three_times_and_calibrates_by_it(stage: Stage) -> None:
    turns = iter([1.0, 3.0, 2.0, 4.0, 4.0, 4.0])
    stage.scores(lambda trace: next(turns))
    assert await stage.watch.look() == []
    [entry] = stage.store.anchor_runs(9)
    assert (entry.run.num_repeats, entry.run.verdict) == (3, AnchorVerdict.BASELINE)
    assert sorted(each["factuality"] for each in entry.run.scores.values()) == [2.0, 4.0]
    assert {trace.answer for trace in stage.judge.read} == {"It is 2.", "It is 3."}
    assert len({trace.trace_id for trace in stage.judge.read}) == 6
    known = stage.store.newest_calibration(JUDGE, RUBRIC.digest)
    assert known is not None
    assert known.variances["factuality"] == pytest.approx((1 + 1) / 4)
    assert stage.is_drifted == 0


async def test_baseline_leaves_a_calibration_that_is_there(stage: Stage) -> None:
    await stage.watch.look()
    first = stage.store.newest_calibration(JUDGE, RUBRIC.digest)
    assert first is not None
    stage.clock.move(10)
    stage.watch.cases = [replace(CASE, name="other")]
    await stage.watch.run()
    assert stage.store.newest_calibration(JUDGE, RUBRIC.digest) == first


async def test_anchors_are_judged_when_they_are_due_and_not_before(stage: Stage) -> None:
    await stage.watch.look()
    stage.clock.move(3_599)
    await stage.watch.look()
    assert stage.verdicts == [AnchorVerdict.BASELINE]
    stage.clock.move(1)
    await stage.watch.look()
    assert stage.verdicts == [AnchorVerdict.STEADY, AnchorVerdict.BASELINE]
    assert len(stage.judge.read) == 3 * 2 + 2


async def test_judge_that_moves_is_found_and_shown_until_it_comes_back(stage: Stage) -> None:
    await stage.watch.look()
    stage.scores(lambda trace: 4.5)
    stage.clock.move(3_600)
    await stage.watch.look()
    assert stage.verdicts[0] is AnchorVerdict.DRIFTED
    shift = metric(
        stage.telemetry, "deltawheel_anchor_shift", judge="judge", dimension="factuality"
    )
    assert (stage.is_drifted, shift) == (1, 0.5)
    stage.scores(lambda trace: 4.0)
    stage.clock.move(3_600)
    await stage.watch.look()
    assert (stage.verdicts[0], stage.is_drifted) == (AnchorVerdict.STEADY, 0)


async def test_baseline_shows_no_shift(stage: Stage) -> None:
    await stage.watch.look()
    shift = metric(stage.telemetry, "deltawheel_anchor_shift", judge="judge", dimension="tone")
    first, *_ = RUBRIC.dimensions
    shown = metric(stage.telemetry, "deltawheel_anchor_shift", judge="judge", dimension=first)
    assert (shift, shown) == (None, 0)


async def test_drift_is_shown_after_a_baseline_of_other_texts(stage: Stage) -> None:
    await stage.watch.look()
    stage.scores(lambda trace: 4.5)
    stage.clock.move(3_600)
    await stage.watch.look()
    stage.watch.cases = [replace(CASE, name="other")]
    stage.clock.move(3_600)
    await stage.watch.look()
    assert (stage.verdicts[0], stage.is_drifted) == (AnchorVerdict.BASELINE, 1)


async def test_accepted_level_is_shown_as_no_drift(stage: Stage) -> None:
    await stage.watch.look()
    stage.scores(lambda trace: 4.5)
    stage.clock.move(3_600)
    await stage.watch.look()
    [newest, _] = stage.store.anchor_runs(2)
    stage.store.accept_anchor_run(newest.run.run_id, by="ann", reason="ok", at=stage.clock.now())
    await stage.watch.look()
    assert stage.is_drifted == 0


async def test_judge_of_another_revision_has_a_baseline_of_its_own(stage: Stage) -> None:
    await stage.watch.look()
    stage.judge.revision = "judge@2"
    stage.scores(lambda trace: 1.0)
    await stage.watch.look()
    assert stage.verdicts == [AnchorVerdict.BASELINE] * 2


async def test_one_member_judges_and_the_others_show(stage: Stage) -> None:
    def other_looks(trace: Trace) -> Assessment:
        assert not stage.store.acquire_lease(
            "anchors", token="other", at=stage.clock.now(), until=stage.clock.now()
        )
        return Assessment(scores=some_scores())

    stage.judge.score = other_looks
    await stage.watch.look()
    other = stage.member()
    await other.look()
    assert len(stage.verdicts) == 1


async def test_members_that_look_together_judge_once(stage: Stage) -> None:
    await asyncio.gather(*(stage.member().look() for _ in range(4)))
    assert stage.verdicts == [AnchorVerdict.BASELINE]


async def test_judge_that_is_away_leaves_the_anchors_due(stage: Stage) -> None:
    def away(trace: Trace) -> Assessment:
        raise RetryLaterError("the judge is away")

    stage.judge.score = away
    with pytest.raises(RetryLaterError, match="the judge is away"):
        await stage.watch.look()
    assert stage.verdicts == []
    stage.scores(lambda trace: 3.0)
    await stage.member().look()
    assert stage.verdicts == [AnchorVerdict.BASELINE]


async def test_text_that_cannot_be_judged_is_left_out_and_none_at_all_is_told(stage: Stage) -> None:
    def choosy(trace: Trace) -> Assessment:
        if trace.answer == "It is 3.":
            raise InvalidRecordError("too long")
        return Assessment(scores={name: Score(mean=4.0) for name in RUBRIC.dimensions})

    stage.judge.score = choosy
    run = await stage.watch.run()
    assert [key.partition("#")[0] for key in run.scores] == ["sum/solution"]
    stage.watch.cases = [replace(CASE, solution="It is 3.", corrupted={})]
    with pytest.raises(RetryLaterError, match="none of the anchors: name cases that it can"):
        await stage.watch.run()


async def test_answer_that_cannot_be_read_is_asked_for_again(stage: Stage) -> None:
    turns = itertools.count()

    def clumsy(trace: Trace) -> Assessment:
        if next(turns) % 2:
            raise RetryLaterError("no JSON")
        return Assessment(scores=some_scores())

    stage.judge.score = clumsy
    run = await stage.watch.run()
    assert (len(run.scores), run.num_left_out) == (2, 0)


async def test_text_without_a_usable_answer_is_left_out_and_counted(stage: Stage) -> None:
    def odd(trace: Trace) -> Assessment:
        if trace.answer == "It is 3.":
            raise RetryLaterError("no JSON")
        return Assessment(scores=some_scores())

    stage.judge.score = odd
    run = await stage.watch.run()
    assert ([key.partition("#")[0] for key in run.scores], run.num_left_out) == (
        ["sum/solution"],
        1,
    )
    stage.watch.cases = [replace(CASE, solution="It is 3.", corrupted={})]
    with pytest.raises(RetryLaterError, match="1 of 1 anchors have no usable answer: no JSON"):
        await stage.watch.run()


async def test_server_that_is_away_for_one_text_ends_the_run(stage: Stage) -> None:
    def away(trace: Trace) -> Assessment:
        if trace.answer == "It is 3.":
            raise RetryLaterError("connection refused", dependency="judge")
        return Assessment(scores=some_scores())

    stage.judge.score = away
    with pytest.raises(RetryLaterError, match="connection refused"):
        await stage.watch.run()
    assert stage.verdicts == []


def test_tick_is_shorter_than_the_interval(stage: Stage) -> None:
    assert (stage.watch.tick.name, stage.watch.tick.interval_s) == ("anchors", 60)
