"""What of the rubric a server reuses from one judgement to the next, and how often it is asked."""

import asyncio
import json
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from prometheus_client.parser import text_string_to_metric_families

from deltawheel.contracts.errors import DeltawheelError
from deltawheel.contracts.prompt import PromptSubmission
from deltawheel.contracts.record import MAX_COUNT
from deltawheel.contracts.settings import Settings
from deltawheel.infra import wiring
from deltawheel.infra.settings_file import load_settings
from deltawheel.ops.bench.serving.world import Served
from deltawheel.ops.bench.stream.running import running_stream
from deltawheel.ops.judge_trial import Subject, run_trials, subject_of
from deltawheel.ops.supervisor.plan import ProcessKind, ProcessPlan

__all__ = ["PrefixReuse", "measure_prefix_reuse"]

_CONCURRENCY: Final = 8
_HITS: Final = "vllm:prefix_cache_hits_total"
_REQUESTS: Final = "vllm:request_success_total"

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixReuse:
    """Of so many judgements: the server's requests, and what it found in its prefix cache."""

    judgements: int
    requests: int
    rubric_tokens: int
    """Of the system message, which is the same in every request."""
    hit_tokens: int

    @property
    def hit_rate(self) -> float:
        """Share of the rubric's tokens that were found.

        Hardly anything else can be: behind the rubric comes a fence with a token of its own.
        """
        return min(1.0, self.hit_tokens / (self.requests * self.rubric_tokens))

    @property
    def requests_per_trace(self) -> float:
        """1 where one call scores all dimensions."""
        return self.requests / self.judgements


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bench:
    """One server, and nobody else."""

    home: Path
    served: Served

    def settings(self) -> Settings:
        server = {
            "name": "local",
            "base": self.served.base,
            "served_name": self.served.name,
            "max_model_len": self.served.max_model_len,
            "max_num_seqs": _CONCURRENCY,
            "kv_cache_gb": 2,
        }
        grader = {"name": "grader", "server": "local", "min_coverage": 0}
        return load_settings(
            None,
            home=self.home.resolve(),
            servers=[server],
            generators=[{"name": name, "server": "local"} for name in ("one", "two")],
            judge={"kind": "llm", "model": grader, "concurrency": _CONCURRENCY},
            training={"is_enabled": False},
        )

    def cast(self, settings: Settings) -> Callable[[Sequence[ProcessPlan]], Sequence[ProcessPlan]]:
        return lambda plans: [plan for plan in plans if plan.kind is ProcessKind.SERVER]


def measure_prefix_reuse(served: Served, *, home: Path, count: int, say: Say) -> PrefixReuse:
    """Judge so many traces by expected scores, the model being the judge, after a first one.

    Raises:
        DeltawheelError: the server cannot run, or a trace could not be judged.
    """
    with running_stream(_Bench(home=home, served=served), say=say) as stream:
        settings = stream.wheel.settings
        [server] = settings.servers
        first, *subjects = _subjects(settings, served, count + 1)
        asyncio.run(run_trials([first], settings, say=say))  # somebody has to read the rubric
        before = _counters(server.origin)
        trials = asyncio.run(run_trials(subjects, settings, say=say))
        spent = {name: value - before[name] for name, value in _counters(server.origin).items()}
        if faults := [trial.fault for trial in trials if trial.fault is not None]:
            raise DeltawheelError(f"{len(faults)} of {count} traces were not judged: {faults[0]}")
        rubric = trials[0].exchanges[0]["request"]["messages"][:1]
        return PrefixReuse(
            judgements=count,
            requests=round(spent[_REQUESTS]),
            rubric_tokens=_num_tokens(server.origin, served.name, rubric),
            hit_tokens=round(spent[_HITS]),
        )


def _subjects(settings: Settings, served: Served, count: int) -> list[Subject]:
    at = wiring.system_clock().now()
    bodies = ({"text": served.text(n), "reference_answer": str(n)} for n in range(count))
    submitted = (PromptSubmission.parse(body, max_chars=MAX_COUNT) for body in bodies)
    prompts = (it.accept(wheel=settings.wheel, accepted_at=at) for it in submitted)
    return [
        subject_of(f"trace {n}", prompt, answer=f"First {n}, then one more: {n + 1}. " * 3)
        for n, prompt in enumerate(prompts)
    ]


def _counters(origin: str) -> dict[str, float]:
    """Return the server's sums of what is counted here."""
    with urllib.request.urlopen(f"{origin}/metrics", timeout=30) as page:
        families = text_string_to_metric_families(page.read().decode())
    sums = dict.fromkeys((_HITS, _REQUESTS), 0.0)
    for sample in (sample for family in families for sample in family.samples):
        if sample.name in sums:
            sums[sample.name] += sample.value
    return sums


def _num_tokens(origin: str, model: str, messages: Iterable[Mapping[str, Any]]) -> int:
    body = {"model": model, "messages": list(messages), "add_generation_prompt": False}
    request = urllib.request.Request(
        f"{origin}/tokenize",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        number: int = json.load(answer)["count"]
    return number
