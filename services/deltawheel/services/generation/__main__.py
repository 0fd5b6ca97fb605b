"""`python -m deltawheel.services.generation --settings FILE`."""

from deltawheel.infra import wiring
from deltawheel.services.generation.handler import Generation
from deltawheel.services.runtime.entry import Parts, run_streaming
from deltawheel.services.runtime.guards import GuardedChatModel

__all__: list[str] = []


def build(parts: Parts) -> Generation:
    """Wire the handler."""
    models = GuardedChatModel(
        wiring.open_models(parts.settings, parts.telemetry), parts.dependencies
    )
    return Generation(
        settings=parts.settings,
        store=parts.store,
        models=models,
        on_dealt=models.expect,
        judge_revision=wiring.judge_revision(parts.settings),
        clock=parts.clock,
        telemetry=parts.telemetry,
        failpoints=parts.failpoints,
    )


if __name__ == "__main__":
    raise SystemExit(run_streaming("generation", build))
