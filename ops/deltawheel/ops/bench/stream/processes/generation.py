"""`python -m deltawheel.ops.bench.stream.processes.generation --settings FILE`."""

from deltawheel.ops.bench.stream.instant import JUDGE_REVISION, InstantModels
from deltawheel.services.generation.handler import Generation
from deltawheel.services.runtime.entry import Parts, run_streaming

__all__: list[str] = []


def build(parts: Parts) -> Generation:
    """Wire generation's own handler to models that answer at once."""
    return Generation(
        settings=parts.settings,
        store=parts.store,
        models=InstantModels(),
        judge_revision=JUDGE_REVISION,
        clock=parts.clock,
        telemetry=parts.telemetry,
        failpoints=parts.failpoints,
    )


if __name__ == "__main__":
    raise SystemExit(run_streaming("generation", build))
