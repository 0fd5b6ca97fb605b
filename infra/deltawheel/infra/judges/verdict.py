"""Reading a judge's answer: scores as they are written, and as their probabilities have them."""

import json
import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from statistics import fmean, variance
from typing import Final

from pydantic import Field

from deltawheel.contracts.errors import InvalidRecordError
from deltawheel.contracts.judgement import Score
from deltawheel.contracts.rubric import SCORES
from deltawheel.infra.chat_replies import AnswerPart, Usage

__all__ = [
    "READING_VERSION",
    "JudgeAnswer",
    "JudgeChoice",
    "expected_scores",
    "vote_scores",
    "votes_of",
]

READING_VERSION: Final = "1"
"""Raise it with any change here or in `fence` that gives the same answer other scores.

It is part of a judge's revision.
"""


class TokenProbability(AnswerPart):
    """A token that could have stood there, and the logarithm of its probability."""

    token: str
    logprob: float


class _ChosenToken(TokenProbability):
    top_logprobs: Sequence[TokenProbability] = ()


class _Probabilities(AnswerPart):
    content: Sequence[_ChosenToken] | None = None


class _Written(AnswerPart):
    content: str | None = None


class JudgeChoice(AnswerPart):
    """One answer of the judge."""

    message: _Written
    finish_reason: str | None = None
    logprobs: _Probabilities | None = None


class JudgeAnswer(AnswerPart):
    """A chat completion as OpenAI-compatible servers give it, with as many choices as wanted."""

    model: str
    choices: Sequence[JudgeChoice] = Field(min_length=1)
    usage: Usage | None = None


def votes_of(choice: JudgeChoice, dimensions: Sequence[str]) -> dict[str, int]:
    """Return the scores that an answer writes down.

    Raises:
        InvalidRecordError: it is not the object that was asked for, with a legal score for each
            dimension.
    """
    text = choice.message.content or ""
    if not text.strip():
        raise InvalidRecordError(
            "the judge's answer is empty: a model that thinks first needs more max_tokens, or a "
            "server that keeps it from thinking"
        )
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, Mapping):
        raise InvalidRecordError(
            "the judge's answer is no JSON object, so its server does not keep to the grammar"
        )
    scores = {name: said.get(name) for name in dimensions}
    if wrong := [name for name, score in scores.items() if str(score) not in SCORES]:
        raise InvalidRecordError(f"the judge's answer has no score from 1 to 5 for {wrong}")
    return {name: int(str(score)) for name, score in scores.items()}


def vote_scores(votes: Sequence[Mapping[str, int]]) -> dict[str, Score]:
    """Return mean and spread of several answers, by dimension."""
    return {
        name: Score(
            mean=fmean(vote[name] for vote in votes),
            variance=variance(vote[name] for vote in votes) if len(votes) > 1 else 0.0,
            num_votes=len(votes),
        )
        for name in votes[0]
    }


def expected_scores(choice: JudgeChoice, dimensions: Sequence[str]) -> dict[str, Score]:
    """Return each score's mean and variance over the probabilities of its token.

    The probabilities are those before the grammar's mask, so what lies on other tokens is told as
    coverage and the legal ones are renormalised. The mean of the distribution beats its mode
    (arXiv:2303.16634, G-Eval, section 2.2).

    Raises:
        InvalidRecordError: the answer is not the object that was asked for, or comes without the
            probabilities of its tokens.
    """
    votes = votes_of(choice, dimensions)
    tokens = choice.logprobs.content if choice.logprobs else None
    if not tokens:
        raise InvalidRecordError(
            "the judge's server gives no log-probabilities; ask it for votes (mode: votes)"
        )
    text = "".join(token.token for token in tokens)
    starts = [0, *accumulate(len(token.token) for token in tokens)]
    begin = text.rfind((choice.message.content or "").strip())
    scores: dict[str, Score] = {}
    for name in dimensions:
        place = _place_of_score(text, name, begin, votes[name])
        index = max(i for i, start in enumerate(starts[:-1]) if start <= place)
        scores[name] = _score(tokens[index], place - starts[index], votes[name])
    return scores


def _place_of_score(text: str, name: str, begin: int, written: int) -> int:
    """Return where the digit of a dimension stands in the answer, which begins at `begin`.

    Before it may stand what a model thought, with drafts of its answer.
    """
    key = json.dumps(name)
    at = text.find(key, begin) if begin >= 0 else -1
    place = at + len(key)
    while at >= 0 and place < len(text) and text[place] in ': \t\n"':
        place += 1
    if at < 0 or text[place : place + 1] != str(written):
        raise InvalidRecordError(f"the tokens of the judge's answer show no score for {name!r}")
    return place


def _score(token: "_ChosenToken", offset: int, written: int) -> Score:
    """Return the distribution over the tokens that agree up to the digit."""
    before = token.token[:offset]
    candidates = {token.token: token.logprob}
    candidates |= {other.token: other.logprob for other in token.top_logprobs}
    masses = dict.fromkeys(SCORES, 0.0)
    for candidate, logprob in candidates.items():
        digit, behind = candidate[offset : offset + 1], candidate[offset + 1 : offset + 2]
        is_score = digit in masses and not behind.isdigit()
        if is_score and candidate.startswith(before) and math.isfinite(logprob):
            masses[digit] += math.exp(logprob)
    coverage = sum(masses.values())
    if coverage <= 0.0:
        return Score(mean=written, coverage=0.0)
    shares = {int(digit): mass / coverage for digit, mass in masses.items()}
    mean = sum(score * share for score, share in shares.items())
    spread = sum(share * (score - mean) ** 2 for score, share in shares.items())
    return Score(mean=min(5.0, max(1.0, mean)), variance=spread, coverage=min(1.0, coverage))
