"""`python -m deltawheel.services.judging --settings FILE`."""

from functools import partial

from deltawheel.contracts.ports import Judge
from deltawheel.contracts.settings import Settings
from deltawheel.infra import wiring
from deltawheel.services.judging.anchors import AnchorWatch
from deltawheel.services.judging.handler import Judging
from deltawheel.services.judging.panel import open_panel
from deltawheel.services.runtime.entry import Parts, run_streaming

__all__: list[str] = []


def build(parts: Parts) -> Judging:
    """Wire the handler."""
    return Judging(
        store=parts.store,
        judge=_judge(parts, parts.settings, remembers=True),
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


def _judge(parts: Parts, settings: Settings, *, remembers: bool = False) -> Judge:
    opening = partial(wiring.open_judge, settings, parts.telemetry, parts.random)
    return open_panel(opening, settings.judge, parts, remembers=remembers)


if __name__ == "__main__":
    raise SystemExit(run_streaming("judging", build))
