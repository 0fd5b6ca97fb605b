"""Programs that tell right answers from wrong ones, each by its name."""

import time

import pytest

from deltawheel.contracts.errors import ConfigError
from deltawheel.contracts.settings import JudgeSettings
from deltawheel.infra.sandbox.grammar import Problem, render_solution
from deltawheel.infra.verifiers import open_verifier
from tests.records import a_prompt, a_trace


def verdict(name: str, answer: str, *, reference: str | None, text: str = "1+1=") -> bool | None:
    verifier = open_verifier(JudgeSettings(verifier=name))
    return verifier.verify(a_prompt(text, reference_answer=reference), a_trace(answer=answer))


def test_answers_are_compared_as_numbers_and_as_text() -> None:
    assert verdict("answer", "So it is 1,000.", reference="1000") is True
    assert verdict("answer", "So it is 1001.", reference="1000") is False
    assert verdict("answer", "paris.", reference="Paris") is True
    assert verdict("answer", "42", reference=None) is None


@pytest.mark.parametrize(
    "answer",
    [
        "The answer is (B).",
        "A looks right at first. But the correct answer: B",
        "(A) no\n(C) no\n(B)",
        "**B**",
        r"Thus \boxed{B}.",
        r"\boxed{\text{(B)}}",
        "A is wrong? Yes: Answer: B",
        "I choose option B",
        "The answer is B because the others are not.",
        "The answer is B. I am sure this choice is a good one.",
        "Option A is wrong and option C is wrong, so it must be B.",
        "The correct answer is (B), while option A is not.",
        r"\boxed{\textbf{B}}",
    ],
)
def test_letter_that_a_text_settles_on_is_found(answer: str) -> None:
    assert verdict("choice", answer, reference="(B)") is True


@pytest.mark.parametrize(
    "answer", ["The answer is C.", "", "Because of that.", "A", "BAD", "It is a bit unclear to me"]
)
def test_another_letter_or_none_is_wrong(answer: str) -> None:
    assert verdict("choice", answer, reference="B") is False


def test_article_and_pronoun_are_no_choices() -> None:
    assert verdict("choice", "The right option is a bit unclear to me", reference="A") is False
    assert verdict("choice", "The answer is A bit odd, so: answer: C", reference="A") is False
    assert verdict("choice", "The answer is A.", reference="A") is True


def test_reference_that_is_no_letter_is_no_choice() -> None:
    assert verdict("choice", "B", reference="Berlin") is None


def test_sandbox_recomputes_and_knows_only_its_own_problems() -> None:
    problem = Problem.parse("17+8*3=")
    right = render_solution(problem, is_stepwise=True)
    assert verdict("sandbox", right, reference=None, text=problem.text) is True
    assert verdict("sandbox", "A:1", reference=None, text=problem.text) is False
    assert verdict("sandbox", "A:25", reference=None, text="How much is 17 + 8?") is None


@pytest.mark.parametrize("name", ["answer", "choice"])
def test_long_text_is_verified_in_no_time(name: str) -> None:
    started_s = time.monotonic()
    verdict(name, "answer (" * 300_000, reference="B")
    assert time.monotonic() - started_s < 2


def test_unknown_name_says_which_there_are() -> None:
    with pytest.raises(ConfigError, match="installed are answer, choice, sandbox"):
        open_verifier(JudgeSettings(verifier="magic"))
