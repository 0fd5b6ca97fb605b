"""What is served and who runs: a model with its prompts, and the processes around its server."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from deltawheel.contracts.settings import SANDBOX, Settings
from deltawheel.infra.sandbox.paths import model_folder
from deltawheel.infra.settings_file import load_settings
from deltawheel.ops.bench.serving.pinning import Cores, pinned_plan
from deltawheel.ops.supervisor.plan import ProcessKind, ProcessPlan

__all__ = ["SLOTS", "Served", "World", "sandbox", "small_language_model"]

SLOTS: Final = 2
"""Every prompt is asked of two generators."""
_WRITERS: Final = ("one", "two")


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A model as it is measured.

    Args:
        name: What the report calls it.
        base: Folder of its weights, or `sandbox`.
        max_tokens: Longest answer.
        concurrency: Requests under way at the same time, on both sides.
        max_model_len: Longest prompt with answer, tokens.
        num_prompts: Of one run.
        text: The prompt of a number; no two are alike.
    """

    name: str
    base: str
    max_tokens: int
    concurrency: int
    max_model_len: int
    num_prompts: int
    text: Callable[[int], str]

    @property
    def folder(self) -> Path:
        """Where its weights and its tokenizer lie."""
        return model_folder(self.base, key="base")


def small_language_model(folder: Path, *, num_prompts: int) -> Served:
    """Return a language model that a CPU can serve, with questions in words."""
    return Served(
        name="smollm2",
        base=str(folder),
        max_tokens=64,
        concurrency=16,
        max_model_len=4096,
        num_prompts=num_prompts,
        text=lambda n: f"Tom has {n + 100} marbles and finds {n % 7 + 2} more. How many are there?",
    )


def sandbox(*, num_prompts: int) -> Served:
    """Return the sandbox's model, whose answers take milliseconds."""
    return Served(
        name="sandbox",
        base=SANDBOX,
        max_tokens=64,
        concurrency=64,
        max_model_len=128,
        num_prompts=num_prompts,
        text=lambda n: f"{n % 100}+{n // 100 % 10}-{n // 1000 % 10}+{n % 7}=",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A wheel around one server.

    Args:
        home: An empty folder for its state.
        served: The model.
        processes: Names of those that run beside servers and broker; unset, the whole wheel.
        cores: Where servers and everybody else are kept, if they are.
    """

    home: Path
    served: Served
    processes: frozenset[str] | None = None
    cores: Cores | None = None

    def settings(self) -> Settings:
        """Return the settings: both generators are the server's base.

        Prefixes are not cached, for both sides ask the same prompts one after the other.
        """
        served = self.served
        server = {
            "name": "local",
            "base": served.base,
            "served_name": served.name,
            "max_model_len": served.max_model_len,
            "max_num_seqs": served.concurrency,
            "kv_cache_gb": 2,
            "extra_args": ["--no-enable-prefix-caching"],
        }
        return load_settings(
            None,
            home=self.home.resolve(),
            gateway={"port": 0},
            servers=[server],
            generators=[self._generator(name) for name in _WRITERS],
            generation={"concurrency": served.concurrency // SLOTS},
            judge={"kind": "exact-match"},
            training={"is_enabled": False},
        )

    def _generator(self, name: str) -> dict[str, Any]:
        sampling = {"max_tokens": self.served.max_tokens}
        return {"name": name, "server": "local", "sampling": sampling}

    def cast(self, settings: Settings) -> Callable[[Sequence[ProcessPlan]], Sequence[ProcessPlan]]:
        """Return who runs, and where."""
        return lambda plans: [self._placed(plan) for plan in plans if self._runs(plan)]

    def _runs(self, plan: ProcessPlan) -> bool:
        if self.processes is None or plan.kind is not ProcessKind.SERVICE:
            return True
        return plan.name in self.processes

    def _placed(self, plan: ProcessPlan) -> ProcessPlan:
        return plan if self.cores is None else pinned_plan(plan, self.cores)
