"""`python -m deltawheel.services.generation --settings FILE`."""

from deltawheel.infra import wiring
from deltawheel.services.generation.handler import Generation
from deltawheel.services.generation.membership import Membership
from deltawheel.services.runtime.entry import Parts, run_streaming
from deltawheel.services.runtime.guards import GuardedChatModel

__all__: list[str] = []


def build(parts: Parts) -> Generation:
    """Wire the handler."""
    models = GuardedChatModel(
        wiring.open_models(parts.settings, parts.telemetry), parts.dependencies
    )
    membership = Membership(
        settings=parts.settings.generation,
        store=parts.store,
        models=models,
        clock=parts.clock,
        random=parts.random,
    )
    generation = Generation(
        settings=parts.settings,
        store=parts.store,
        models=models,
        on_dealt=models.expect,
        judge_revision=wiring.judge_revision(parts.settings),
        clock=parts.clock,
        telemetry=parts.telemetry,
        failpoints=parts.failpoints,
        ticks=membership.ticks,
        on_answer=membership.heard,
    )

    def note_change() -> None:
        generation.forget_pool()
        parts.dependencies.wake()

    membership.on_change = note_change
    return generation


if __name__ == "__main__":
    raise SystemExit(run_streaming("generation", build))
