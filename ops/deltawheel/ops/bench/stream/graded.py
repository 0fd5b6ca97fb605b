"""What the stub server answers the product's own judge: an object of scores, with probabilities.

Every token comes with twenty alternatives, as vLLM gives them, for reading these is a part of what
a judgement costs.
"""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from deltawheel.contracts.rubric import SCORES, Rubric
from deltawheel.infra.stub_model_server import StubAnswer
from deltawheel.ops.bench.stream.instant import LARGE, SMALL, TEXTS

__all__ = ["JUDGE_MODEL", "graded_answers"]

JUDGE_MODEL: Final = "judge"

_LIKELY: Final[Mapping[str, str]] = {LARGE: "5", SMALL: "2"}
"""The likeliest score of each writer's traces."""
_LIKELY_SHARE: Final = 0.6
_TOP_TOKENS: Final = 20
_NOT_LIKELY: Final = -20.0
"""Log-probability of the alternatives that are no score."""


def graded_answers() -> Callable[[str], StubAnswer]:
    """Return what answers a question about a trace by who wrote that."""
    answers = {writer: _answer(Rubric(), likely) for writer, likely in _LIKELY.items()}
    return lambda asked: answers[LARGE if TEXTS[LARGE] in asked else SMALL]


def _answer(rubric: Rubric, likely: str) -> StubAnswer:
    content = json.dumps(dict.fromkeys(rubric.dimensions, int(likely)))
    tokens = re.findall(r"\w+|\W", content)
    return StubAnswer(content=content, logprobs=[_token(text, likely) for text in tokens])


def _token(text: str, likely: str) -> dict[str, Any]:
    top = _scores(likely) if text == likely else [_alternative(text, 0.0)]
    others = [_alternative(f"other{n}", _NOT_LIKELY) for n in range(_TOP_TOKENS - len(top))]
    return {**top[0], "top_logprobs": [*top, *others]}


def _scores(likely: str) -> Sequence[dict[str, Any]]:
    rest = math.log((1 - _LIKELY_SHARE) / (len(SCORES) - 1))
    others = [_alternative(score, rest) for score in SCORES if score != likely]
    return [_alternative(likely, math.log(_LIKELY_SHARE)), *others]


def _alternative(token: str, logprob: float) -> dict[str, Any]:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}
