"""A runner over a real store, whose stages are scripted and whose time passes only by waiting."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from deltawheel.contracts.cycle import Cycle, StepName
from deltawheel.contracts.errors import RetryLaterError
from deltawheel.contracts.events import OutboundMessage
from deltawheel.contracts.settings import Settings, TrainingSettings
from deltawheel.contracts.store import Store
from deltawheel.infra.clock import SystemRandom
from deltawheel.services.training.runner import CycleRunner
from tests.records import WHEEL, seconds

DONE = 0
"""The exit status of a stage that has written its result."""


@dataclass
class PassingClock:
    """Time passes by waiting, and at each wait happens what a test says.

    Who waits is woken late by `lateness_s`, which makes long stories short.
    """

    past_s: float = 0.0
    at_wait: Callable[[], object] = lambda: None
    lateness_s: float = 0.0
    limit_s: float = 3_600.0

    def now(self) -> datetime:
        return seconds(self.past_s)

    def monotonic(self) -> float:
        return self.past_s

    def wait(self, duration_s: float) -> None:
        self.past_s += duration_s + self.lateness_s
        assert self.past_s < self.limit_s, "the test waits for what does not come"
        self.at_wait()

    async def sleep(self, duration_s: float) -> None:
        raise AssertionError("training has no asyncio")


@dataclass
class FakeProducer:
    """Keeps what is published; the first `num_failures` times the broker does not answer."""

    num_failures: int = 0
    published: list[OutboundMessage] = field(default_factory=list)

    def publish(self, messages: Sequence[OutboundMessage]) -> None:
        if self.num_failures:
            self.num_failures -= 1
            raise RetryLaterError("the broker does not answer")
        self.published += messages

    def close(self) -> None:
        return None


@dataclass(kw_only=True)
class FakeStage:
    """A stage that runs for some looks at it and then ends as its script says."""

    name: StepName
    status: int
    folder: Path
    result: Mapping[str, Any]
    while_running: Callable[[StepName], object]
    num_looks: int
    was_killed: bool = False

    def poll(self) -> int | None:
        if self.num_looks:
            self.num_looks -= 1
            self.while_running(self.name)
            return None
        if self.status == DONE:
            self.folder.mkdir()
            (self.folder / "result.json").write_text(json.dumps(self.result))
        return self.status

    def kill(self) -> None:
        self.was_killed = True


@dataclass
class FakeStages:
    """Starts stages that do nothing.

    `statuses` are the exit statuses of a step's attempts, in order; once there are none left it
    ends well, with its `results`. `said` is what each stage writes into its log.
    """

    statuses: dict[StepName, list[int]] = field(default_factory=dict)
    results: dict[StepName, Mapping[str, Any]] = field(default_factory=dict)
    said: str = ""
    num_looks: int = 2
    while_running: Callable[[StepName], object] = lambda name: None
    begun: list[FakeStage] = field(default_factory=list)
    argvs: list[Sequence[str]] = field(default_factory=list)

    def __call__(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None, log_file: Path
    ) -> FakeStage:
        assert env is None, "a stage has this process's environment"
        name = StepName(argv[argv.index("--step") + 1])
        statuses = self.statuses.get(name)
        log_file.write_text(self.said)
        stage = FakeStage(
            name=name,
            status=statuses.pop(0) if statuses else DONE,
            folder=log_file.parent / name.value,
            result=self.results.get(name, {}),
            while_running=self.while_running,
            num_looks=self.num_looks,
        )
        self.begun.append(stage)
        self.argvs.append(argv)
        return stage

    @property
    def names(self) -> list[StepName]:
        return [stage.name for stage in self.begun]

    @property
    def counts(self) -> Counter[StepName]:
        return Counter(self.names)


class Bench:
    """A runner with everything around it."""

    def __init__(self, store: Store, home: Path, *, verdict: str = "promote", **training: Any):
        self.store = store
        self.clock = PassingClock(at_wait=self._stop_when_idle)
        self.producer = FakeProducer()
        self.stages = FakeStages(results={StepName.GATE: {"verdict": verdict}})
        self.settings = Settings(
            wheel=WHEEL, home=home, training=TrainingSettings(**{"lease_s": 10.0, **training})
        )
        self.runner = CycleRunner(
            settings=self.settings,
            settings_file=home / "settings.yaml",
            store=store,
            producer=self.producer,
            clock=self.clock,
            random=SystemRandom(0),
            spawn=self.stages,
        )

    def run(self, cycle: Cycle) -> Cycle:
        """Run until no cycle is open, or the test stops it; return the cycle as it is then."""
        self.store.add_cycle(cycle)
        self.runner.run()
        return self.stored(cycle)

    def stored(self, cycle: Cycle) -> Cycle:
        held = self.store.cycle(cycle.cycle_id)
        assert held is not None
        return held

    def _stop_when_idle(self) -> None:
        if not self.store.open_cycles():
            self.runner.stop.set()
