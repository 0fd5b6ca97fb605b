"""Many runs at once: one process per core, each playing one chunk of runs after another."""

import logging
import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from deltawheel.ops.bench.simulate.plan import CrashPoint, Plan, Side
from deltawheel.ops.bench.simulate.run import simulate

__all__ = ["Run", "Tally", "crash_runs", "play_many", "silence"]

_LOG: Final = logging.getLogger("deltawheel")
_CHUNK: Final = 20


@dataclass(frozen=True, slots=True)
class Run:
    """What to play: a seed with the plan that is drawn from it, or with a calm one and a death."""

    seed: int
    crash_at: CrashPoint | None = None

    @property
    def plan(self) -> Plan | None:
        """The plan, unless the seed is to draw it."""
        return Plan.calm(crash_at=self.crash_at) if self.crash_at else None

    @property
    def options(self) -> str:
        """What plays exactly this again, as options of the command."""
        crash = f" --crash-at {self.crash_at}" if self.crash_at else ""
        return f"--seed {self.seed}{crash}"


@dataclass(slots=True)
class Tally:
    """What came of some runs."""

    num_runs: int = 0
    failed: dict[Run, tuple[str, ...]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    virtual_s: float = 0.0

    def add(self, other: "Tally") -> None:
        """Take in what came of others."""
        self.num_runs += other.num_runs
        self.failed |= other.failed
        self.counts += other.counts
        self.virtual_s += other.virtual_s


def crash_runs(seed: int) -> list[Run]:
    """Return a run for each side of each effect of a calm run, with one death there."""
    num_effects = simulate(seed, plan=Plan.calm()).num_effects
    points = (
        CrashPoint(effect=effect, side=side) for effect in range(num_effects) for side in Side
    )
    return [Run(seed, point) for point in points]


def play_many(
    runs: Sequence[Run], *, jobs: int | None = None, at_progress: Callable[[Tally], None]
) -> Tally:
    """Play runs on as many processes as there are cores, or `jobs`."""
    tally = Tally()
    for part in _parts(runs, jobs or len(os.sched_getaffinity(0))):
        tally.add(part)
        at_progress(tally)
    return tally


def _parts(runs: Sequence[Run], jobs: int) -> Iterator[Tally]:
    chunks = [runs[start : start + _CHUNK] for start in range(0, len(runs), _CHUNK)]
    if jobs == 1 or len(chunks) < 2:
        with silence():
            yield from map(_play, chunks)
        return
    # Not forked: what a parent has open, such as a database, is nothing for its children.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_quieten) as pool:
        for done in as_completed([pool.submit(_play, chunk) for chunk in chunks]):
            yield done.result()


@contextmanager
def silence() -> Iterator[None]:
    """Keep the services from logging thousands of deaths that are meant to be."""
    level = _LOG.level
    _quieten()
    try:
        yield
    finally:
        _LOG.setLevel(level)


def _quieten() -> None:
    _LOG.setLevel(logging.CRITICAL + 1)


def _play(runs: Sequence[Run]) -> Tally:
    tally = Tally()
    for run in runs:
        report = simulate(run.seed, plan=run.plan)
        tally.num_runs += 1
        tally.virtual_s += report.virtual_s
        tally.counts["prompts"] += report.plan.num_prompts
        tally.counts["effects"] += report.num_effects
        tally.counts["deaths"] += report.num_deaths
        tally.counts["redelivered"] += report.num_redelivered
        if not report.is_clean:
            tally.failed[run] = report.violations
    return tally
