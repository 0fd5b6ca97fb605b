"""A judge that is not asked twice about the same text."""

import asyncio
from collections.abc import Sequence
from typing import Final
from weakref import WeakValueDictionary

from deltawheel.contracts.clock import Clock
from deltawheel.contracts.known_scores import KnownScores, ScoreMemory, scores_id
from deltawheel.contracts.ports import Assessment, Judge, Telemetry
from deltawheel.contracts.prompt import Prompt
from deltawheel.contracts.rubric import Rubric
from deltawheel.contracts.trace import Trace
from deltawheel.services.runtime.batching import MicroBatcher, batched_in_a_thread

__all__ = ["RememberingJudge"]

_MAX_ITEMS: Final = 500


class RememberingJudge:
    """A `Judge` whose scores are kept, by prompt, text, revision and rubric.

    The two sides of a pair that say the same get the same scores, a prompt that is asked again
    costs only what is new, and where one judge of a jury is down, the others are not asked again.
    Of two that judge the same text at the same time, one waits for the other.

    Args:
        inner: The judge.
        memory: Where scores are kept.
        clock: Says when they were given.
        telemetry: Counts what was known.
    """

    def __init__(
        self, inner: Judge, memory: ScoreMemory, *, clock: Clock, telemetry: Telemetry
    ) -> None:
        def find(ids: Sequence[str]) -> Sequence[KnownScores | None]:
            known = memory.known_scores(ids)
            return [known.get(each) for each in ids]

        self._inner = inner
        self._clock = clock
        self._telemetry = telemetry
        self._find: MicroBatcher[str, KnownScores | None] = batched_in_a_thread(
            find, max_items=_MAX_ITEMS, clock=clock
        )
        self._add: MicroBatcher[KnownScores, KnownScores] = batched_in_a_thread(
            memory.add_known_scores, max_items=_MAX_ITEMS, clock=clock
        )
        self._turns = WeakValueDictionary[str, asyncio.Lock]()

    @property
    def name(self) -> str:
        """What metrics and tables call it."""
        return self._inner.name

    @property
    def revision(self) -> str:
        """Changes whenever the same trace could get another score."""
        return self._inner.revision

    async def assess(self, prompt: Prompt, trace: Trace, rubric: Rubric) -> Assessment:
        """Return the scores as the memory holds them, asking for those that it lacks.

        Raises:
            RetryLaterError: as the judge does, or because the store is away.
            InvalidRecordError: as the judge does.
        """
        named = scores_id(
            trace,
            judge=self.name,
            judge_revision=self.revision,
            rubric_digest=rubric.digest,
        )
        async with self._turns.setdefault(named, asyncio.Lock()):
            known = await self._find(named)
            if known is not None:
                self._telemetry.count("deltawheel_judge_cache_hits_total", judge=self.name)
                return Assessment(scores=known.scores)
            found = await self._inner.assess(prompt, trace, rubric)
            if rubric.dimensions.keys() - found.scores.keys():
                return found
            kept = await self._add(
                KnownScores(
                    scores_id=named,
                    judge=self.name,
                    judge_revision=self.revision,
                    scores=found.scores,
                    scored_at=self._clock.now(),
                )
            )
        return Assessment(scores=kept.scores)
