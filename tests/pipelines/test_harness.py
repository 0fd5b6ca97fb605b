"""Asking through the port, and lm-eval's scoring of what comes back."""

import asyncio
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from deltawheel.contracts.errors import CycleError, InvalidRecordError, RetryLaterError
from deltawheel.contracts.evaluation import SuiteRole
from deltawheel.contracts.generator import Generator
from deltawheel.contracts.ports import ChatModel, Completion
from deltawheel.contracts.prompt import Message
from deltawheel.contracts.settings import EvaluationSettings
from deltawheel.contracts.trace import FinishReason
from deltawheel.pipelines import harness
from deltawheel.pipelines.harness import Answer, Asking, answer_suites
from deltawheel.pipelines.items import Item, Suite
from tests.pipelines.fakes import ScriptedModels, completion_of
from tests.records import a_generator

Reply = Callable[[Generator, str, int], str]


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


def an_asking(
    runner: asyncio.Runner,
    models: ChatModel,
    *,
    arm: str = "champion",
    seed: int = 1,
    concurrency: int = 8,
) -> Asking:
    return Asking(
        models=models,
        generator=a_generator(),
        arm=arm,
        seed=seed,
        concurrency=concurrency,
        runner=runner,
    )


def conversation(text: str) -> str:
    return json.dumps([{"role": "user", "content": text}])


def echo(generator: Generator, prompt: str, seed: int) -> str:
    return f"said {prompt}"


@dataclass(slots=True)
class ReversedModels:
    """Answers only when all `num_expected` requests wait, the last one first."""

    num_expected: int
    waiting: list[tuple[str, asyncio.Future[str]]] = field(default_factory=list)
    most_at_once: int = 0

    async def complete(
        self, generator: Generator, messages: Sequence[Message], *, seed: int
    ) -> Completion:
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.waiting.append((messages[-1].content, future))
        self.most_at_once = max(self.most_at_once, len(self.waiting))
        if len(self.waiting) == self.num_expected:
            asyncio.get_running_loop().call_soon(self._answer_one)
        return completion_of(await future)

    def _answer_one(self) -> None:
        text, future = self.waiting.pop()
        future.set_result(f"said {text}")
        if self.waiting:
            asyncio.get_running_loop().call_soon(self._answer_one)

    async def load(self, generator: Generator) -> None:
        return None

    async def aclose(self) -> None:
        return None


@dataclass(slots=True)
class RefusingModels:
    """A server that says of every request that it is wrong."""

    async def complete(
        self, generator: Generator, messages: Sequence[Message], *, seed: int
    ) -> Completion:
        raise InvalidRecordError("the prompt is longer than the model's context")

    async def load(self, generator: Generator) -> None:
        return None

    async def aclose(self) -> None:
        return None


@dataclass(slots=True)
class StuckModels:
    """The first request finds the server gone; all others wait for ever."""

    cancelled: list[str] = field(default_factory=list)
    num_asked: int = 0

    async def complete(
        self, generator: Generator, messages: Sequence[Message], *, seed: int
    ) -> Completion:
        self.num_asked += 1
        if messages[-1].content == "first":
            await asyncio.sleep(0)
            raise RetryLaterError("server local does not answer")
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.cancelled.append(messages[-1].content)
        raise AssertionError

    async def load(self, generator: Generator) -> None:
        return None

    async def aclose(self) -> None:
        return None


def test_each_item_repeat_and_arm_has_a_seed_of_its_own(runner: asyncio.Runner) -> None:
    conversations = [conversation(text) for text in ("a", "b", "a", "a", "b")]
    seeds: list[int] = []
    for arm, seed in (("champion", 1), ("candidate", 1), ("champion", 2)):
        models = ScriptedModels(echo)
        an_asking(runner, models, arm=arm, seed=seed).answers(conversations)
        seeds += models.seeds
    assert len(seeds) == len(set(seeds)) == 15
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_a_second_attempt_asks_with_the_same_seeds(runner: asyncio.Runner) -> None:
    conversations = [conversation(text) for text in ("a", "b", "a")]
    by_attempt = []
    for _ in range(2):
        models = ScriptedModels(echo)
        an_asking(runner, models).answers(conversations)
        by_attempt.append(sorted(models.seeds))
    assert by_attempt[0] == by_attempt[1]


def test_answers_keep_the_order_of_the_questions_however_they_return(
    runner: asyncio.Runner,
) -> None:
    texts = [str(number) for number in range(20)]
    asking = an_asking(runner, ReversedModels(num_expected=20), concurrency=20)
    assert asking.answers([conversation(text) for text in texts]) == [f"said {t}" for t in texts]


def test_no_more_is_asked_at_once_than_settings_allow(runner: asyncio.Runner) -> None:
    models = ReversedModels(num_expected=5)
    asking = an_asking(runner, models, concurrency=5)
    asking.answers([conversation(str(number)) for number in range(20)])
    assert models.most_at_once == 5


def test_a_lost_server_ends_the_asking_and_leaves_no_request_behind(
    runner: asyncio.Runner,
) -> None:
    models = StuckModels()
    asking = an_asking(runner, models, concurrency=3)
    with pytest.raises(RetryLaterError, match="does not answer"):
        asking.answers([conversation(text) for text in ("first", "second", "third", "fourth")])
    assert {"second", "third"} <= set(models.cancelled)
    assert len(models.cancelled) == models.num_asked - 1


def test_a_request_that_is_refused_for_ever_ends_the_cycle(runner: asyncio.Runner) -> None:
    with pytest.raises(CycleError, match=r"strong-r1 refuses an evaluation item: .* longer"):
        an_asking(runner, RefusingModels()).answers([conversation("a")])


def test_reasoning_and_answer_are_scored_as_one_text(runner: asyncio.Runner) -> None:
    class Thinking(ScriptedModels):
        async def complete(
            self, generator: Generator, messages: Sequence[Message], *, seed: int
        ) -> Completion:
            return Completion(
                reasoning="1+1=2;",
                answer="A:2",
                served_model="m",
                prompt_tokens=1,
                completion_tokens=1,
                finish_reason=FinishReason.STOP,
            )

    assert an_asking(runner, Thinking(echo)).answers([conversation("a")]) == ["1+1=2;A:2"]


def a_sample(
    item: Item, *, filter_name: str = "answer", is_right: bool = True
) -> dict[str, object]:
    return {
        "doc": {"item_id": item.item_id},
        "resps": [[f"A:{item.target}"]],
        "filtered_resps": [item.target],
        "exact_match": float(is_right),
        "filter": filter_name,
    }


ITEMS = tuple(Item.of(f"{number}?", str(number)) for number in range(4))
SUITE = Suite(name="own", role=SuiteRole.GUARD, items=ITEMS)


def test_marks_follow_the_items_not_the_order_in_which_they_were_scored() -> None:
    samples = [a_sample(item, is_right=item is ITEMS[2]) for item in reversed(ITEMS)]
    answers = harness._answers(SUITE, samples)
    assert [answer.item_id for answer in answers] == [item.item_id for item in ITEMS]
    assert [answer.is_correct for answer in answers] == [False, False, True, False]


@pytest.mark.parametrize(
    "samples",
    [
        [a_sample(item) for item in ITEMS[:3]],
        [*map(a_sample, ITEMS[:3]), a_sample(ITEMS[3], filter_name="none")],
        [*map(a_sample, ITEMS[:3]), a_sample(Item.of("another?", "4"))],
    ],
)
def test_a_missing_answer_is_an_error_and_never_a_wrong_answer(
    samples: list[dict[str, object]],
) -> None:
    with pytest.raises(CycleError, match="no result for 1 of 4 items of suite own"):
        harness._answers(SUITE, samples)


def answers_of(
    runner: asyncio.Runner,
    scratch: Path,
    suites: Sequence[Suite],
    models: ChatModel,
    **choices: str,
) -> dict[str, list[Answer]]:
    return answer_suites(
        suites, an_asking(runner, models), EvaluationSettings.model_validate(choices), scratch
    )


@pytest.mark.integration
@pytest.mark.parametrize(
    ("said", "extracted", "is_correct"),
    [
        ("A:7", "7", True),
        ("3+4=7;A:7", "7", True),
        ("A:1;no, A:7", "7", True),
        ("A:7;no, A:1", "1", False),
        ("A:-7", "-7", False),
        ("A:77", "77", False),
        ("7", "[no answer]", False),
        ("", "[no answer]", False),
        ("A:07", "07", False),
    ],
)
def test_the_answer_that_counts_is_the_one_stated_last(
    runner: asyncio.Runner, tmp_path: Path, said: str, extracted: str, is_correct: bool
) -> None:
    suite = Suite(name="own", role=SuiteRole.GUARD, items=(Item.of("3+4=", "7"),))
    models = ScriptedModels(lambda generator, prompt, seed: said)
    (answer,) = answers_of(runner, tmp_path, [suite], models)["own"]
    assert (answer.text, answer.extracted, answer.is_correct) == (said, extracted, is_correct)


@pytest.mark.integration
def test_every_suite_gets_its_own_marks_and_prompts_arrive_as_they_are(
    runner: asyncio.Runner, tmp_path: Path
) -> None:
    markup = "{{x}} {% y %} <b> é \u2028\n 𝟙"
    suites = [
        Suite(name="one", role=SuiteRole.GUARD, items=(*ITEMS, Item.of(markup, "5"))),
        Suite(name="two", role=SuiteRole.OUT_OF_DOMAIN, items=tuple(reversed(ITEMS))),
    ]
    heard: list[str] = []

    def reply(generator: Generator, prompt: str, seed: int) -> str:
        heard.append(prompt)
        return "A:5" if prompt == markup else f"A:{int(prompt[0]) % 2 and prompt[0]}"

    models = ScriptedModels(reply)
    answers = answers_of(runner, tmp_path, suites, models)
    assert sorted(heard) == sorted(item.prompt for suite in suites for item in suite.items)
    assert [answer.item_id for answer in answers["two"]] == [item.item_id for item in ITEMS[::-1]]
    assert [answer.is_correct for answer in answers["one"]] == [True, True, False, True, True]
    assert [answer.is_correct for answer in answers["two"]] == [True, False, True, True]
    assert len(set(models.seeds)) == 9, "the same prompt in two suites is asked with two seeds"


@pytest.mark.integration
@pytest.mark.parametrize("target", ["2026-01-31", "12:30:00", "1e3", "007", "true", "null", "{x}"])
def test_a_right_answer_is_right_whatever_it_looks_like(
    runner: asyncio.Runner, tmp_path: Path, target: str
) -> None:
    items = tuple(Item.of(f"Which one is number {number}?", target) for number in range(3))
    suite = Suite(name="own", role=SuiteRole.GUARD, items=items)
    models = ScriptedModels(lambda generator, prompt, seed: f"A:{target}")
    answers = answers_of(runner, tmp_path, [suite], models, answer_pattern=r"A:(\S+)")["own"]
    assert [answer.is_correct for answer in answers] == [True, True, True]


@pytest.mark.integration
def test_a_server_lost_under_lm_eval_scores_nothing(runner: asyncio.Runner, tmp_path: Path) -> None:
    models = ScriptedModels(echo, fail_after=2)
    with pytest.raises(RetryLaterError, match="does not answer"):
        answers_of(runner, tmp_path, [SUITE], models)


@pytest.mark.integration
def test_lm_eval_is_kept_offline_and_the_environment_comes_back(
    runner: asyncio.Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.delenv("HF_DATASETS_OFFLINE", raising=False)
    seen: list[str | None] = []

    def reply(generator: Generator, prompt: str, seed: int) -> str:
        seen.append(os.environ.get("HF_HUB_OFFLINE"))
        return "A:1"

    answers_of(runner, tmp_path, [SUITE], ScriptedModels(reply))
    assert set(seen) == {"1"}
    assert os.environ["HF_HUB_OFFLINE"] == "0"
    assert "HF_DATASETS_OFFLINE" not in os.environ
