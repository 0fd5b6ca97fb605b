"""Judging on trial: stored traces and lines of a file, as the service does it, stored nowhere."""

import asyncio
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from deltawheel.contracts.errors import DeltawheelError
from deltawheel.contracts.ports import Assessment, Judge
from deltawheel.contracts.prompt import Prompt, PromptSubmission
from deltawheel.contracts.record import MAX_COUNT
from deltawheel.contracts.rubric import Rubric
from deltawheel.contracts.settings import Settings
from deltawheel.contracts.trace import Trace
from deltawheel.infra import wiring
from deltawheel.infra.chat_replies import Reply
from deltawheel.infra.judges.hand_written import hand_written

__all__ = ["Subject", "Trial", "line_subject", "read_subjects", "run_trials", "subject_of"]

_REPORTED_EVERY_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is to be judged, and how it is called."""

    name: str
    prompt: Prompt
    trace: Trace


@dataclass(slots=True, kw_only=True)
class Trial:
    """What was asked about a subject, what was answered, and what came of it."""

    subject: str
    exchanges: list[Mapping[str, Any]] = field(default_factory=list)
    assessment: Assessment | None = None
    fault: str | None = None
    seconds: float = 0.0
    tokens: int = 0

    def note(self, request: Mapping[str, Any], reply: Reply) -> None:
        """Keep one request and what was answered."""
        told = {"request": request, "status": reply.status, "answers": reply.answers}
        self.exchanges.append(told)
        self.tokens += reply.num_tokens

    def told(self) -> dict[str, Any]:
        """Return it as plain data."""
        found = self.assessment
        return {
            "subject": self.subject,
            "exchanges": self.exchanges,
            "scores": {name: score.model_dump() for name, score in found.scores.items()}
            if found
            else {},
            "is_correct": found.is_correct if found else None,
            "fault": self.fault,
            "seconds": self.seconds,
        }


def read_subjects(named: str, settings: Settings) -> tuple[list[Subject], dict[int, str]]:
    """Return what a trace's id or a file stands for, and by line what is wrong with the others.

    Raises:
        DeltawheelError: it is neither.
    """
    if named == "-":
        return _lines(sys.stdin.buffer.read().decode(errors="replace").splitlines(), settings)
    if (path := Path(named)).is_file():
        with path.open(encoding="utf-8", errors="replace") as lines:
            return _lines(lines, settings)
    with wiring.reading(settings) as store:
        trace = store.trace(named)
        group = store.group(trace.key) if trace is not None else None
    if trace is None or group is None:
        raise DeltawheelError(
            f"{named} is neither a file nor the id of a stored trace; `deltawheel pairs list "
            "--json` names some"
        )
    return [Subject(name=named, prompt=group.prompt, trace=trace)], {}


def _lines(lines: Iterable[str], settings: Settings) -> tuple[list[Subject], dict[int, str]]:
    subjects, refused = list[Subject](), dict[int, str]()
    at = wiring.system_clock().now()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            subjects.append(line_subject(line, number, settings, at))
        except ValueError as error:
            refused[number] = str(error)
    return subjects, refused


def line_subject(line: str, number: int, settings: Settings, at: datetime) -> Subject:
    """Return a line as what would have been stored of it.

    Raises:
        ValueError: it is no prompt with an answer.
    """
    try:
        body = json.loads(line)
    except RecursionError as error:
        raise ValueError(str(error)) from error
    answer, reasoning = _texts(body)
    submission = PromptSubmission.parse(body, max_chars=MAX_COUNT)
    prompt = submission.accept(wheel=settings.wheel, accepted_at=at)
    return subject_of(f"line {number}", prompt, answer=answer, reasoning=reasoning)


def subject_of(name: str, prompt: Prompt, *, answer: str, reasoning: str = "") -> Subject:
    """Return a text as the trace that a generator could have written."""
    trace = hand_written(name, prompt, answer=answer, reasoning=reasoning)
    return Subject(name=name, prompt=prompt, trace=trace)


def _texts(body: object) -> tuple[str, str]:
    """Return a line's answer and reasoning; the rest of it is the prompt.

    Raises:
        ValueError: there is no answer, or one of them is no text.
    """
    match body:
        case {"answer": str(answer), "reasoning": str(reasoning)}:
            return answer, reasoning
        case {"answer": str(answer), **others} if "reasoning" not in others:
            return answer, ""
    raise ValueError(
        "it has no 'answer', the text that is to be judged; 'reasoning' may be another"
    )


async def run_trials(
    subjects: Sequence[Subject],
    settings: Settings,
    *,
    say: Callable[[str], None],
    rubric: Rubric | None = None,
) -> list[Trial]:
    """Judge them, as many at a time as the service would, in their order; say how far it is.

    `rubric` stands in for that of the settings.
    """
    clock = wiring.system_clock()
    rubric = rubric or settings.make_rubric()
    room = asyncio.Semaphore(settings.judge.concurrency)
    said_at_s, num_done = clock.monotonic(), 0
    under_way: ContextVar[Trial] = ContextVar("under_way")

    def watch(body: Mapping[str, Any], reply: Reply) -> None:
        under_way.get().note(body, reply)

    async def judged(subject: Subject, judge: Judge) -> Trial:
        nonlocal said_at_s, num_done
        trial = Trial(subject=subject.name)
        under_way.set(trial)  # of this task alone
        async with room:
            started_s = clock.monotonic()
            try:
                trial.assessment = await judge.assess(subject.prompt, subject.trace, rubric)
            except DeltawheelError as error:
                trial.fault = str(error)
            trial.seconds = clock.monotonic() - started_s
        num_done += 1
        if clock.monotonic() - said_at_s > _REPORTED_EVERY_S:
            said_at_s = clock.monotonic()
            say(f"{num_done} of {len(subjects)} judged")
        return trial

    async with wiring.judge_on_trial(settings, watch) as judge:
        return list(await asyncio.gather(*(judged(subject, judge) for subject in subjects)))
