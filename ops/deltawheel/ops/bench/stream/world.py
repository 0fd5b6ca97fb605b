"""What the bench runs: its settings, its prompts, and which processes take which part."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from deltawheel.contracts.settings import BrokerKind, Settings
from deltawheel.infra.listening import answers_200, find_free_port
from deltawheel.infra.processes import Command
from deltawheel.infra.settings_file import load_settings, save_settings
from deltawheel.ops.bench.stream.graded import JUDGE_MODEL
from deltawheel.ops.bench.stream.instant import LARGE, SMALL
from deltawheel.ops.supervisor.plan import (
    ProcessKind,
    ProcessPlan,
    log_folder,
    plan_service,
    run_folder,
    service_environment,
)

__all__ = ["STREAM", "World", "prompt_bodies", "prompt_text"]

STREAM: Final = ("gateway", "generation", "judging", "curation")
"""The services between a prompt and its stored pair; training and monitoring only look on."""

_CONCURRENCY: Final = 1_000
"""Records in work at once: nothing is spared by fewer where models answer at once."""

_HTTP_CONCURRENCY: Final = 128
"""Where each holds connections: more are opened than used again."""

_PROCESSES: Final = "deltawheel.ops.bench.stream.processes"
_NOWHERE: Final = "http://127.0.0.1:9/v1"
"""Where nobody listens: models that answer at once are not asked over HTTP."""


def prompt_text(number: int) -> str:
    """Return the text of one prompt; no two are alike."""
    return f"Problem {number}: add {number} and {number + 17}, and say how you did it."


def prompt_bodies(first: int, count: int) -> Iterator[dict[str, Any]]:
    """Yield submissions, numbered from `first`."""
    for number in range(first, first + count):
        yield {"domain": "sums", "text": prompt_text(number)}


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """One wheel of the bench.

    Args:
        home: An empty folder for its state.
        broker: The embedded broker, or an Apache Kafka from KAFKA_HOME.
        partitions: Of each topic.
        over_http: Whether models and judge are asked over HTTP, of a stub server.
        members: Processes of each service between gateway and store.
        broker_memory_mb: Past this, the embedded broker is started afresh; unset, the default.
    """

    home: Path
    broker: BrokerKind = BrokerKind.EMBEDDED
    partitions: int = 4
    over_http: bool = False
    members: int = 1
    broker_memory_mb: int | None = None

    def settings(self) -> Settings:
        """Return the settings: the product's defaults, but for who is asked."""
        concurrency = _HTTP_CONCURRENCY if self.over_http else _CONCURRENCY
        endpoint = f"http://127.0.0.1:{find_free_port()}/v1" if self.over_http else _NOWHERE
        generators = [
            {"name": name, "endpoint": endpoint, "model": name, "revision": "1", "capability": it}
            for name, it in ((LARGE, 2.0), (SMALL, 0.0))
        ]
        return load_settings(
            None,
            home=self.home.resolve(),
            gateway={"port": 0},
            broker=self._broker(),
            servers=[],
            generators=generators,
            training={"is_enabled": False},
            generation={"concurrency": concurrency},
            judge={"concurrency": concurrency, **(self._judge(endpoint) if self.over_http else {})},
        )

    def _judge(self, endpoint: str) -> dict[str, Any]:
        asked = {"name": JUDGE_MODEL, "endpoint": endpoint, "model": JUDGE_MODEL, "revision": "1"}
        return {"kind": "llm", "model": asked}

    def _broker(self) -> dict[str, Any]:
        limit = {"max_memory_mb": self.broker_memory_mb} if self.broker_memory_mb else {}
        return {"kind": self.broker.value, "partitions": self.partitions, **limit}

    def cast(self, settings: Settings) -> Callable[[Sequence[ProcessPlan]], Sequence[ProcessPlan]]:
        """Return who runs: broker, the stream's services, and the stub server if it is asked."""
        wanted = {"broker", *STREAM}

        def choose(plans: Sequence[ProcessPlan]) -> Sequence[ProcessPlan]:
            first = [plan for plan in plans if plan.name in wanted]
            file = run_folder(settings) / "settings.yaml"
            chosen = [self._play(plan, plan.name, file) for plan in first]
            for number in range(2, self.members + 1):
                chosen += self._further_members(load_settings(file), number)
            return [*chosen, *([_stub_plan(settings)] if self.over_http else [])]

        return choose

    def _play(self, plan: ProcessPlan, service: str, settings_file: Path) -> ProcessPlan:
        """Let the bench's own process take a part whose models answer inside it."""
        if self.over_http or service not in {"generation", "judging"}:
            return plan
        module = f"{_PROCESSES}.{service}"
        return replace(plan, make_command=_command(module, "--settings", settings_file))

    def _further_members(self, settings: Settings, number: int) -> Iterator[ProcessPlan]:
        """Yield plans of another process of each service, as on another machine.

        It has a home of its own, and finds broker and store where the first one's are.
        """
        elsewhere = settings.model_copy(
            update={
                "home": settings.home / f"member-{number}",
                "store": settings.store.model_copy(update={"url": settings.store_url}),
            }
        )
        file = run_folder(elsewhere) / "settings.yaml"
        save_settings(elsewhere, file)
        for service in STREAM[1:]:
            plan = self._play(plan_service(elsewhere, service, file), service, file)
            yield replace(plan, name=f"{service}-{number}")


def _command(module: str, *arguments: object) -> Callable[[], Command]:
    argv = (sys.executable, "-P", "-m", module, *map(str, arguments))
    return lambda: Command(argv=argv, env=service_environment())


def _stub_plan(settings: Settings) -> ProcessPlan:
    endpoint = str(settings.generators[0].endpoint)
    port = int(endpoint.removesuffix("/v1").rpartition(":")[2])
    return ProcessPlan(
        name="models",
        kind=ProcessKind.SERVER,
        make_command=_command(f"{_PROCESSES}.models", "--port", port),
        is_ready=lambda: answers_200(f"http://127.0.0.1:{port}/health"),
        ready_timeout_s=30,
        log_file=log_folder(settings) / "models.log",
        stop_order=10,
        ports=(port,),
    )
