"""`python -m deltawheel.ops.bench.stream.processes.judging --settings FILE`."""

from deltawheel.ops.bench.stream.instant import InstantJudge
from deltawheel.services.judging.handler import Judging
from deltawheel.services.runtime.entry import Parts, run_streaming

__all__: list[str] = []


def build(parts: Parts) -> Judging:
    """Wire judging's own handler to a judge that answers at once."""
    return Judging(
        store=parts.store,
        judge=InstantJudge(),
        rubric=parts.settings.make_rubric(),
        clock=parts.clock,
        telemetry=parts.telemetry,
        failpoints=parts.failpoints,
        concurrency=parts.settings.judge.concurrency,
    )


if __name__ == "__main__":
    raise SystemExit(run_streaming("judging", build))
