"""The models and judges of the bench: every prompt makes one pair, however they are asked."""

from collections.abc import Sequence

import pytest

from deltawheel.contracts.errors import RetryLaterError
from deltawheel.contracts.generator import Generator
from deltawheel.contracts.ports import Completion
from deltawheel.contracts.prompt import Message
from deltawheel.contracts.rubric import Rubric
from deltawheel.contracts.trace import FinishReason
from deltawheel.ops.bench.stream.http_judge import HttpJudge, judge_answer
from deltawheel.ops.bench.stream.instant import LARGE, SMALL, TEXTS, InstantJudge, InstantModels
from deltawheel.ops.bench.stream.world import prompt_bodies
from tests.records import a_generator, a_prompt, a_trace

RUBRIC = Rubric()


class Answering:
    """Answers whatever it is told to, and keeps what it was asked."""

    def __init__(self, answer: str | None = None) -> None:
        self.answer = answer
        self.asked: list[Sequence[Message]] = []

    async def complete(
        self, generator: Generator, messages: Sequence[Message], *, seed: int
    ) -> Completion:
        self.asked.append(messages)
        question = messages[-1].content
        answer = judge_answer(question, RUBRIC) if self.answer is None else self.answer
        return Completion(
            reasoning="",
            answer=answer,
            served_model=generator.model,
            prompt_tokens=1,
            completion_tokens=1,
            finish_reason=FinishReason.STOP,
        )

    async def load(self, generator: Generator) -> None:
        raise AssertionError("no adapter here")

    async def aclose(self) -> None:
        """Hold nothing."""


def test_no_two_prompts_are_alike() -> None:
    texts = [body["text"] for body in [*prompt_bodies(0, 300), *prompt_bodies(300, 300)]]
    assert len(set(texts)) == 600


async def test_models_write_their_own_text() -> None:
    models = InstantModels()
    messages = [Message(role="user", content="1+1=")]
    answers = [
        await models.complete(a_generator(name), messages, seed=1) for name in (LARGE, SMALL)
    ]
    assert [answer.answer for answer in answers] == [TEXTS[LARGE], TEXTS[SMALL]]


async def test_judge_never_ties_on_any_dimension() -> None:
    judge, prompt = InstantJudge(), a_prompt()
    scores = [
        (await judge.assess(prompt, trace.model_copy(update={"generator": name}), RUBRIC)).scores
        for name, trace in ((LARGE, a_trace(slot=0)), (SMALL, a_trace(slot=1)))
    ]
    assert scores[0].keys() == RUBRIC.dimensions.keys()
    assert all(scores[0][name].mean > scores[1][name].mean for name in RUBRIC.dimensions)


async def test_judge_over_http_finds_what_the_one_in_process_finds() -> None:
    prompt = a_prompt()
    for name in (LARGE, SMALL):
        written = {"generator": name, "answer": TEXTS[name]}
        trace = a_trace(slot=0).model_copy(update=written)
        models = Answering()
        asked = await HttpJudge(models, endpoint="http://stub/v1").assess(prompt, trace, RUBRIC)
        assert asked == await InstantJudge().assess(prompt, trace, RUBRIC)
        assert len(models.asked) == 1  # one call a trace, for all dimensions
        assert all(dimension in models.asked[0][0].content for dimension in RUBRIC.dimensions)


@pytest.mark.parametrize("answer", ["no JSON", "[1, 2]", '{"factuality": 9}', "7"])
async def test_answer_without_scores_is_asked_again(answer: str) -> None:
    prompt = a_prompt()
    judge = HttpJudge(Answering(answer), endpoint="http://stub/v1")
    with pytest.raises(RetryLaterError, match="holds no scores"):
        await judge.assess(prompt, a_trace(slot=0), RUBRIC)
