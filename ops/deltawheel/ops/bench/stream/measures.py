"""What the bench measures, part by part; each part starts wheels of its own, one after another."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Final

from deltawheel.contracts.settings import BrokerKind
from deltawheel.ops.bench.stream.rival import Judged, Rival, RivalRun
from deltawheel.ops.bench.stream.running import Batch, Stream, running_stream
from deltawheel.ops.bench.stream.steady import Steady, run_steadily
from deltawheel.ops.bench.stream.world import World

__all__ = ["PARTS", "Figures", "Plan", "Scaled", "measure"]

PARTS: Final = ("throughput", "http", "steady", "scaling")
_WARM_UP: Final = 500
"""Pairs before anything is timed: imports, caches and the pool's first look are behind by then."""

_SCALES: Final = ((1, 1), (4, 1), (8, 1), (4, 2))
"""Partitions of each topic, and processes of each service behind the gateway."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the options of `deltawheel bench stream` ask for."""

    parts: Sequence[str]
    home: Path
    rival_folder: Path
    num_pairs: int
    num_rival_pairs: int
    repeats: int
    rate: float
    steady_s: float
    with_kafka: bool
    with_rival: bool
    broker_memory_mb: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaled:
    """Throughput with so many partitions and processes."""

    partitions: int
    members: int
    pairs_per_s: float


@dataclass(slots=True)
class Figures:
    """All that was measured; what was not asked for is empty."""

    stream: list[Batch] = field(default_factory=list)
    on_kafka: list[Batch] = field(default_factory=list)
    over_http: list[Batch] = field(default_factory=list)
    rival: dict[Judged, list[RivalRun]] = field(default_factory=dict)
    steady: Steady | None = None
    scaling: list[Scaled] = field(default_factory=list)
    rss_mb: dict[str, float] = field(default_factory=dict)

    def note_memory(self, rss_mb: Mapping[str, float]) -> None:
        """Keep the most that each process has taken in any part."""
        for name, mb in rss_mb.items():
            self.rss_mb[name] = max(mb, self.rss_mb.get(name, 0.0))


def measure(plan: Plan, *, say: Say) -> Figures:
    """Measure all parts of the plan.

    Raises:
        DeltawheelError: a process cannot run, or prompts and pairs do not agree: no figure then.
    """
    figures = Figures()
    run = {
        "throughput": _throughput,
        "http": _http,
        "steady": _steady,
        "scaling": _scaling,
    }
    for part in plan.parts:
        run[part](plan, figures, say)
    return figures


def _throughput(plan: Plan, figures: Figures, say: Say) -> None:
    """Alternate between us and distilabel, so that a busy machine is busy for both."""
    rival = Rival(plan.rival_folder)
    if plan.with_rival:
        rival.install(say=say)
    for number in range(1, plan.repeats + 1):
        where = f"run {number} of {plan.repeats}"
        for kind, runs in _brokers(plan, figures).items():
            batch = _one_batch(plan, World(home=plan.home, broker=kind), figures, say)
            runs.append(batch)
            say(f"{where}: {batch.pairs_per_s:.0f} pairs/s through the {kind.value} broker")
        for judged in Judged if plan.with_rival else ():
            run = rival.run(plan.num_rival_pairs, judged)
            figures.rival.setdefault(judged, []).append(run)
            say(f"{where}: distilabel {run.pairs_per_s:.1f} pairs/s, judge asked by {judged.value}")


def _brokers(plan: Plan, figures: Figures) -> dict[BrokerKind, list[Batch]]:
    runs = {BrokerKind.EMBEDDED: figures.stream}
    return runs | ({BrokerKind.LOCAL_KAFKA: figures.on_kafka} if plan.with_kafka else {})


def _http(plan: Plan, figures: Figures, say: Say) -> None:
    with _stream(World(home=plan.home, over_http=True), say) as stream:
        stream.run(_WARM_UP)
        for number in range(1, plan.repeats + 1):
            batch = stream.run(plan.num_pairs // 2)
            figures.over_http.append(batch)
            say(f"over HTTP, run {number} of {plan.repeats}: {batch.pairs_per_s:.0f} pairs/s")
        stream.check()


def _steady(plan: Plan, figures: Figures, say: Say) -> None:
    world = World(home=plan.home, broker_memory_mb=plan.broker_memory_mb)
    with _stream(world, say) as stream:
        stream.run(_WARM_UP)
        say(f"{plan.rate:g} prompts/s for {plan.steady_s:.0f} s")
        figures.steady = run_steadily(stream, rate=plan.rate, duration_s=plan.steady_s, say=say)
        figures.note_memory(figures.steady.peak_mb())
        stream.check()


def _scaling(plan: Plan, figures: Figures, say: Say) -> None:
    for partitions, members in _SCALES:
        world = World(home=plan.home, partitions=partitions, members=members)
        batches = [_one_batch(plan, world, figures, say) for _ in range(plan.repeats)]
        rate = median(batch.pairs_per_s for batch in batches)
        figures.scaling.append(Scaled(partitions=partitions, members=members, pairs_per_s=rate))
        say(f"{partitions} partitions, {members} of each service: {rate:.0f} pairs/s")


def _one_batch(plan: Plan, world: World, figures: Figures, say: Say) -> Batch:
    with _stream(world, say) as stream:
        stream.run(_WARM_UP)
        batch = stream.run(plan.num_pairs)
        stream.check()
        if world.members == 1:
            figures.note_memory(stream.rss_mb())
        return batch


@contextmanager
def _stream(world: World, say: Say) -> Iterator[Stream]:
    """Run a wheel in an empty folder below the world's home, which is removed afterwards."""
    world.home.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="wheel-", dir=world.home) as home,
        running_stream(replace(world, home=Path(home)), say=say) as stream,
    ):
        yield stream
