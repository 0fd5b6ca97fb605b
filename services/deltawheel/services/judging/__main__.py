"""`python -m deltawheel.services.judging --settings FILE`."""

from deltawheel.infra import wiring
from deltawheel.services.judging.handler import Judging
from deltawheel.services.runtime.entry import Parts, run_streaming
from deltawheel.services.runtime.guards import GuardedJudge

__all__: list[str] = []


def build(parts: Parts) -> Judging:
    """Wire the handler."""
    return Judging(
        store=parts.store,
        judge=GuardedJudge(
            wiring.open_judge(parts.settings, parts.telemetry, parts.random), parts.dependencies
        ),
        rubric=parts.settings.make_rubric(),
        clock=parts.clock,
        telemetry=parts.telemetry,
        failpoints=parts.failpoints,
        concurrency=parts.settings.judge.concurrency,
    )


if __name__ == "__main__":
    raise SystemExit(run_streaming("judging", build))
