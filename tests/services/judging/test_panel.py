"""The judges as the service asks them: who is waited for, and who is asked twice."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from deltawheel.contracts.errors import RetryLaterError
from deltawheel.contracts.ports import Assessment, Judge
from deltawheel.contracts.settings import Settings
from deltawheel.contracts.trace import Trace
from deltawheel.infra import wiring
from deltawheel.infra.clock import SystemRandom
from deltawheel.infra.failpoints import FileFailpoints
from deltawheel.infra.judges.jury import Jury
from deltawheel.infra.rubric_file import SHIPPED_RUBRIC, read_rubric
from deltawheel.infra.telemetry import PrometheusTelemetry
from deltawheel.services.judging.panel import open_panel
from deltawheel.services.runtime.dependencies import Dependencies
from deltawheel.services.runtime.entry import Parts
from tests.records import WHEEL, a_prompt, a_rubric, a_trace, an_assignment, some_scores
from tests.services.fakes import FakeClock, FakeJudge

ONE, TWO = ({"name": name, "server": "local"} for name in ("one", "two"))
LATER = timedelta(days=1)


def fail(trace: Trace) -> Assessment:
    raise RetryLaterError("busy")


class Bench:
    """Two judges of one revision, as a service with these settings asks them."""

    def __init__(self, home: Path, **judge: Any) -> None:
        settings = Settings(
            wheel=WHEEL,
            home=home,
            judge={"kind": "llm", "model": ONE, **judge},
            rubric=read_rubric(SHIPPED_RUBRIC),
        )
        clock, telemetry = FakeClock(at=a_trace().generated_at + LATER), PrometheusTelemetry()
        self.dependencies = Dependencies(
            clock=clock, random=SystemRandom(0), telemetry=telemetry, settings=settings.runtime
        )
        self.parts = Parts(
            service="judging",
            settings=settings,
            settings_file=home / "wheel.yaml",
            store=wiring.open_store(settings),
            clock=clock,
            random=SystemRandom(0),
            telemetry=telemetry,
            failpoints=FileFailpoints({}),
            dependencies=self.dependencies,
        )
        self.one, self.two = FakeJudge(name="one"), FakeJudge(name="two")
        self.two.score = lambda trace: Assessment(scores=some_scores(2.0))

        def opening(*, around: Callable[[Judge], Judge]) -> Judge:
            return Jury([around(self.one), around(self.two)], settings.judge.jury, clock)

        self.judge = open_panel(opening, settings.judge, self.parts, remembers=True)

    async def assess(self, number: int = 0, slot: int = 0) -> Assessment:
        prompt = a_prompt(f"{number}+2=")
        trace = a_trace(an_assignment(prompt), slot, answer="2")
        return await self.judge.assess(prompt, trace, a_rubric())


@pytest.fixture
def open_bench(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    opened: list[Bench] = []

    def bench(**jury: Any) -> Bench:
        opened.append(Bench(tmp_path, jury={"members": [TWO], **jury}))
        return opened[-1]

    yield bench
    for each in opened:
        each.parts.store.close()


async def test_same_text_is_judged_once_by_each_and_their_scores_are_told_apart(
    open_bench: Callable[..., Bench],
) -> None:
    bench = open_bench()
    assert bench.one.revision == bench.two.revision
    for slot in (0, 1):
        found = await bench.assess(slot=slot)
        assert found.scores == some_scores(4.0)
        assert [it.scores for it in found.opinions] == [some_scores(4.0), some_scores(2.0)]
    assert (len(bench.one.read), len(bench.two.read)) == (1, 1)


async def test_further_judge_that_is_down_costs_its_opinion_and_stops_nothing(
    open_bench: Callable[..., Bench],
) -> None:
    bench = open_bench()
    bench.two.score = fail
    for number in range(12):
        found = await bench.assess(number)
        assert found.scores == some_scores(4.0)
        assert found.opinions[1].scores == {}
    assert "circuit breaker is open" in (found.opinions[1].fault or "")
    assert bench.dependencies.is_down("judge:two")
    assert not bench.dependencies.is_down("judge:one")
    assert bench.dependencies.blocked_s() is None
    assert len(bench.two.read) == bench.parts.settings.runtime.breaker_failures


async def test_what_is_known_is_neither_stopped_by_an_open_breaker_nor_closes_it(
    open_bench: Callable[..., Bench],
) -> None:
    bench = open_bench(combine="mean")
    known = await bench.assess()
    bench.two.score = fail
    for number in range(1, 1 + bench.parts.settings.runtime.breaker_failures):
        assert await bench.assess(slot=1) == known
        with pytest.raises(RetryLaterError, match="busy"):
            await bench.assess(number)
    assert bench.dependencies.is_down("judge:two")
    assert await bench.assess(slot=1) == known
    assert bench.dependencies.is_down("judge:two")


@pytest.mark.parametrize(("combine", "failing"), [("first", "one"), ("mean", "two")])
async def test_nothing_goes_on_without_a_judge_whose_score_counts(
    open_bench: Callable[..., Bench], combine: str, failing: str
) -> None:
    bench = open_bench(combine=combine)
    getattr(bench, failing).score = fail
    for number in range(bench.parts.settings.runtime.breaker_failures):
        with pytest.raises(RetryLaterError, match="busy") as caught:
            await bench.assess(number)
        assert caught.value.dependency == f"judge:{failing}"
    assert bench.dependencies.blocked_s() is not None
