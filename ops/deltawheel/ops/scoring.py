"""Scoring a file: every line is judged, and what was judged before is not judged again."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from deltawheel.contracts.clock import Clock
from deltawheel.contracts.errors import ConfigError, DeltawheelError, RetryLaterError
from deltawheel.contracts.ports import Assessment, Judge
from deltawheel.contracts.rubric import Rubric
from deltawheel.contracts.settings import Settings
from deltawheel.infra import wiring
from deltawheel.ops.judge_trial import Subject, line_subject
from deltawheel.ops.score_file import ScoreFile
from deltawheel.services.runtime.backoff import retry_pause_s

__all__ = ["Scored", "score_file"]

_NUM_TRIES: Final = 5
_BASE_S: Final = 1.0
_CAP_S: Final = 30.0
_REPORTED_EVERY_S: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """What came of a file."""

    num_lines: int
    num_looked_at: int
    num_before: int
    faults: dict[int, str]

    def told(self) -> dict[str, Any]:
        """Return it as plain data."""
        faults = [{"line": line, "reason": reason} for line, reason in sorted(self.faults.items())]
        return {
            "lines": self.num_lines,
            "looked_at": self.num_looked_at,
            "looked_at_before": self.num_before,
            "not_judged": faults,
        }


async def score_file(
    lines: Iterable[str],
    out: Path,
    settings: Settings,
    *,
    is_once: bool,
    say: Callable[[str], None],
) -> Scored:
    """Judge every line that `out` lacks, as many at a time as the service would.

    Args:
        lines: Of the file; read as they are needed.
        out: Where the scores go, line by line.
        settings: Whose judge and rubric it is.
        is_once: Whether a judge that is not ready is a fault of the line, and not asked again.
        say: Told how far it is.

    Raises:
        ConfigError: no line can be judged so.
        DeltawheelError: `out` holds something else.
    """
    rubric = settings.make_rubric()
    marks = {
        "judge_revision": wiring.judge_revision(settings),
        "rubric_digest": rubric.digest,
    }
    async with wiring.judge_on_trial(settings, lambda body, reply: None) as judge:
        with ScoreFile.open(out, marks=marks) as scores:
            work = _Scoring(
                settings=settings,
                judge=judge,
                rubric=rubric,
                scores=scores,
                clock=wiring.system_clock(),
                num_tries=1 if is_once else _NUM_TRIES,
                say=say,
            )
            return await work.run(lines)


@dataclass(slots=True, kw_only=True)
class _Scoring:
    settings: Settings
    judge: Judge
    rubric: Rubric
    scores: ScoreFile
    clock: Clock
    num_tries: int
    say: Callable[[str], None]
    _num_lines: int = field(default=0, init=False)
    _num_before: int = field(default=0, init=False)
    _seen: set[int] = field(default_factory=set, init=False)
    """Lines of the file that have their scores or their fault; it may have had more before."""
    _said_at_s: float = field(default=0.0, init=False)

    async def run(self, lines: Iterable[str]) -> Scored:
        self._said_at_s = self.clock.monotonic()
        left = self._left(lines)
        try:
            async with asyncio.TaskGroup() as workers:
                for _ in range(self.settings.judge.concurrency):
                    workers.create_task(self._work(left))
        except* DeltawheelError as group:
            raise group.exceptions[0] from None
        return Scored(
            num_lines=self._num_lines,
            num_looked_at=len(self._seen) - self._num_before,
            num_before=self._num_before,
            faults={n: why for n, why in self.scores.faults.items() if n in self._seen},
        )

    def _left(self, lines: Iterable[str]) -> Iterator[tuple[int, str]]:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            self._num_lines += 1
            if self.scores.has(number, line.strip()):
                self._num_before += 1
                self._seen.add(number)
            else:
                yield number, line.strip()

    async def _work(self, left: Iterator[tuple[int, str]]) -> None:
        for number, line in left:
            self.scores.add(number, line, await self._found(number, line))
            self._seen.add(number)
            if self.clock.monotonic() - self._said_at_s > _REPORTED_EVERY_S:
                self._said_at_s = self.clock.monotonic()
                self.say(f"{len(self.scores)} lines judged")

    async def _found(self, number: int, line: str) -> dict[str, Any]:
        try:
            subject = line_subject(line, number, self.settings, self.clock.now())
            assessment = await self._assess(subject)
        except ConfigError:
            raise
        except (ValueError, DeltawheelError) as error:
            return {"fault": str(error)}
        return _told(assessment, self.judge)

    async def _assess(self, subject: Subject) -> Assessment:
        """Ask the judge, again after a while where it is not ready."""
        for attempt in range(self.num_tries - 1):
            try:
                return await self._whole(subject)
            except RetryLaterError as error:
                pause_s = retry_pause_s(
                    attempt,
                    base_s=_BASE_S,
                    cap_s=_CAP_S,
                    jitter=wiring.system_random().random(),
                    at_least_s=error.retry_after_s,
                )
                await self.clock.sleep(pause_s)
        return await self._whole(subject)

    async def _whole(self, subject: Subject) -> Assessment:
        try:
            found = await self.judge.assess(subject.prompt, subject.trace, self.rubric)
        except TimeoutError as error:
            raise RetryLaterError("the judge did not answer") from error
        if missing := self.rubric.dimensions.keys() - found.scores.keys():
            raise RetryLaterError(f"the judge left out scores: {', '.join(sorted(missing))}")
        return found


def _told(found: Assessment, judge: Judge) -> dict[str, Any]:
    told: dict[str, Any] = {
        "judge": judge.name,
        "scores": {name: score.model_dump() for name, score in found.scores.items()},
        "is_correct": found.is_correct,
    }
    if found.opinions:
        told["opinions"] = [it.model_dump() for it in found.opinions]
    return told
