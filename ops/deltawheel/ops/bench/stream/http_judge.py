"""A judge over HTTP for the bench: one structured call a trace, through the product's client.

The product has no LLM judge yet. This one asks as it will: the whole rubric and the fenced trace go
out, one JSON object with every dimension comes back.
"""

import json
from typing import Final

from deltawheel.contracts.errors import RetryLaterError
from deltawheel.contracts.generator import Generator, Sampling
from deltawheel.contracts.ids import seed_of
from deltawheel.contracts.judgement import Score
from deltawheel.contracts.ports import Assessment, ChatModel
from deltawheel.contracts.prompt import Message, Prompt
from deltawheel.contracts.rubric import Rubric
from deltawheel.contracts.trace import Trace
from deltawheel.ops.bench.stream.instant import JUDGE_REVISION, LARGE, SMALL, TEXTS, scores_of

__all__ = ["JUDGE_MODEL", "HttpJudge", "judge_answer"]

JUDGE_MODEL: Final = "judge"


class HttpJudge:
    """A `Judge` that asks a model server.

    Args:
        models: The client.
        endpoint: Base URL of the server.
    """

    def __init__(self, models: ChatModel, *, endpoint: str) -> None:
        self._models = models
        self._generator = Generator(
            name=JUDGE_MODEL,
            revision=JUDGE_REVISION,
            endpoint=endpoint,
            model=JUDGE_MODEL,
            capability=0.0,
            sampling=Sampling(max_tokens=128),
        )
        self.name = "bench-http"
        self.revision = JUDGE_REVISION

    async def assess(self, prompt: Prompt, trace: Trace, rubric: Rubric) -> Assessment:
        """Ask once for all dimensions.

        Raises:
            RetryLaterError: the server is away, or answers no scores.
            InvalidRecordError: it refuses the request.
        """
        asked = _question(prompt, trace, rubric)
        seed = seed_of(trace.trace_id)
        completion = await self._models.complete(self._generator, asked, seed=seed)
        try:
            means: dict[str, float] = json.loads(completion.answer)
            scores = {name: Score(mean=mean) for name, mean in means.items()}
        except (ValueError, AttributeError) as error:
            raise RetryLaterError(f"the judge's answer holds no scores: {error}") from error
        return Assessment(scores=scores)


def _question(prompt: Prompt, trace: Trace, rubric: Rubric) -> tuple[Message, ...]:
    questions = "\n".join(f"{name}: {asks}" for name, asks in rubric.dimensions.items())
    asked = prompt.messages[-1].content
    return (
        Message(role="system", content=f"Score 1 to 5, as one JSON object.\n{questions}"),
        Message(role="user", content=f"{asked}\n<trace>\n{trace.text}\n</trace>"),
    )


def judge_answer(question: str, rubric: Rubric) -> str:
    """Return what the stub server answers: a JSON object of scores by who wrote the trace."""
    writer = LARGE if TEXTS[LARGE] in question else SMALL
    return json.dumps({name: it.mean for name, it in scores_of(writer, rubric).items()})
