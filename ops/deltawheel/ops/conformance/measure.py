"""Judging anchor cases: what a conformance card and a calibration are read from."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from deltawheel.contracts.anchors import SOLUTION, AnchorCase
from deltawheel.contracts.prompt import PromptSubmission
from deltawheel.contracts.rubric import Rubric
from deltawheel.contracts.settings import Settings
from deltawheel.infra import wiring
from deltawheel.ops.conformance.figures import Found, slope_of
from deltawheel.ops.judge_trial import Subject, run_trials, subject_of

__all__ = ["Judged", "Say", "judge_anchors", "length_slopes", "order_shifts"]

Say = Callable[[str], None]

_PADDING: Final = (
    "This line adds nothing to what is written above, and it takes nothing away from it either."
)
_PADDED: Final = (1, 3)
"""How often the line is put behind a solution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What came of judging texts: their scores, and what the judging cost.

    `faults` counts the reasons for which texts have no scores.
    """

    found: Found
    num_asked: int
    num_judged: int
    faults: Mapping[str, int]
    tokens: int
    seconds: float

    @property
    def parse_rate(self) -> float:
        """The share of judgements that were made and could be read."""
        return self.num_judged / self.num_asked if self.num_asked else 1.0


async def judge_anchors(
    cases: Sequence[AnchorCase],
    settings: Settings,
    *,
    repeats: int,
    say: Say,
    rubric: Rubric | None = None,
) -> Judged:
    """Judge every text of every case, each so often, with a fence of its own each time."""
    rubric = rubric or settings.make_rubric()
    texts = [
        (case, variant, text)
        for _ in range(repeats)
        for case in cases
        for variant, text in case.texts(rubric.dimensions).items()
    ]
    return await _judge(texts, settings, rubric, say)


async def order_shifts(
    cases: Sequence[AnchorCase], settings: Settings, found: Found, *, say: Say
) -> dict[str, float]:
    """Return by how much solutions score higher where the rubric names its dimensions backwards.

    There are no sides that could change places: each trace is judged by itself.
    """
    rubric = settings.make_rubric()
    backwards = dict(reversed(list(rubric.dimensions.items())))
    turned = rubric.model_copy(update={"dimensions": backwards})
    solutions = [(case, SOLUTION, case.solution) for case in cases]
    again = (await _judge(solutions, settings, turned, say)).found
    both = [key for key in again if found.get(key)]
    return {
        name: fmean(_mean(again[key], name) - _mean(found[key], name) for key in both)
        for name in rubric.dimensions
        if both
    }


async def length_slopes(
    cases: Sequence[AnchorCase], settings: Settings, found: Found, *, say: Say
) -> dict[str, float]:
    """Return by how much a score rises with each 100 characters of padding that says nothing."""
    rubric = settings.make_rubric()
    texts = [
        (case, str(times), "\n".join([case.solution, *[_PADDING] * times]))
        for case in cases
        for times in _PADDED
    ]
    padded = (await _judge(texts, settings, rubric, say)).found
    whole = [
        [found[case.name, SOLUTION], *(padded[case.name, str(times)] for times in _PADDED)]
        for case in cases
        if found.get((case.name, SOLUTION))
        and all((case.name, str(times)) in padded for times in _PADDED)
    ]
    added = [times * (len(_PADDING) + 1) / 100 for times in (0, *_PADDED)]
    return {
        name: fmean(
            slope_of([(x, _mean(scores, name)) for x, scores in zip(added, each, strict=True)])
            for each in whole
        )
        for name in rubric.dimensions
        if whole
    }


async def _judge(
    texts: Sequence[tuple[AnchorCase, str, str]], settings: Settings, rubric: Rubric, say: Say
) -> Judged:
    subjects = list(_subjects(texts, settings))
    trials = await run_trials(subjects, settings, say=say, rubric=rubric)
    found: defaultdict[tuple[str, str], list[Mapping[str, float]]] = defaultdict(list)
    for (case, variant, _), trial in zip(texts, trials, strict=True):
        if trial.assessment is not None:
            scores = {name: trial.assessment.scores[name].mean for name in rubric.dimensions}
            found[case.name, variant].append(scores)
    return Judged(
        found=found,
        num_asked=len(trials),
        num_judged=sum(trial.assessment is not None for trial in trials),
        faults=Counter(trial.fault for trial in trials if trial.fault is not None),
        tokens=sum(trial.tokens for trial in trials),
        seconds=sum(trial.seconds for trial in trials),
    )


def _subjects(
    texts: Sequence[tuple[AnchorCase, str, str]], settings: Settings
) -> Iterator[Subject]:
    at = wiring.system_clock().now()
    for number, (case, variant, text) in enumerate(texts):
        asked = PromptSubmission(text=case.task, reference_answer=case.right_answer)
        prompt = asked.accept(wheel=settings.wheel, accepted_at=at)
        yield subject_of(f"{case.name}-{variant}-{number}", prompt, answer=text)


def _mean(scores: Sequence[Mapping[str, float]], dimension: str) -> float:
    return fmean(each[dimension] for each in scores)
