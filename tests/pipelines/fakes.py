"""A small world for the stages: a shelf of pairs, seeded randomness, models run by transformers."""

import asyncio
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar, cast

from deltawheel.contracts.anchor_runs import JudgeDrift
from deltawheel.contracts.cycle import Cycle, StepName, Trigger
from deltawheel.contracts.errors import CycleError, RetryLaterError
from deltawheel.contracts.gate import GateDecision
from deltawheel.contracts.generator import Generator, GeneratorDelta, PoolEvent, Sampling
from deltawheel.contracts.judgement import JudgedTrace, Judgement, Score
from deltawheel.contracts.pair import PreferencePair
from deltawheel.contracts.ports import ChatModel, Completion, Registry
from deltawheel.contracts.promotion import Champion, Promotion, RegisteredVersion
from deltawheel.contracts.prompt import Message, Prompt
from deltawheel.contracts.rubric import Rubric
from deltawheel.contracts.settings import Settings
from deltawheel.contracts.slices import ORDER_BY, SliceManifest
from deltawheel.contracts.store import RankedPair, Store
from deltawheel.contracts.trace import FinishReason, Trace
from deltawheel.infra.sandbox.grammar import Family, Problem, render_solution, sample_problem
from deltawheel.pipelines.context import StageContext, TrainingArm
from tests.records import JUDGE

T = TypeVar("T")
AT = datetime(2026, 11, 1, tzinfo=UTC)
"""When every cycle is requested."""
TOKEN = "token"
"""Under which a context's attempt holds every step."""
EARLIER = AT - timedelta(hours=1)
"""When every pair is made and stored."""


class SeededRandom:
    """The Random port on a seed."""

    def __init__(self, seed: int | str = 0) -> None:
        self._stream = random.Random(seed)

    def random(self) -> float:
        return self._stream.random()

    def randrange(self, start: int, stop: int) -> int:
        return self._stream.randrange(start, stop)

    def choice(self, options: Sequence[T]) -> T:
        return self._stream.choice(options)

    def gauss(self, mu: float, sigma: float) -> float:
        return self._stream.gauss(mu, sigma)

    def shuffle(self, items: list[T]) -> None:
        self._stream.shuffle(items)

    def token(self) -> str:
        return f"{self._stream.getrandbits(128):032x}"

    def seeded(self, seed: int | str) -> "SeededRandom":
        return SeededRandom(seed)


@dataclass(slots=True)
class StillClock:
    """The Clock port: waiting is what makes time pass."""

    seconds: float = 0.0

    def now(self) -> datetime:
        return AT

    def monotonic(self) -> float:
        return self.seconds

    def wait(self, duration_s: float) -> None:
        self.seconds += duration_s

    async def sleep(self, duration_s: float) -> None:
        self.seconds += duration_s


def a_pair(
    problem: Problem, *, score: float, rubric: Rubric, slips: Sequence[bool]
) -> PreferencePair:
    """Pair a stepwise solution, judged `score`, with a shortcut that is judged 1 throughout."""
    prompt = Prompt(
        wheel="default",
        domain="sums",
        messages=(Message(role="user", content=problem.text),),
        accepted_at=EARLIER,
    )
    texts = (
        render_solution(problem, is_stepwise=True, slips=slips),
        render_solution(problem, is_stepwise=False, slips=slips),
    )
    sides = [
        _judged(prompt, slot, text, mean, rubric)
        for slot, (text, mean) in enumerate(zip(texts, (score, 1.0), strict=True))
    ]
    deltas = rubric.deltas(sides[0].judgement, sides[1].judgement)
    return PreferencePair(
        prompt=prompt,
        chosen=sides[0],
        rejected=sides[1],
        rubric_digest=rubric.digest,
        deltas=deltas,
        order_delta=rubric.order_delta(deltas),
        generator_delta=GeneratorDelta(estimate=2.0, stderr=0.5, ladder_revision="pool_1"),
        accepted_at=EARLIER,
        paired_at=EARLIER,
    )


def _judged(prompt: Prompt, slot: int, text: str, mean: float, rubric: Rubric) -> JudgedTrace:
    trace = Trace(
        trace_id=f"trace_{prompt.prompt_id}_{slot}",
        prompt_id=prompt.prompt_id,
        round=0,
        slot=slot,
        generator=("strong", "weak")[slot],
        generator_revision="sha256:0",
        served_model="m",
        sampling=Sampling(max_tokens=64),
        seed=1,
        answer=text,
        text_digest="sha256:0",
        prompt_tokens=8,
        completion_tokens=len(text),
        finish_reason=FinishReason.STOP,
        lineage_depth=0,
        accepted_at=EARLIER,
        generated_at=EARLIER,
    )
    judgement = Judgement(
        trace_id=trace.trace_id,
        prompt_id=prompt.prompt_id,
        round=0,
        slot=slot,
        judge="exact",
        judge_revision=JUDGE,
        rubric_digest=rubric.digest,
        scores={name: Score(mean=mean) for name in rubric.dimensions},
        accepted_at=EARLIER,
        judged_at=EARLIER,
    )
    return JudgedTrace(trace=trace, judgement=judgement)


def sandbox_pairs(num_pairs: int, rubric: Rubric, *, seed: int = 0) -> list[PreferencePair]:
    """Draw in-domain pairs; both sides slip alike, and what differs is that one shows its steps."""
    stream = random.Random(seed)
    problems: dict[str, Problem] = {}
    while len(problems) < num_pairs:
        problem = sample_problem(stream, Family.IN_DOMAIN, withheld=False)
        problems[problem.text] = problem
    return [
        a_pair(
            problem,
            score=2.0 + stream.randrange(0, 13) / 4,
            rubric=rubric,
            slips=[stream.random() < 0.5 for _ in range(3)],
        )
        for problem in problems.values()
    ]


class KilledError(BaseException):
    """The process dies here: nothing may catch it."""


@dataclass(slots=True)
class Journal:
    """What reached the world outside, in order; `die_after` that entry the process is killed."""

    entries: list[str] = field(default_factory=list)
    die_after: str | None = None

    def note(self, entry: str) -> None:
        self.entries.append(entry)
        if entry == self.die_after:
            raise KilledError(entry)


@dataclass(slots=True)
class Shelf:
    """The store's ports as far as the stages use them, in memory."""

    stored: Sequence[PreferencePair]
    cycles: dict[str, Cycle] = field(default_factory=dict)
    log: list[PoolEvent] = field(default_factory=list)
    promoted: list[Promotion] = field(default_factory=list)
    journal: Journal = field(default_factory=Journal)
    drifts: dict[tuple[str, str], JudgeDrift] = field(default_factory=dict)

    def ranked_pairs(
        self,
        *,
        dimension: str,
        rubric_digest: str,
        judge_revision: str,
        paired_before: datetime,
        limit: int | None,
    ) -> list[RankedPair]:
        rows = [
            RankedPair(
                pair_id=pair.pair_id,
                delta=pair.order_delta if dimension == ORDER_BY else pair.deltas[dimension].delta,
            )
            for pair in self.stored
            if pair.rubric_digest == rubric_digest
            and pair.chosen.judgement.judge_revision == judge_revision
            and pair.paired_at < paired_before
        ]
        return sorted(rows, key=lambda row: (-row.delta, row.pair_id))[:limit]

    def pairs_by_id(self, pair_ids: Sequence[str]) -> list[PreferencePair]:
        by_id = {pair.pair_id: pair for pair in self.stored}
        return [by_id[pair_id] for pair_id in pair_ids]

    def cycle(self, cycle_id: str) -> Cycle | None:
        return self.cycles.get(cycle_id)

    def judge_drift(self, judge_revision: str, rubric_digest: str) -> JudgeDrift | None:
        return self.drifts.get((judge_revision, rubric_digest))

    def pool_log(self) -> list[PoolEvent]:
        return self.log

    def add_promotion(self, promotion: Promotion) -> Promotion:
        for row in self.promoted:
            if row.promotion_id == promotion.promotion_id:
                return row
        self.promoted.append(promotion)
        self.journal.note("decision row")
        return promotion


@dataclass(slots=True)
class NoRegistry:
    """A registry in which nothing was ever promoted."""

    def champion(self, download_to: Path) -> Champion:
        return Champion(model_name="deltawheel-default")

    def record_run(
        self,
        cycle_id: str,
        *,
        parameters: Mapping[str, str],
        metrics: Mapping[str, float],
        manifest: SliceManifest,
        decision: GateDecision,
        artifacts: Path,
    ) -> str:
        return "run-1"

    def add_version(self, cycle_id: str, run_id: str, *, tags: Mapping[str, str]) -> str:
        return "1"

    def versions(self) -> list[RegisteredVersion]:
        return []

    def move_champion(self, version: str, *, replaces: str | None) -> None:
        return None


@dataclass(slots=True)
class MemoryRegistry:
    """A registry as its port describes it: creates are searched for by the cycle's id first.

    The adapter of the champion that stands lies in a folder of its own, and is downloaded from it.
    """

    standing: Champion = field(default_factory=lambda: Champion(model_name="deltawheel-default"))
    journal: Journal = field(default_factory=Journal)
    runs: dict[str, "RecordedRun"] = field(default_factory=dict)
    made: dict[str, str] = field(default_factory=dict)
    tags: dict[str, Mapping[str, str]] = field(default_factory=dict)
    alias: str | None = None
    num_moves: int = 0

    def __post_init__(self) -> None:
        self.alias = self.standing.version

    def champion(self, download_to: Path) -> Champion:
        if self.standing.adapter_path is None:
            return self.standing
        got = shutil.copytree(self.standing.adapter_path, download_to / "model")
        return self.standing.model_copy(update={"adapter_path": str(got)})

    def record_run(
        self,
        cycle_id: str,
        *,
        parameters: Mapping[str, str],
        metrics: Mapping[str, float],
        manifest: SliceManifest,
        decision: GateDecision,
        artifacts: Path,
    ) -> str:
        if cycle_id not in self.runs:
            files = {
                path.relative_to(artifacts).as_posix(): path.read_bytes()
                for path in artifacts.rglob("*")
                if path.is_file()
            }
            self.runs[cycle_id] = RecordedRun(
                run_id=f"run-{len(self.runs) + 1}",
                parameters=parameters,
                metrics=metrics,
                decision=decision,
                files=files,
            )
            self.journal.note("run")
        return self.runs[cycle_id].run_id

    def add_version(self, cycle_id: str, run_id: str, *, tags: Mapping[str, str]) -> str:
        if run_id not in self.made:
            version = str(int(self.standing.version or 0) + len(self.made) + 1)
            self.made[run_id], self.tags[version] = version, tags
            self.journal.note("version")
        return self.made[run_id]

    def versions(self) -> list[RegisteredVersion]:
        return []

    def move_champion(self, version: str, *, replaces: str | None) -> None:
        if self.alias == version:
            return
        if self.alias != replaces:
            raise CycleError(f"the alias names {self.alias}: it was moved by hand")
        self.alias = version
        self.num_moves += 1
        self.journal.note("alias")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRun:
    """A run as the registry keeps it."""

    run_id: str
    parameters: Mapping[str, str]
    metrics: Mapping[str, float]
    decision: GateDecision
    files: Mapping[str, bytes]


@dataclass(slots=True)
class ScriptedModels:
    """A chat model that answers as a function says; `fail_after` requests it is gone.

    Its server is away for the first `num_refusals` attempts at loading.
    """

    reply: Callable[[Generator, str, int], str]
    fail_after: int | None = None
    num_refusals: int = 0
    loaded: list[Generator] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)
    journal: Journal = field(default_factory=Journal)

    async def complete(
        self, generator: Generator, messages: Sequence[Message], *, seed: int
    ) -> Completion:
        if self.fail_after is not None and len(self.seeds) >= self.fail_after:
            raise RetryLaterError("server local does not answer")
        self.seeds.append(seed)
        await asyncio.sleep(0)
        return completion_of(self.reply(generator, messages[-1].content, seed))

    async def load(self, generator: Generator) -> None:
        if self.num_refusals:
            self.num_refusals -= 1
            raise RetryLaterError("server local is starting")
        self.loaded.append(generator)
        self.journal.note("load")

    async def aclose(self) -> None:
        return None


@dataclass(slots=True)
class TransformersModels:
    """A chat model that decodes greedily with transformers and peft, in batches."""

    base: Path
    loaded: dict[str, Any] = field(default_factory=dict)
    waiting: dict[str, list[tuple[str, asyncio.Future[str]]]] = field(default_factory=dict)

    async def load(self, generator: Generator) -> None:
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(self.base)
        if generator.adapter_path is not None:
            model = PeftModel.from_pretrained(model, generator.adapter_path)
        self.loaded[generator.model] = model.eval()

    async def complete(
        self, generator: Generator, messages: Sequence[Message], *, seed: int
    ) -> Completion:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[str] = loop.create_future()
        queue = self.waiting.setdefault(generator.model, [])
        queue.append((messages[-1].content, future))
        if len(queue) == 1:
            loop.call_later(0.05, self._flush, generator.model)
        return completion_of(await future)

    def _flush(self, model: str) -> None:
        from transformers import AutoTokenizer

        from deltawheel.pipelines.sandbox.accuracy import answer_greedily

        queue = self.waiting.pop(model)
        tokenizer = AutoTokenizer.from_pretrained(self.base)
        texts = answer_greedily(self.loaded[model], tokenizer, [prompt for prompt, _ in queue])
        for (_, future), text in zip(queue, texts, strict=True):
            future.set_result(text)

    async def aclose(self) -> None:
        return None


def completion_of(text: str) -> Completion:
    return Completion(
        reasoning="",
        answer=text,
        served_model="m",
        prompt_tokens=1,
        completion_tokens=len(text),
        finish_reason=FinishReason.STOP,
    )


def small_settings(home: Path, **sections: Any) -> Settings:
    """Return settings of a wheel that trains on few pairs and evaluates few items."""
    chosen: dict[str, Any] = {
        "home": home,
        "evaluation": {"items_per_suite": 60, "concurrency": 512},
        "training": {"top_share": Decimal("0.5"), "min_pairs": 4},
        **sections,
    }
    return Settings(**chosen)


def a_context(
    settings: Settings,
    runner: asyncio.Runner,
    *,
    pairs: Sequence[PreferencePair],
    models: ChatModel | None = None,
    registry: Registry | None = None,
    store: Shelf | None = None,
    arm: TrainingArm = TrainingArm.TOP_DELTA,
    said: list[str] | None = None,
    cause: str = "test",
) -> StageContext:
    """Build the context of a requested cycle's first step."""
    asked = Cycle.request(wheel=settings.wheel, trigger=Trigger.OPERATOR, cause=cause, at=AT)
    held = {"token": TOKEN, "lease_until": AT + timedelta(seconds=settings.training.lease_s)}
    steps = tuple(step.model_copy(update=held) for step in asked.steps)
    cycle = asked.model_copy(update={"steps": steps})
    shelf = store or Shelf(pairs)
    shelf.cycles[cycle.cycle_id] = cycle
    root = (settings.state / "cycles" / cycle.cycle_id).resolve()
    heard = said if said is not None else []
    return StageContext(
        settings=settings,
        store=cast(Store, shelf),
        registry=registry or NoRegistry(),
        models=models or ScriptedModels(lambda generator, prompt, seed: ""),
        clock=StillClock(),
        random=SeededRandom(),
        cycle_id=cycle.cycle_id,
        token=TOKEN,
        judge_revision=JUDGE,
        folder=root / f"select.{TOKEN}",
        done=lambda name: root / StepName(name).value,
        progress=heard.append,
        reach=lambda name, subject: heard.append(f"reached {name}"),
        runner=runner,
        arm=arm,
    )


def an_adapter(folder: Path, weights: bytes) -> Path:
    """Lay out what counts as an adapter on disk, for models that are never loaded."""
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(weights)
    (folder / "adapter_config.json").write_text("{}", encoding="utf-8")
    return folder
