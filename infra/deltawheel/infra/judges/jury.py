"""Several judges of one trace: whose scores count, and what the others' are kept for."""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from datetime import timedelta
from statistics import fmean, pvariance
from typing import Final

from deltawheel.contracts.clock import Clock
from deltawheel.contracts.errors import InvalidRecordError, RetryLaterError
from deltawheel.contracts.ids import canonical_json
from deltawheel.contracts.judgement import Opinion, Score
from deltawheel.contracts.ports import Assessment, Judge
from deltawheel.contracts.prompt import Prompt, PromptKey
from deltawheel.contracts.rubric import Rubric
from deltawheel.contracts.settings import Combination, JurySettings
from deltawheel.contracts.trace import Trace

__all__ = ["Jury", "jury_revision"]

_NUM_BYTES: Final = 6
"""Of the hash that draws a prompt."""


class Jury:
    """Judges that are all asked of a share of the prompts; see `contracts.ports.Judge`.

    Where the first one's scores count, the others change nothing, so the revision stays the
    first's. An opinion of theirs is waited for like any judgement, because agreement on those
    traces alone that all judges could be asked of at once would be that of a biased sample. Past
    `judge.jury.patience_s` the trace goes on without it, with the reason in its place, and so it
    does at once where a judge refuses the trace for good.

    Args:
        judges: The first judge first.
        settings: What their scores do.
        clock: Tells how long a trace has waited.
    """

    def __init__(self, judges: Sequence[Judge], settings: JurySettings, clock: Clock) -> None:
        self._judges = tuple(judges)
        self._settings = settings
        self._clock = clock
        self._is_mean = settings.combine is Combination.MEAN

    @property
    def name(self) -> str:
        """What metrics and tables call whoever's scores count."""
        names = [judge.name for judge in self._judges]
        return "+".join(names) if self._is_mean else names[0]

    @property
    def revision(self) -> str:
        """Names every judge whose scores count."""
        revisions = {judge.name: judge.revision for judge in self._judges}
        return jury_revision(revisions, self._settings)

    async def assess(self, prompt: Prompt, trace: Trace, rubric: Rubric) -> Assessment:
        """Ask the judges that this prompt has, all at once.

        Raises:
            RetryLaterError: one whose scores count does, or another one of a trace that is young.
            InvalidRecordError: one whose scores count refuses the trace.
        """
        if not _is_shared(trace.key, self._settings.share):
            return await self._judges[0].assess(prompt, trace, rubric)
        found = await asyncio.gather(
            *(judge.assess(prompt, trace, rubric) for judge in self._judges),
            return_exceptions=True,
        )
        scores = [self._scores(index, each, trace) for index, each in enumerate(found)]
        opinions = tuple(map(_opinion, self._judges, found))
        counted = _means(scores, rubric) if self._is_mean else scores[0]
        return Assessment(scores=counted, opinions=opinions)

    def _scores(
        self, index: int, found: Assessment | BaseException, trace: Trace
    ) -> Mapping[str, Score]:
        """Return a judge's scores; none where the trace goes on without them."""
        if isinstance(found, Assessment):
            return found.scores
        counts = self._is_mean or index == 0
        if counts or not self._is_forgone(found, trace):
            raise found
        return {}

    def _is_forgone(self, error: BaseException, trace: Trace) -> bool:
        if isinstance(error, RetryLaterError | TimeoutError):
            age = self._clock.now() - trace.generated_at
            return age >= timedelta(seconds=self._settings.patience_s)
        return isinstance(error, InvalidRecordError)


def jury_revision(revisions: Mapping[str, str], settings: JurySettings) -> str:
    """Return the revision of a jury, from those of its judges by name, the first one's first."""
    if settings.combine is Combination.MEAN and len(revisions) > 1:
        return f"mean({','.join(f'{name}@{each}' for name, each in revisions.items())})"
    return next(iter(revisions.values()))


def _is_shared(key: PromptKey, share: float) -> bool:
    """Whether all judges score the traces of this prompt: by hash, whoever asks and whenever."""
    digest = hashlib.sha256(canonical_json(["jury", key.prompt_id, key.round])).digest()
    return int.from_bytes(digest[:_NUM_BYTES]) < share * 256.0**_NUM_BYTES


def _opinion(judge: Judge, found: Assessment | BaseException) -> Opinion:
    if isinstance(found, Assessment):
        return Opinion(judge=judge.name, judge_revision=judge.revision, scores=found.scores)
    return Opinion(judge=judge.name, judge_revision=judge.revision, fault=str(found))


def _means(scores: Sequence[Mapping[str, Score]], rubric: Rubric) -> dict[str, Score]:
    """Return the mean over the judges of every dimension that all of them have scored."""
    shared = [name for name in rubric.dimensions if all(name in each for each in scores)]
    return {name: _mean([each[name] for each in scores]) for name in shared}


def _mean(scores: Sequence[Score]) -> Score:
    """Return the score of a judge drawn by lot: its variance is within judges and between them."""
    means = [score.mean for score in scores]
    coverages = [score.coverage for score in scores if score.coverage is not None]
    return Score(
        mean=min(5.0, max(1.0, fmean(means))),
        variance=fmean(score.variance for score in scores) + pvariance(means),
        num_votes=sum(score.num_votes for score in scores),
        coverage=min(coverages, default=None),
    )
