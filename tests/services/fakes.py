"""What stands around a handler in its tests: a store in a folder, and fakes that do as told."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from deltawheel.contracts.failpoints import Failpoint
from deltawheel.contracts.generator import Generator
from deltawheel.contracts.judgement import Judgement
from deltawheel.contracts.pair import PreferencePair
from deltawheel.contracts.ports import Assessment, Completion
from deltawheel.contracts.prompt import Message, Prompt
from deltawheel.contracts.rubric import Rubric
from deltawheel.contracts.store import Group, Store
from deltawheel.contracts.trace import FinishReason, Trace
from deltawheel.infra.telemetry import PrometheusTelemetry
from tests.records import T0, a_judgement, a_prompt, a_trace, an_assignment, some_scores

PANEL = "judge@1"
"""The judge's revision in every assignment of `tests.records`."""


class KilledError(Exception):
    """Stands for the death of the process."""


@dataclass
class FakeClock:
    """Stands still until a test moves it: who sleeps on it is not woken."""

    at: datetime = T0 + timedelta(seconds=100)

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.at.timestamp()

    def wait(self, duration_s: float) -> None:
        self.move(duration_s)

    async def sleep(self, duration_s: float) -> None:
        await asyncio.Event().wait()

    def move(self, duration_s: float) -> None:
        self.at += timedelta(seconds=duration_s)


async def pass_by() -> None:
    """Do nothing at a failpoint."""


async def die() -> None:
    """Be killed at a failpoint."""
    raise KilledError


@dataclass
class FakeFailpoints:
    """Writes down where the process has come to, and does there what a test says."""

    act: Callable[[], Awaitable[None]] = pass_by
    reached: list[tuple[Failpoint, str]] = field(default_factory=list)

    async def reach(self, name: Failpoint, subject: str) -> None:
        self.reached.append((name, subject))
        await self.act()

    def reach_blocking(self, name: Failpoint, subject: str) -> None:
        raise AssertionError(f"{name} was reached in a thread")


def a_completion(
    answer: str = "1+1=2", *, reasoning: str = "", served_model: str = "as-served"
) -> Completion:
    return Completion(
        reasoning=reasoning,
        answer=answer,
        served_model=served_model,
        prompt_tokens=4,
        completion_tokens=7,
        finish_reason=FinishReason.STOP,
    )


@dataclass
class FakeModels:
    """Answers and loads as a test says, and remembers who was asked with which seed.

    A refusal comes at once, an answer some turns of the event loop later.
    """

    answer: Callable[[Generator], Completion] = lambda generator: a_completion()
    loading: Callable[[Generator], object] = lambda generator: None
    asked: list[tuple[str, int]] = field(default_factory=list)
    messages: list[Sequence[Message]] = field(default_factory=list)
    loaded: list[Generator] = field(default_factory=list)
    unloaded: list[Generator] = field(default_factory=list)

    async def complete(
        self, generator: Generator, messages: Sequence[Message], *, seed: int
    ) -> Completion:
        self.asked.append((generator.name, seed))
        self.messages.append(messages)
        completion = self.answer(generator)
        for _ in range(10):
            await asyncio.sleep(0)
        return completion

    async def load(self, generator: Generator) -> None:
        self.loading(generator)
        self.loaded.append(generator)

    async def compare(self, generator: Generator) -> None:
        """Find what was there before."""

    async def unload(self, generator: Generator) -> None:
        self.loading(generator)
        self.unloaded.append(generator)

    async def aclose(self) -> None:
        """Nothing is open."""

    @property
    def names_asked(self) -> list[str]:
        return [name for name, _ in self.asked]


@dataclass
class FakeJudge:
    """Scores as a test says, and remembers what it read."""

    score: Callable[[Trace], Assessment] = lambda trace: Assessment(scores=some_scores())
    name: str = "judge"
    revision: str = PANEL
    read: list[Trace] = field(default_factory=list)

    async def assess(self, prompt: Prompt, trace: Trace, rubric: Rubric) -> Assessment:
        self.read.append(trace)
        return self.score(trace)


@dataclass
class FakeChecks:
    """Fails the pairs that a test says, and remembers the batches."""

    fails: Callable[[PreferencePair], tuple[str, ...]] = lambda pair: ()
    batches: list[list[str]] = field(default_factory=list)

    def failures(self, pairs: Sequence[PreferencePair]) -> Mapping[str, tuple[str, ...]]:
        self.batches.append([pair.pair_id for pair in pairs])
        failed = {pair.pair_id: self.fails(pair) for pair in pairs}
        return {pair_id: names for pair_id, names in failed.items() if names}


def metric(telemetry: PrometheusTelemetry, name: str, **labels: str) -> float | None:
    return telemetry.registry.get_sample_value(name, labels)


def held(store: Store, prompt: Prompt) -> Group:
    """Return all that the store holds of a prompt."""
    group = store.group(prompt.key)
    assert group is not None
    return group


def add_asked(store: Store, prompt: Prompt | None = None) -> Prompt:
    """Store a prompt with its assignment."""
    prompt = prompt or a_prompt()
    store.add_prompts([prompt])
    store.add_assignments([an_assignment(prompt)])
    return prompt


def add_judged_slot(
    store: Store, prompt: Prompt, slot: int, *, level: float, answer: str = "1+1=2"
) -> Judgement:
    """Store a trace for one slot, and the panel's judgement of it."""
    trace = store.add_traces([a_trace(an_assignment(prompt), slot, answer=answer)])[0]
    return store.add_judgements([a_judgement(trace, level=level, judge_revision=PANEL)])[0]


def add_judged(store: Store, prompt: Prompt | None = None, *levels: float) -> Prompt:
    """Store a prompt whose slots the panel has judged; slot 0 the better one, if nothing is said.

    Their texts differ, as the checks of a real wheel ask.
    """
    prompt = add_asked(store, prompt)
    for slot, level in enumerate(levels or (5.0, 2.0)):
        add_judged_slot(store, prompt, slot, level=level, answer=f"1+1={slot}")
    return prompt
