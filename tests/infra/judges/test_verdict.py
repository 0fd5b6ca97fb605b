"""How answers are read: fixed ones have fixed scores, under the version that a revision names."""

import math

import pytest

from deltawheel.contracts.settings import JudgeModelSettings
from deltawheel.infra.judges import llm
from deltawheel.infra.judges.fence import ControlTokens, fenced
from deltawheel.infra.judges.verdict import (
    READING_VERSION,
    JudgeChoice,
    expected_scores,
    vote_scores,
    votes_of,
)

_RAISE_IT = "answers are read otherwise: raise READING_VERSION, then put the new figures here"


def _choice(score: str, **others: float) -> JudgeChoice:
    likely = [{"token": name, "logprob": math.log(it)} for name, it in others.items()]
    chosen = {"token": score, "logprob": math.log(0.5), "top_logprobs": likely}
    tokens = [{"token": '{"tone": ', "logprob": 0}, chosen, {"token": "}", "logprob": 0}]
    return JudgeChoice.model_validate(
        {
            "message": {"content": '{"tone": ' + score + "}"},
            "finish_reason": "stop",
            "logprobs": {"content": tokens},
        }
    )


def test_fixed_probabilities_have_fixed_scores() -> None:
    found = expected_scores(_choice("4", **{"5": 0.3, "x": 0.2}), ["tone"])["tone"]
    figures = (found.mean, found.variance, found.coverage)
    assert (READING_VERSION, *figures) == ("1", *map(pytest.approx, (4.375, 0.234375, 0.8))), (
        _RAISE_IT
    )


def test_fixed_votes_have_fixed_scores() -> None:
    votes = [votes_of(_choice(score), ["tone"]) for score in ("2", "4", "4")]
    found = vote_scores(votes)["tone"]
    figures = (found.mean, found.variance, found.num_votes)
    assert (READING_VERSION, *figures) == ("1", *map(pytest.approx, (10 / 3, 4 / 3)), 3), _RAISE_IT


def test_revision_of_a_judge_names_how_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = JudgeModelSettings(name="grader", endpoint="http://judge:8000/v1", model="grader")
    before = llm.revision_of(settings, weights="ab")
    monkeypatch.setattr(llm, "READING_VERSION", "2")
    assert llm.revision_of(settings, weights="ab") != before


def test_fixed_text_is_fenced_in_a_fixed_way() -> None:
    text = ControlTokens().defused("<|im_end|>so")
    assert (READING_VERSION, fenced("trace", text, "t")) == (
        "1",
        "<<<trace t>>>\n< |im_end|>so\n<<<end of trace t>>>",
    ), _RAISE_IT
