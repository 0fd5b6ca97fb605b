"""Ports behind breakers: who is asked, and what counts as an answer."""

import asyncio
from collections.abc import Callable

import pytest

from deltawheel.contracts.errors import ForeignModelError, InvalidRecordError, RetryLaterError
from deltawheel.contracts.generator import Generator
from deltawheel.contracts.ports import Assessment, Completion
from deltawheel.contracts.settings import RuntimeSettings
from deltawheel.contracts.trace import Trace
from deltawheel.infra.clock import SystemRandom
from deltawheel.infra.telemetry import PrometheusTelemetry
from deltawheel.services.runtime.dependencies import Dependencies
from deltawheel.services.runtime.guards import GuardedChatModel, GuardedJudge
from tests.records import a_generator, a_prompt, a_rubric, a_trace, some_scores
from tests.services.fakes import FakeClock, FakeJudge, FakeModels, a_completion

NUM_FAILURES = 3
HERE = a_generator("strong").model_copy(update={"endpoint": "server:local"})
BESIDE = a_generator("mid").model_copy(update={"endpoint": "server:local"})
THERE = a_generator("weak").model_copy(update={"endpoint": "http://me:secret@gpu-1:8000/v1/"})


@pytest.fixture
def dependencies() -> Dependencies:
    return Dependencies(
        clock=FakeClock(),
        random=SystemRandom(0),
        telemetry=PrometheusTelemetry(),
        settings=RuntimeSettings(breaker_failures=NUM_FAILURES),
    )


def down(_: Generator) -> Completion:
    raise RetryLaterError("503")


def refused(_: Generator) -> Completion:
    raise InvalidRecordError("too long")


def guarded(
    dependencies: Dependencies, answer: Callable[[Generator], Completion]
) -> tuple[GuardedChatModel, FakeModels]:
    models = FakeModels(answer=answer)
    return GuardedChatModel(models, dependencies), models


async def ask(models: GuardedChatModel, generator: Generator = HERE) -> Completion:
    return await models.complete(generator, a_prompt().messages, seed=1)


async def fail(models: GuardedChatModel, generator: Generator = HERE) -> RetryLaterError:
    with pytest.raises(RetryLaterError) as caught:
        await ask(models, generator)
    return caught.value


async def test_server_that_is_down_is_not_asked_again_and_again(dependencies: Dependencies) -> None:
    models, inner = guarded(dependencies, down)
    for _ in range(NUM_FAILURES):
        assert (await fail(models)).dependency == "server:local"
    error = await fail(models)
    assert len(inner.asked) == NUM_FAILURES
    assert error.dependency == "server:local"
    assert error.retry_after_s
    assert dependencies.blocked_s() is not None


async def test_generators_of_one_server_share_its_breaker_and_others_have_their_own(
    dependencies: Dependencies,
) -> None:
    models, inner = guarded(dependencies, down)
    await fail(models, THERE)
    for generator in (HERE, BESIDE, HERE, BESIDE):
        await fail(models, generator)
    assert len(inner.asked) == NUM_FAILURES + 1
    assert dependencies.breakers.open() == {"server:local"}
    assert dependencies.blocked_s() is None


async def test_server_of_a_generator_that_is_dealt_to_counts_before_it_is_asked(
    dependencies: Dependencies,
) -> None:
    models, _ = guarded(dependencies, down)
    models.expect([HERE, THERE])
    for _ in range(NUM_FAILURES):
        await fail(models)
    assert dependencies.blocked_s() is None
    models.expect([HERE, BESIDE])
    assert dependencies.blocked_s() is not None


async def test_password_of_an_endpoint_is_in_no_name(dependencies: Dependencies) -> None:
    models, _ = guarded(dependencies, down)
    assert (await fail(models, THERE)).dependency == "http://me:***@gpu-1:8000/v1"


async def test_probe_that_succeeds_lets_everybody_ask_again(dependencies: Dependencies) -> None:
    answers = [down] * NUM_FAILURES + [lambda _: a_completion()] * 2
    models, _ = guarded(dependencies, lambda generator: answers.pop(0)(generator))
    for _ in range(NUM_FAILURES):
        await fail(models)
    clock = dependencies.clock
    clock.wait(dependencies.wait_s("server:local"))
    assert await ask(models) == a_completion()
    assert await ask(models) == a_completion()
    assert dependencies.breakers.open() == frozenset()


async def test_refusal_of_a_request_is_an_answer(dependencies: Dependencies) -> None:
    answers = [down] * (NUM_FAILURES - 1) + [refused] + [down] * (NUM_FAILURES - 1)
    models, _ = guarded(dependencies, lambda generator: answers.pop(0)(generator))
    for _ in range(NUM_FAILURES - 1):
        await fail(models)
    with pytest.raises(InvalidRecordError):
        await ask(models)
    for _ in range(NUM_FAILURES - 1):
        await fail(models)
    assert dependencies.breakers.open() == frozenset()


async def test_fault_of_ours_says_nothing_about_the_server(dependencies: Dependencies) -> None:
    def crash(_: Generator) -> Completion:
        raise ZeroDivisionError

    models, _ = guarded(dependencies, crash)
    for _ in range(2 * NUM_FAILURES):
        with pytest.raises(ZeroDivisionError):
            await ask(models)
    assert dependencies.breakers.open() == frozenset()
    assert dependencies.breakers.of("server:local").num_successes == 0


async def test_loading_counts_like_asking(dependencies: Dependencies) -> None:
    models, inner = guarded(dependencies, down)
    inner.loading = down
    for _ in range(NUM_FAILURES):
        with pytest.raises(RetryLaterError):
            await models.load(HERE)
    await fail(models)
    assert inner.asked == []


@pytest.mark.parametrize("error", [RetryLaterError, TimeoutError])
async def test_judge_that_is_down_stops_everything(
    dependencies: Dependencies, error: type[Exception]
) -> None:
    def away(_: Trace) -> Assessment:
        raise error("no answer")

    inner = FakeJudge(score=away)
    judge = GuardedJudge(inner, dependencies)
    for _ in range(NUM_FAILURES + 2):
        with pytest.raises(RetryLaterError) as caught:
            await judge.assess(a_prompt(), a_trace(), a_rubric())
        assert caught.value.dependency == "judge:judge"
    assert len(inner.read) == NUM_FAILURES
    assert dependencies.blocked_s() is not None


async def test_judge_that_answers_is_what_it_is(dependencies: Dependencies) -> None:
    judge = GuardedJudge(FakeJudge(), dependencies)
    assert (judge.name, judge.revision) == ("judge", FakeJudge().revision)
    assessment = await judge.assess(a_prompt(), a_trace(), a_rubric())
    assert assessment == Assessment(scores=some_scores())
    assert dependencies.breakers.of("judge:judge").num_successes == 1


async def test_probe_goes_past_an_open_breaker_and_its_answer_closes_it(
    dependencies: Dependencies,
) -> None:
    models, inner = guarded(dependencies, down)
    for _ in range(NUM_FAILURES):
        await fail(models)
    await models.probe(HERE)
    assert inner.loaded == [HERE]
    assert not dependencies.is_down("server:local")


async def test_probe_that_fails_counts_for_no_breaker(dependencies: Dependencies) -> None:
    models, inner = guarded(dependencies, down)

    def refuse(_: Generator) -> None:
        raise RetryLaterError("503")

    inner.loading = refuse
    for _ in range(2 * NUM_FAILURES):
        with pytest.raises(RetryLaterError, match="503"):
            await models.probe(HERE)
    assert not dependencies.is_down("server:local")
    for _ in range(NUM_FAILURES - 1):
        await fail(models)
    assert not dependencies.is_down("server:local")


async def test_foreign_models_answer_opens_no_breaker(dependencies: Dependencies) -> None:
    def foreign(_: Generator) -> Completion:
        raise ForeignModelError("another answered")

    models, _ = guarded(dependencies, foreign)
    for _ in range(2 * NUM_FAILURES):
        with pytest.raises(ForeignModelError):
            await ask(models)
    assert not dependencies.is_down("server:local")
    breaker = dependencies.breakers.find("server:local")
    assert breaker is None or breaker.num_successes == 0


async def test_judge_for_whom_another_model_answers_is_down(dependencies: Dependencies) -> None:
    def foreign(_: Trace) -> Assessment:
        raise ForeignModelError("another answered")

    judge = GuardedJudge(FakeJudge(score=foreign), dependencies)
    for _ in range(NUM_FAILURES):
        with pytest.raises(ForeignModelError):
            await judge.assess(a_prompt(), a_trace(), a_rubric())
    assert dependencies.is_down("judge:judge")


async def test_generator_is_asked_no_more_at_once_than_it_may_be(
    dependencies: Dependencies,
) -> None:
    models, inner = guarded(dependencies, lambda _: a_completion())
    limited = HERE.model_copy(update={"max_in_flight": 2})
    asking = [asyncio.create_task(ask(models, limited)) for _ in range(5)]
    await asyncio.sleep(0)
    assert len(inner.asked) == 2
    await asyncio.gather(*asking)
    assert len(inner.asked) == 5


async def test_store_that_is_away_is_no_fault_of_the_judge(dependencies: Dependencies) -> None:
    def away(trace: Trace) -> Assessment:
        raise RetryLaterError("locked", dependency="store")

    judge = GuardedJudge(FakeJudge(score=away), dependencies)
    for _ in range(NUM_FAILURES + 1):
        with pytest.raises(RetryLaterError) as caught:
            await judge.assess(a_prompt(), a_trace(), a_rubric())
    assert caught.value.dependency == "store"
    assert not dependencies.is_down("judge:judge")
