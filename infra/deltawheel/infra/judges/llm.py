"""A language model as the judge: one structured call for all dimensions of the rubric."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import sqrt
from typing import Any, Final

from deltawheel.contracts.clock import Random
from deltawheel.contracts.errors import (
    ConfigError,
    DeltawheelError,
    InvalidRecordError,
    RetryLaterError,
)
from deltawheel.contracts.ids import canonical_json, digest_of
from deltawheel.contracts.judgement import Score
from deltawheel.contracts.ports import Assessment, Telemetry
from deltawheel.contracts.prompt import Prompt
from deltawheel.contracts.rubric import SCORES, Rubric
from deltawheel.contracts.settings import JUDGE_KEY, JudgeMode, JudgeModelSettings
from deltawheel.contracts.trace import Trace
from deltawheel.infra.chat_replies import Asked, parsed, refusal_of, require_model
from deltawheel.infra.judges.fence import ControlTokens
from deltawheel.infra.judges.questions import QUESTIONS_VERSION, grammar_of, messages_of
from deltawheel.infra.judges.verdict import (
    READING_VERSION,
    JudgeAnswer,
    JudgeChoice,
    expected_scores,
    vote_scores,
    votes_of,
)
from deltawheel.infra.model_client import ModelClient, Watch

__all__ = ["JudgeEndpoint", "LlmJudge", "revision_of"]

_TOO_LONG: Final = re.compile(
    r"context length|max_model_len|too long|maximum.*tokens", re.IGNORECASE
)
"""How servers say that a request is longer than the model's context."""
_PRIOR_VARIANCE: Final = 1.0
"""Of one vote that is imagined at the mean: a few votes that agree by chance are not certain."""
_TOP_TOKENS: Final = 20
"""As many alternatives as vLLM gives by default (`--max-logprobs`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeEndpoint:
    """Where the judge answers, under which name, and which weights these are."""

    url: str
    model: str
    revision: str
    headers: Mapping[str, str] | None = None


class LlmJudge:
    """Asks a model on any OpenAI-compatible server; see `contracts.ports.Judge`.

    Args:
        settings: The model and how it is asked.
        endpoint: Where it answers.
        telemetry: Counts calls and tokens.
        random: Gives each trace's fence its token.
        key: Where the settings name it.
        watch: Is shown what goes back and forth.
    """

    def __init__(
        self,
        settings: JudgeModelSettings,
        *,
        endpoint: JudgeEndpoint,
        telemetry: Telemetry,
        random: Random,
        key: str = JUDGE_KEY,
        watch: Watch | None = None,
    ) -> None:
        self._settings = settings
        self._endpoint = endpoint
        self._telemetry = telemetry
        self._random = random
        self._key = key
        self._revision = revision_of(settings, weights=endpoint.revision)
        self._controls = ControlTokens(settings.control_tokens)
        self._asked = Asked(
            name=settings.name, model=endpoint.model, revision=endpoint.revision, key=key
        )
        self._client = ModelClient(
            timeout_s=settings.request_timeout_s,
            timeout_key=f"{key}.request_timeout_s",
            watch=watch,
        )

    @property
    def name(self) -> str:
        """What metrics and tables call it."""
        return self._settings.name

    @property
    def revision(self) -> str:
        """Names the weights, and all of how they are asked."""
        return self._revision

    async def assess(self, prompt: Prompt, trace: Trace, rubric: Rubric) -> Assessment:
        """Score the trace on every dimension; an expected score of low coverage by votes.

        Raises:
            ConfigError: the rubric does not describe every score.
            RetryLaterError: the judge is down or busy, or its answer is of no use; the message
                says what to change if it stays so.
            InvalidRecordError: the server refuses this trace, as when it is too long.
        """
        request = self.request(prompt, trace, rubric)
        dimensions = list(rubric.dimensions)
        if self._settings.mode is JudgeMode.VOTES:
            scores = await self._vote(request, dimensions)
        else:
            scores = await self._expect(request, dimensions)
        return Assessment(scores=scores)

    async def _expect(
        self, request: Mapping[str, Any], dimensions: Sequence[str]
    ) -> dict[str, Score]:
        """Ask once and read the probabilities; ask for votes where they say too little."""
        body = {"temperature": 0, "logprobs": True, "top_logprobs": _TOP_TOKENS}
        choice, *_ = await self._ask({**request, **body})
        with self._reading(of_scores=True):
            scores = expected_scores(choice, dimensions)
        if min(score.coverage or 0.0 for score in scores.values()) < self._settings.min_coverage:
            self._telemetry.count("deltawheel_judge_low_coverage_total", judge=self.name)
            return await self._vote(request, dimensions)
        return scores

    def request(self, prompt: Prompt, trace: Trace, rubric: Rubric) -> dict[str, Any]:
        """Return what every request about this trace has in common: one fence for all of them."""
        require_anchors(rubric)
        return {
            "model": self._endpoint.model,
            "messages": messages_of(
                prompt, trace, rubric, token=self._random.token(), controls=self._controls
            ),
            "max_tokens": self._settings.max_tokens,
            **grammar_of(rubric, self._settings.grammar),
        }

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _vote(
        self, request: Mapping[str, Any], dimensions: Sequence[str]
    ) -> dict[str, Score]:
        """Ask for votes until every mean is sure enough, or there are as many as may be."""
        settings, votes = self._settings, list[Mapping[str, int]]()
        while True:
            number = min(settings.min_votes, settings.max_votes - len(votes))
            body = {"temperature": settings.temperature, "n": number}
            choices = await self._ask({**request, **body})
            with self._reading(of_scores=True):
                votes += [votes_of(choice, dimensions) for choice in choices]
            scores = vote_scores(votes)
            widest = max(map(_vote_stderr, scores.values()))
            if widest <= settings.vote_stderr or len(votes) >= settings.max_votes:
                return scores

    async def _ask(self, body: Mapping[str, Any]) -> Sequence[JudgeChoice]:
        """Ask once; return no more answers than were asked for.

        A server that knows no `n` gives one, and is asked again for more.
        """
        reply = await self._client.post(
            self._endpoint.url,
            "chat/completions",
            body,
            asked=self._asked,
            headers=self._endpoint.headers,
        )
        if reply.is_unknown_model:
            raise RetryLaterError(
                f"{self.name}: its server has no model {self._endpoint.model!r} ({reply.said}): "
                f"name it exactly in {self._key}.model, or serve it"
            )
        if reply.status != 200:
            raise self._refusal(refusal_of(reply, self._asked))
        with self._reading():
            answer = parsed(reply, JudgeAnswer, self._asked)
        require_model(answer.model, self._asked)
        self._telemetry.count(
            "deltawheel_judge_tokens_total",
            answer.usage.prompt_tokens + answer.usage.completion_tokens if answer.usage else 0,
            judge=self.name,
        )
        choices = answer.choices[: body.get("n", 1)]
        for choice in choices:
            self._require_whole(choice)
        return choices

    def _refusal(self, error: InvalidRecordError | RetryLaterError) -> DeltawheelError:
        """Return what a refusal means: only of what is too long is it certain that it is the trace.

        Anything else that the server does not take (a grammar, a parameter) is in every request.
        """
        if isinstance(error, InvalidRecordError) and not _TOO_LONG.search(str(error)):
            return RetryLaterError(f"{error}; look at the settings below {self._key}")
        return error

    def _require_whole(self, choice: JudgeChoice) -> None:
        if choice.finish_reason == "length":
            raise RetryLaterError(
                f"{self.name}'s answer was cut at {self._settings.max_tokens} tokens: raise "
                f"{self._key}.max_tokens"
            )
        if choice.finish_reason != "stop":
            raise RetryLaterError(f"{self.name} broke its answer off ({choice.finish_reason})")

    @contextmanager
    def _reading(self, *, of_scores: bool = False) -> Iterator[None]:
        """Read an answer: a useless one says something of the judge and nothing of the trace."""
        try:
            yield
        except InvalidRecordError as error:
            todo = f"; {self._key}.grammar and .mode say how it is asked" if of_scores else ""
            raise RetryLaterError(f"{self.name}: {error}{todo}") from error


def _vote_stderr(score: Score) -> float:
    """Return how unsure the mean of votes is: their spread, with one more vote's from a prior.

    Without it, three votes that agree by chance would end the asking with no doubt at all.
    """
    number = score.num_votes
    squares = score.variance * (number - 1) + _PRIOR_VARIANCE
    return sqrt(squares / number / number)


def revision_of(settings: JudgeModelSettings, *, weights: str) -> str:
    """Return a judge's revision: its weights, the words it is asked with, and how it is read."""
    read = {"min_coverage", "min_votes", "max_votes", "vote_stderr", "temperature"}
    numbers = {key: repr(value) for key, value in settings.model_dump(include=read).items()}
    reading = [READING_VERSION, repr(_PRIOR_VARIANCE), _TOP_TOKENS]
    ways = [QUESTIONS_VERSION, settings.grammar, settings.control_tokens, numbers, reading]
    digest = digest_of(canonical_json(ways)).removeprefix("sha256:")[:12]
    return f"{weights}+{settings.mode}.{digest}"


def require_anchors(rubric: Rubric) -> None:
    """Make sure that a judge can be told what each score means.

    Raises:
        ConfigError: a description is missing.
    """
    missing = [
        f"{name}.{score}"
        for name in rubric.dimensions
        for score in SCORES
        if not rubric.anchors.get(name, {}).get(score)
    ]
    if missing:
        raise ConfigError(
            f"rubric.anchors: a model that judges must be told what each score means; missing are "
            f"{', '.join(missing)}"
        )
