"""The models and judges of the bench: every prompt makes one pair, however they are asked."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from deltawheel.contracts.prompt import Message
from deltawheel.contracts.settings import Settings
from deltawheel.infra import wiring
from deltawheel.infra.chat_replies import Reply
from deltawheel.infra.stub_model_server import StubModelServer
from deltawheel.ops.bench.stream.graded import JUDGE_MODEL, graded_answers
from deltawheel.ops.bench.stream.instant import LARGE, SMALL, TEXTS, InstantJudge, InstantModels
from deltawheel.ops.bench.stream.world import World, prompt_bodies
from tests.records import a_generator, a_prompt, a_trace

RUBRIC = World(home=Path("nowhere"), over_http=True).settings().make_rubric()


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


async def test_judge_over_http_is_the_products_own_and_prefers_whom_the_one_in_process_prefers(
    tmp_path: Path,
) -> None:
    """One call a trace, and probabilities that are enough, so that none is asked for as votes."""
    stub = StubModelServer({JUDGE_MODEL: graded_answers()})
    prompt = a_prompt()
    settings = World(home=tmp_path, over_http=True).settings()
    async with (
        stub.running() as url,
        wiring.judge_on_trial(with_judge_at(settings, url), ignore) as judge,
    ):
        found = [
            await judge.assess(prompt, a_trace().model_copy(update={"answer": text}), RUBRIC)
            for text in (TEXTS[LARGE], TEXTS[SMALL])
        ]
    assert len(stub.asked("/chat/completions")) == 2
    for name in RUBRIC.dimensions:
        better, worse = (it.scores[name] for it in found)
        assert better.mean > worse.mean + 1
        assert [better.coverage, worse.coverage] == pytest.approx([1, 1])


def ignore(body: Mapping[str, Any], reply: Reply) -> None:
    """Watch nothing."""


def with_judge_at(settings: Settings, url: str) -> Settings:
    assert settings.judge.model is not None
    model = settings.judge.model.model_copy(update={"endpoint": url})
    judge = settings.judge.model_copy(update={"model": model})
    return settings.model_copy(update={"judge": judge})
