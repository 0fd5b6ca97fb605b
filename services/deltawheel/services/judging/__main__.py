"""`python -m deltawheel.services.judging --settings FILE`."""

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from deltawheel.contracts.ports import Judge
from deltawheel.contracts.settings import Settings
from deltawheel.infra import wiring
from deltawheel.services.judging.anchors import AnchorWatch
from deltawheel.services.judging.handler import Judging
from deltawheel.services.judging.remembering import RememberingJudge
from deltawheel.services.runtime.entry import Parts, run_streaming
from deltawheel.services.runtime.guards import GuardedJudge

__all__: list[str] = []

Around: TypeAlias = Callable[[Judge], Judge]


def build(parts: Parts) -> Judging:
    """Wire the handler."""
    return Judging(
        store=parts.store,
        judge=_judge(parts, parts.settings, around=_remembering(parts)),
        rubric=parts.settings.make_rubric(),
        clock=parts.clock,
        telemetry=parts.telemetry,
        failpoints=parts.failpoints,
        concurrency=parts.settings.judge.concurrency,
        shares_family=parts.settings.judge.shares_family,
        refuses=parts.settings.judge.refuses,
        ticks=(_watch(parts).tick,) if parts.settings.anchor_interval_s else (),
    )


def _watch(parts: Parts) -> AnchorWatch:
    """Wire what judges the judge: asked for anchors are those whose scores count, and no others."""
    counted = parts.settings.model_copy(update={"judge": parts.settings.judge.counted})
    return AnchorWatch.from_settings(
        counted,
        store=parts.store,
        judge=_judge(parts, counted),
        clock=parts.clock,
        random=parts.random,
        telemetry=parts.telemetry,
    )


def _remembering(parts: Parts) -> Around | None:
    """Return what keeps the scores of each model that judges; anchors are asked for each time."""
    if not parts.settings.judge.cache:
        return None
    return partial(
        RememberingJudge, memory=parts.store, clock=parts.clock, telemetry=parts.telemetry
    )


def _judge(parts: Parts, settings: Settings, *, around: Around | None = None) -> GuardedJudge:
    opened = wiring.open_judge(settings, parts.telemetry, parts.random, around=around)
    return GuardedJudge(opened, parts.dependencies)


if __name__ == "__main__":
    raise SystemExit(run_streaming("judging", build))
