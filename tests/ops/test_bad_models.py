"""Models that misbehave, in a running wheel: each has its end, with its reason, and loses nothing.

What another model's answer under the same name does is in `test_pool_changes`.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from deltawheel.contracts.outcome import Outcome, UnpairedCause
from deltawheel.contracts.prompt import PromptKey
from deltawheel.contracts.rubric import PAPER_DIMENSIONS
from deltawheel.contracts.store import Group
from deltawheel.infra.stub_model_server import FAULTS, StubAnswer, StubFault, StubModelServer
from tests.servers import stub_in_thread
from tests.waiting import wait_for
from tests.wheels import Wheel, running_up

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

HALF = '{"model": "doubles", "choices": [{"message": {"content": "4'
TWO = json.dumps({"model": "doubles", "choices": 2 * [{"message": {"content": "4"}}]})


@dataclass
class Stage:
    """A wheel of two generators and a judge; `guest` and `judge` do what a test tells them."""

    wheel: Wheel
    guest: StubModelServer
    judge: StubModelServer
    num_asked: int = 0

    def ask(self, number: int = 4) -> list[Group]:
        """Submit new prompts, wait for their outcomes, and return what the store holds of them."""
        first, self.num_asked = self.num_asked, self.num_asked + number
        texts = (f"How much is {n} + {n}?" for n in range(first, self.num_asked))
        ids = self.wheel.submit([{"text": text} for text in texts])
        self.wheel.drained(timeout_s=120)
        return list(self.wheel.store.groups([PromptKey(it, 0) for it in ids]).values())


def always(score: int) -> str:
    return json.dumps(dict.fromkeys(PAPER_DIMENSIONS, score))


def by_writer(question: str) -> str:
    return always(2 if "may be" in question else 4)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with (
        stub_in_thread("guesses") as (_, other_url),
        stub_in_thread("doubles") as (guest, guest_url),
        stub_in_thread() as (judge, judge_url),
    ):
        judge.models["grader"] = by_writer
        votes = {"mode": "votes", "min_votes": 2, "max_votes": 2}
        grader = {"name": "grader", "endpoint": judge_url, "model": "grader", "revision": "1"}
        settings: dict[str, Any] = {
            "servers": [],
            "training": {"is_enabled": False},
            "generators": [
                {"name": "guest", "endpoint": guest_url, "model": "doubles", "capability": 1},
                {"name": "other", "endpoint": other_url, "model": "guesses", "capability": 0},
            ],
            "generation": {"request_timeout_s": 2, "health_interval_s": 0},
            "judge": {"kind": "llm", "model": {**grader, **votes}},
            "anchors": {"interval_s": 0},
        }
        home = tmp_path_factory.mktemp("bad-models") / "home"
        with running_up(home, settings) as wheel:
            yield Stage(wheel, guest, judge)


@pytest.fixture
def stage(running: Stage) -> Iterator[Stage]:
    yield running
    running.guest.fault, running.guest.latency_s = None, 0.0
    running.guest.models["doubles"] = lambda asked: "That makes it."
    running.judge.models["grader"] = by_writer
    audit = running.wheel.cli("audit")
    assert (audit["is_clean"], audit["in_flight"]) == (True, 0)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (FAULTS["garbage"], "answered with something that is no chat completion"),
        (StubFault(status=200, body=HALF), "answered with something that is no chat completion"),
        (StubFault(status=200, body=TWO), "answered with something that is no chat completion"),
        (FAULTS["refused"], "refuses the request"),
    ],
    ids=["garbage", "half a JSON", "two choices", "refused"],
)
def test_answer_of_no_use_ends_the_slot_with_its_reason(
    stage: Stage, fault: StubFault, reason: str
) -> None:
    stage.guest.fault = fault
    assert_guest_failed(stage.ask(), reason)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (StubAnswer(content=""), "wrote nothing"),
        (StubAnswer(content="<think></think>"), "wrote nothing"),
        (StubAnswer(content="so " * 700_000), "broker.max_message_bytes"),
        (StubAnswer(content="so far", finish_reason="length"), "cut off"),
    ],
    ids=["empty", "empty thoughts", "2 MB", "cut off"],
)
def test_text_of_no_use_ends_the_slot_with_its_reason(
    stage: Stage, answer: StubAnswer, reason: str
) -> None:
    stage.guest.models["doubles"] = lambda asked: answer
    assert_guest_failed(stage.ask(), reason)


def assert_guest_failed(groups: list[Group], reason: str) -> None:
    for group in groups:
        [failure] = group.slot_failures
        assert reason in failure.reason
        assert group.closing is not None
        assert group.closing.cause is UnpairedCause.SINGLE_SURVIVOR


def test_server_that_hangs_costs_time_and_no_prompt(stage: Stage) -> None:
    stage.guest.latency_s = 60
    ids = stage.wheel.submit([{"text": "How much is 901 + 901?"}])
    wait_for(
        lambda: stage.wheel.metric(
            "generation", "deltawheel_model_requests_total", generator="guest", result="retry"
        ),
        what="it was not waited for any longer",
    )
    stage.guest.latency_s = 0.0
    stage.wheel.drained(timeout_s=120)
    [group] = stage.wheel.store.groups([PromptKey(ids[0], 0)]).values()
    assert group.closing is not None
    assert group.closing.outcome is Outcome.PAIRED


def test_judge_that_says_the_same_of_everything_makes_ties_and_no_pairs(stage: Stage) -> None:
    stage.judge.models["grader"] = lambda asked: always(5)
    for group in stage.ask():
        assert group.closing is not None
        assert group.closing.cause is UnpairedCause.TIE


def test_judge_of_no_use_is_asked_again_until_it_is_of_some(stage: Stage) -> None:
    stage.judge.models["grader"] = lambda asked: "I would rather not."
    ids = stage.wheel.submit([{"text": "How much is 902 + 902?"}])
    wait_for(
        lambda: stage.wheel.metric("judging", "deltawheel_retries_total"), what="it is asked again"
    )
    stage.judge.models["grader"] = by_writer
    stage.wheel.drained(timeout_s=120)
    [group] = stage.wheel.store.groups([PromptKey(ids[0], 0)]).values()
    assert group.closing is not None
    assert group.closing.outcome is Outcome.PAIRED
