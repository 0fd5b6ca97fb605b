"""`python -m deltawheel.ops.bench.stream.processes.http_generation --settings FILE`."""

from deltawheel.infra import wiring
from deltawheel.ops.bench.stream.instant import JUDGE_REVISION
from deltawheel.services.generation.handler import Generation
from deltawheel.services.runtime.entry import Parts, run_streaming

__all__: list[str] = []


def build(parts: Parts) -> Generation:
    """Wire generation as the product does; only the panel names the bench's judge."""
    return Generation(
        settings=parts.settings,
        store=parts.store,
        models=wiring.open_models(parts.settings, parts.telemetry),
        judge_revision=JUDGE_REVISION,
        clock=parts.clock,
        telemetry=parts.telemetry,
        failpoints=parts.failpoints,
    )


if __name__ == "__main__":
    raise SystemExit(run_streaming("generation", build))
