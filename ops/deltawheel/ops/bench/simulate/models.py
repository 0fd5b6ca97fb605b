"""Generators, a judge and checks in memory: they say what is in their nature, if they answer."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from deltawheel.contracts.clock import Random
from deltawheel.contracts.errors import InvalidRecordError, RetryLaterError
from deltawheel.contracts.generator import Generator
from deltawheel.contracts.ids import seed_of
from deltawheel.contracts.judgement import Score
from deltawheel.contracts.pair import PreferencePair
from deltawheel.contracts.ports import Assessment, Completion
from deltawheel.contracts.prompt import Message, Prompt
from deltawheel.contracts.rubric import Rubric
from deltawheel.contracts.trace import FinishReason, Trace
from deltawheel.ops.bench.simulate.nature import Answer, Nature
from deltawheel.ops.bench.simulate.plan import Fault
from deltawheel.ops.bench.simulate.process import Process
from deltawheel.ops.bench.simulate.weather import Weather

__all__ = ["JUDGE_REVISION", "Calls", "SimulatedChecks", "SimulatedJudge", "SimulatedModels"]

JUDGE_REVISION = "simulated-judge@1"
_TIMEOUT_S = 60.0


@dataclass(slots=True)
class Calls:
    """Which calls models and judge were asked, for the invariants."""

    asked_at_s: dict[int, list[float]] = field(default_factory=dict)
    judged_texts: dict[str, set[str]] = field(default_factory=dict)
    loaded: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True, kw_only=True)
class SimulatedModels:
    """The model servers. Each answer is a text of its own: what is sampled never comes twice."""

    nature: Nature
    weather: Weather
    random: Random
    calls: Calls
    process: Process

    async def complete(
        self, generator: Generator, messages: Sequence[Message], *, seed: int
    ) -> Completion:
        """Answer, sooner or later, or not at all."""
        self.process.check()
        asked = self.calls.asked_at_s.setdefault(seed, [])
        asked.append(asyncio.get_running_loop().time())
        self.process.trace.note(self.process.name, f"asks {generator.name} {seed % 10_000:04}")
        await asyncio.sleep(self.random.random() * 2.0)
        await self._fail_sometimes(generator)
        completion = self._completion(generator, seed, len(asked))
        if self.weather.strikes(Fault.MODELS_FLAKY):
            self._note(f"{generator.name} answers with nothing")
            return replace(completion, answer="", served_model="", completion_tokens=0)
        return completion

    def _note(self, what: str) -> None:
        self.process.trace.note(self.process.name, what)

    async def _fail_sometimes(self, generator: Generator) -> None:
        name = f"server:{generator.name}"
        if self.weather.are_models_down:
            self._note(f"{generator.name} is down")
            raise RetryLaterError("the server is down", dependency=name)
        if not self.weather.strikes(Fault.MODELS_FLAKY, weight=2.0):
            return
        self._note(f"{generator.name} is flaky")
        match self.random.randrange(0, 4):
            case 0:
                raise RetryLaterError("503", retry_after_s=1.0, dependency=name)
            case 1:
                await asyncio.sleep(_TIMEOUT_S)
                raise RetryLaterError("no answer in time", dependency=name)
            case 2:
                raise RetryLaterError("the answer was no JSON", dependency=name)
            case _:
                await asyncio.sleep(self.random.random() * _TIMEOUT_S)

    def _completion(self, generator: Generator, seed: int, number: int) -> Completion:
        answer = self.nature.answer(seed)
        if answer is Answer.REFUSED:
            raise InvalidRecordError("400: the server refuses this request and always will")
        return Completion(
            reasoning=f"thought {number} of {seed}",
            answer=f"said {number} of {seed}",
            served_model=generator.model,
            prompt_tokens=4,
            completion_tokens=8,
            finish_reason=FinishReason.LENGTH if answer is Answer.CUT_OFF else FinishReason.STOP,
        )

    async def load(self, generator: Generator) -> None:
        """Load an adapter."""
        self.process.check()
        await asyncio.sleep(self.random.random())
        await self._fail_sometimes(generator)
        self.calls.loaded[generator.name] += 1

    async def compare(self, generator: Generator) -> None:
        """Compare weights; in a simulation nobody exchanges them."""
        self.process.check()

    async def unload(self, generator: Generator) -> None:
        """Forget an adapter; a simulation retires none."""
        self.process.check()

    async def aclose(self) -> None:
        """Nothing is open."""


@dataclass(slots=True, kw_only=True)
class SimulatedJudge:
    """The judge: one level on every dimension, by the trace's id and not by its text."""

    nature: Nature
    weather: Weather
    random: Random
    calls: Calls
    process: Process
    name: str = "simulated"
    revision: str = JUDGE_REVISION

    async def assess(self, prompt: Prompt, trace: Trace, rubric: Rubric) -> Assessment:
        """Score a trace, or some of it, or not at all."""
        self.process.check()
        self.process.trace.note(self.process.name, f"judges {trace.trace_id[-8:]}")
        await asyncio.sleep(self.random.random() * 0.5)
        if self.weather.strikes(Fault.JUDGE_FLAKY, weight=2.0):
            return await self._disappoint(trace, rubric)
        return self._assess(trace, rubric)

    async def _disappoint(self, trace: Trace, rubric: Rubric) -> Assessment:
        self.process.trace.note(self.process.name, f"the judge is flaky: {trace.trace_id[-8:]}")
        match self.random.randrange(0, 4):
            case 0:
                raise RetryLaterError("the judge is busy", dependency="judge")
            case 1:
                await asyncio.sleep(_TIMEOUT_S)
                raise TimeoutError
            case 2:
                await asyncio.sleep(self.random.random() * _TIMEOUT_S)
                return self._assess(trace, rubric)
            case _:
                whole = self._assess(trace, rubric)
                left_out = sorted(whole.scores)[self.random.randrange(0, len(whole.scores))]
                some = {name: score for name, score in whole.scores.items() if name != left_out}
                return Assessment(scores=some)

    def _assess(self, trace: Trace, rubric: Rubric) -> Assessment:
        subject = seed_of(trace.trace_id)
        if not self.nature.is_judgeable(subject):
            raise InvalidRecordError(f"trace {trace.trace_id} cannot be judged and never will be")
        self.calls.judged_texts.setdefault(trace.trace_id, set()).add(trace.text_digest)
        score = Score(mean=min(5.0, self.nature.level(subject) + self.weather.judge_shift))
        return Assessment(scores=dict.fromkeys(rubric.dimensions, score))


@dataclass(slots=True, kw_only=True)
class SimulatedChecks:
    """Data-quality checks."""

    nature: Nature
    process: Process

    def failures(self, pairs: Sequence[PreferencePair]) -> Mapping[str, tuple[str, ...]]:
        """Return the pairs that fail."""
        self.process.check()
        return {
            pair.pair_id: ("expect_good_nature",)
            for pair in pairs
            if not self.nature.passes(pair.pair_id)
        }
