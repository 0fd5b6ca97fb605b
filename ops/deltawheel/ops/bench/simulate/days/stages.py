"""Stages of a cycle that train nothing: they take their time, may fail, and write their result.

They stand at the seam at which `services.training` starts a subprocess. What `pipelines` does
inside of one has its own tests; here it is only as long, as fallible and as repeatable as there.
The register stage keeps the order of `pipelines.registration`: version, decision row, alias.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from deltawheel.contracts.clock import Clock, Random
from deltawheel.contracts.cycle import StepName
from deltawheel.contracts.errors import CycleError
from deltawheel.contracts.gate import Verdict
from deltawheel.contracts.generator import Generator
from deltawheel.contracts.promotion import Promotion
from deltawheel.contracts.store import Store
from deltawheel.ops.bench.simulate.days.registry import SimulatedRegistry
from deltawheel.ops.bench.simulate.nature import Nature
from deltawheel.ops.bench.simulate.weather import Weather

__all__ = ["SimulatedStages"]

_TRY_LATER: Final = 75
_KILLED: Final = -9
_REFUSED: Final = 1
_MODEL: Final = "simulated-model"
_LONGEST_S: Final[Mapping[StepName, float]] = {
    StepName.SELECT: 120.0,
    StepName.TRAIN: 3_000.0,
    StepName.EVALUATE: 2_000.0,
    StepName.GATE: 60.0,
    StepName.REGISTER: 300.0,
}


@dataclass(slots=True, kw_only=True)
class SimulatedStages:
    """Starts stages, as `infra.processes.spawn_guarded` does."""

    store: Store
    registry: SimulatedRegistry
    nature: Nature
    weather: Weather
    clock: Clock
    random: Random
    note: Callable[[str], None]

    def __call__(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None, log_file: Path
    ) -> "_Stage":
        """Start one."""
        name = StepName(argv[argv.index("--step") + 1])
        cycle_id = argv[argv.index("--cycle") + 1]
        self.note(f"begins {name.value} of {cycle_id[-8:]}")
        log_file.write_text("")
        return _Stage(self, name, cycle_id, log_file)


class _Stage:
    """One that runs. It ends as soon as somebody looks after its time is over."""

    def __init__(
        self, stages: SimulatedStages, name: StepName, cycle_id: str, log_file: Path
    ) -> None:
        self._stages = stages
        self._name = name
        self._cycle_id = cycle_id
        self._log_file = log_file
        duration_s = _LONGEST_S[name] * stages.random.random()
        self._next_at_s = stages.clock.monotonic() + duration_s
        self._work = self._works()
        self._status: int | None = None

    def poll(self) -> int | None:
        """Go on with the next piece of work that is due."""
        now_s = self._stages.clock.monotonic()
        if self._status is None and now_s >= self._next_at_s:
            self._next_at_s = now_s + 30.0 * self._stages.random.random()
            self._status = self._go_on()
        return self._status

    def kill(self) -> None:
        """Stop for good; what is done is done."""
        if self._status is None:
            self._status = _KILLED

    def _go_on(self) -> int | None:
        stages = self._stages
        if stages.weather.is_store_down:
            return self._say("the store does not answer", _TRY_LATER)
        if stages.weather.is_rough and stages.random.random() < 0.1:
            return self._say("Killed", _KILLED)
        try:
            result = next(self._work)
        except CycleError as error:
            return self._say(str(error), _REFUSED)
        if result is None:
            return None
        file = self._result_of(self._name)
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(result))
        return 0

    def _result_of(self, name: StepName) -> Path:
        return self._log_file.parent / name.value / "result.json"

    def _say(self, said: str, status: int) -> int:
        self._log_file.write_text(said)
        self._stages.note(f"{self._name.value} of {self._cycle_id[-8:]} ends {status}: {said}")
        return status

    def _works(self) -> Iterator[dict[str, Any] | None]:
        """Yield None after each effect that is not the last, and the result at the end."""
        stages, cycle_id = self._stages, self._cycle_id
        if self._name is StepName.SELECT:
            yield {"champion": stages.registry.champion}
        verdict = stages.nature.verdict(cycle_id)
        if self._name is StepName.REGISTER and verdict is Verdict.PROMOTE:
            version = stages.registry.add_version(cycle_id)
            yield None
            promotion = stages.store.add_promotion(self._promotion(version))
            yield None
            stages.registry.move_champion(promotion.version, replaces=promotion.replaces)
        yield {"verdict": verdict.value}

    def _promotion(self, version: str) -> Promotion:
        stages = self._stages
        generator = Generator(
            name=f"{_MODEL}-v{version}",
            revision=f"v{version}",
            endpoint="server:local",
            model=f"{_MODEL}-v{version}",
            capability=2.0 + 0.1 * int(version),
            lineage_depth=int(version),
        )
        return Promotion(
            cycle_id=self._cycle_id,
            model_name=_MODEL,
            version=version,
            replaces=json.loads(self._result_of(StepName.SELECT).read_text())["champion"],
            generator=generator,
            promoted_at=stages.clock.now(),
        )
