"""`python -m deltawheel.services.generation --settings FILE`."""

from deltawheel.contracts.ports import ChatModel
from deltawheel.infra import wiring
from deltawheel.services.generation.handler import Generation
from deltawheel.services.generation.membership import Membership
from deltawheel.services.generation.probing import Prober, Probing
from deltawheel.services.generation.rotation import inactive
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
        inactive=lambda pool, at: inactive(pool, parts.settings.rotation, at=at),
    )
    probing = _probing(parts, models)
    generation = Generation(
        settings=parts.settings,
        store=parts.store,
        models=models,
        on_dealt=models.expect,
        judge_revision=wiring.judge_revision(parts.settings),
        clock=parts.clock,
        telemetry=parts.telemetry,
        failpoints=parts.failpoints,
        ticks=(*membership.ticks, *(probing.ticks if probing else ())),
        held_out=probing.held_out if probing else None,
        on_answer=membership.heard,
    )

    def note_change() -> None:
        generation.forget_pool()
        parts.dependencies.wake()

    membership.on_change = note_change
    if probing is not None:
        probing.on_change = generation.forget_pool
    return generation


def _probing(parts: Parts, models: ChatModel) -> Probing | None:
    """Return what probes the pool's members, where the settings hold prompts out for that."""
    held_out = wiring.open_held_out(parts.settings)
    if held_out is None:
        return None
    prober = Prober(
        models=models,
        verifier=wiring.open_probe_verifier(parts.settings),
        clock=parts.clock,
        telemetry=parts.telemetry,
        concurrency=parts.settings.probe.concurrency,
    )
    return Probing(
        settings=parts.settings,
        held_out=held_out,
        prober=prober,
        store=parts.store,
        clock=parts.clock,
        random=parts.random,
    )


if __name__ == "__main__":
    raise SystemExit(run_streaming("generation", build))
