"""The handlers of the real services, built over simulated surroundings."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from deltawheel.contracts.clock import Clock, Random
from deltawheel.contracts.ports import Failpoints, Judge, PairChecks, Telemetry, UnloadingChatModel
from deltawheel.contracts.settings import Settings
from deltawheel.contracts.store import Store
from deltawheel.contracts.topics import Topic
from deltawheel.services.curation.handler import Curation
from deltawheel.services.generation.handler import Generation
from deltawheel.services.judging.handler import Judging
from deltawheel.services.monitoring.handler import Monitoring
from deltawheel.services.runtime.dependencies import Dependencies
from deltawheel.services.runtime.guards import GuardedChatModel, GuardedJudge
from deltawheel.services.runtime.handler import Handler

__all__ = ["LOOPS", "TOPICS", "QuietTelemetry", "Surroundings"]


class QuietTelemetry:
    """Counts nothing: what a simulation wants to know, it asks rows and records."""

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Count nothing."""

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set nothing."""

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Observe nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What one process is made from; `services.runtime.entry.Parts` of a real one."""

    settings: Settings
    store: Store
    models: UnloadingChatModel
    judge: Judge
    checks: PairChecks
    clock: Clock
    random: Random
    telemetry: Telemetry
    failpoints: Failpoints
    dependencies: Dependencies


def _generation(parts: Surroundings) -> Handler:
    models = GuardedChatModel(parts.models, parts.dependencies)
    return Generation(
        settings=parts.settings,
        store=parts.store,
        models=models,
        on_dealt=models.expect,
        judge_revision=parts.judge.revision,
        clock=parts.clock,
        telemetry=parts.telemetry,
        failpoints=parts.failpoints,
    )


def _judging(parts: Surroundings) -> Handler:
    return Judging(
        store=parts.store,
        judge=GuardedJudge(parts.judge, parts.dependencies),
        rubric=parts.settings.make_rubric(),
        clock=parts.clock,
        telemetry=parts.telemetry,
        failpoints=parts.failpoints,
        concurrency=parts.settings.judge.concurrency,
    )


def _curation(parts: Surroundings) -> Handler:
    return Curation(
        settings=parts.settings.curation,
        store=parts.store,
        checks=parts.checks,
        rubric=parts.settings.make_rubric(),
        clock=parts.clock,
        random=parts.random,
        telemetry=parts.telemetry,
        failpoints=parts.failpoints,
    )


def _monitoring(parts: Surroundings) -> Handler:
    return Monitoring(
        settings=parts.settings.monitoring,
        store=parts.store,
        clock=parts.clock,
        telemetry=parts.telemetry,
        failpoints=parts.failpoints,
    )


LOOPS: Final[Mapping[str, Callable[[Surroundings], Handler]]] = {
    "generation": _generation,
    "judging": _judging,
    "curation": _curation,
    "monitoring": _monitoring,
}
"""The services that live on topics, each with what builds its handler."""

TOPICS: Final[Mapping[str, tuple[Topic, ...]]] = {
    "generation": (Topic.PROMPTS, Topic.PROMOTIONS),
    "judging": (Topic.TRACES,),
    "curation": (Topic.JUDGEMENTS,),
    "monitoring": (
        Topic.PROMPTS,
        Topic.TRACES,
        Topic.JUDGEMENTS,
        Topic.PAIRS,
        Topic.PROMOTIONS,
    ),
}
"""What each must read to its end. Not asked of the handlers: one that forgets a topic is found."""
