"""What the bench measures, part by part; each part starts processes of its own."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deltawheel.ops.bench.serving.pinning import two_cores
from deltawheel.ops.bench.serving.prefix import PrefixReuse, measure_prefix_reuse
from deltawheel.ops.bench.serving.saturation import Saturation, measure_saturation
from deltawheel.ops.bench.serving.smollm2 import unpack_smollm2
from deltawheel.ops.bench.serving.world import SLOTS, World, sandbox, small_language_model
from deltawheel.ops.bench.stream.running import running_stream
from deltawheel.ops.bench.stream.world import World as StreamWorld

__all__ = ["Figures", "Plan", "measure"]

_WARM_UP: Final = 200

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the options of `deltawheel bench serving` ask for; numbers are prompts of one run."""

    parts: Sequence[str]
    home: Path
    model: Path | None
    repeats: int
    num_language: int
    num_sandbox: int
    num_judged: int
    num_stub: int

    def model_folder(self) -> Path:
        """Return the language model's folder, unpacked where none is named."""
        return self.model or unpack_smollm2(self.home / "smollm2-135m-instruct")


@dataclass(slots=True, kw_only=True)
class Figures:
    """All that was measured; what was not asked for is unset."""

    smollm2: Saturation | None = None
    sandbox: Saturation | None = None
    whole_sandbox: Saturation | None = None
    prefix: PrefixReuse | None = None
    cpu_ms_per_request: float | None = None


def measure(plan: Plan, *, say: Say) -> Figures:
    """Measure all parts of the plan.

    Raises:
        ConfigError: vLLM or the language model is missing, or a part needs more cores.
        DeltawheelError: a process cannot run, or something was not answered: no figure then.
    """
    figures = Figures()
    run = {
        "smollm2": _smollm2,
        "sandbox": _sandbox,
        "whole-sandbox": _whole_sandbox,
        "prefix": _prefix,
        "cpu": _cpu,
    }
    plan.home.mkdir(parents=True, exist_ok=True)
    for part in plan.parts:
        say(f"part {part}")
        with _empty_home(plan) as home:
            run[part](plan, home, figures, say)
    return figures


@contextmanager
def _empty_home(plan: Plan) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="wheel-", dir=plan.home) as home:
        yield Path(home)


def _smollm2(plan: Plan, home: Path, figures: Figures, say: Say) -> None:
    served = small_language_model(plan.model_folder(), num_prompts=plan.num_language)
    world = World(home=home, served=served)
    figures.smollm2 = measure_saturation(world, repeats=plan.repeats, say=say)


def _sandbox(plan: Plan, home: Path, figures: Figures, say: Say) -> None:
    """Let generation run alone, the server having a core to itself on both sides."""
    world = World(
        home=home,
        served=sandbox(num_prompts=plan.num_sandbox),
        processes=frozenset({"generation"}),
        cores=two_cores(),
    )
    figures.sandbox = measure_saturation(world, repeats=plan.repeats, say=say)


def _whole_sandbox(plan: Plan, home: Path, figures: Figures, say: Say) -> None:
    world = World(home=home, served=sandbox(num_prompts=plan.num_sandbox))
    figures.whole_sandbox = measure_saturation(world, repeats=plan.repeats, say=say)


def _prefix(plan: Plan, home: Path, figures: Figures, say: Say) -> None:
    served = small_language_model(plan.model_folder(), num_prompts=plan.num_judged)
    figures.prefix = measure_prefix_reuse(served, home=home, count=plan.num_judged, say=say)


def _cpu(plan: Plan, home: Path, figures: Figures, say: Say) -> None:
    """Measure generation's processor time against a stub that answers at once."""
    with running_stream(StreamWorld(home=home, over_http=True), say=say) as stream:
        stream.run(_WARM_UP)
        batch = stream.run(plan.num_stub)
        stream.check()
    figures.cpu_ms_per_request = batch.cpu_us_per_pair["generation"] / 1000 / SLOTS
    say(f"generation: {figures.cpu_ms_per_request:.2f} ms of processor time a request")
