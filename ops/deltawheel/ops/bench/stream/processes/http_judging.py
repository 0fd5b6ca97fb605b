"""`python -m deltawheel.ops.bench.stream.processes.http_judging --settings FILE`."""

from deltawheel.infra import wiring
from deltawheel.ops.bench.stream.http_judge import HttpJudge
from deltawheel.services.judging.handler import Judging
from deltawheel.services.runtime.entry import Parts, run_streaming

__all__: list[str] = []


def build(parts: Parts) -> Judging:
    """Wire judging's own handler to a judge that asks the stub server once a trace."""
    [endpoint] = {generator.endpoint for generator in parts.settings.generators}
    models = wiring.open_models(parts.settings, parts.telemetry)
    return Judging(
        store=parts.store,
        judge=HttpJudge(models, endpoint=str(endpoint)),
        rubric=parts.settings.make_rubric(),
        clock=parts.clock,
        telemetry=parts.telemetry,
        failpoints=parts.failpoints,
        concurrency=parts.settings.judge.concurrency,
    )


if __name__ == "__main__":
    raise SystemExit(run_streaming("judging", build))
