"""Probing members of the pool now, whatever a wheel that runs does."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from deltawheel.contracts.errors import ConfigError, DeltawheelError
from deltawheel.contracts.generator import Generator
from deltawheel.contracts.pool import Pool
from deltawheel.contracts.probe import Probe
from deltawheel.contracts.settings import Settings
from deltawheel.infra import wiring
from deltawheel.services.generation.probing import Prober, next_sets

__all__ = ["probe_members"]


async def probe_members(settings: Settings, name: str | None) -> list[Probe]:
    """Ask one member, or all that stand, what they are asked next; store it and return it.

    Each probe is stored as soon as it is there.

    Raises:
        ConfigError: no prompts are held out, or their file cannot be used.
        DeltawheelError: there is no such member, or one of them could not be probed.
    """
    held_out = wiring.open_held_out(settings)
    if held_out is None:
        raise ConfigError(
            "probe.file: unset, so there is nothing to ask; name a JSONL file with prompts and "
            "their reference answers, or sandbox"
        )
    with wiring.reading(settings) as store:
        past = store.probes()
        members = _members(Pool.from_log(store.pool_log()), name)
        async with _prober(settings) as prober:
            return [
                store.add_probes([await prober.probe(member, items)])[0]
                for member in members
                for items in next_sets(held_out, member, past)
            ]


def _members(pool: Pool, name: str | None) -> Sequence[Generator]:
    if name is None:
        return pool.standing()
    if name not in pool.members:
        raise DeltawheelError(
            f"the pool has no member {name!r}; it has {', '.join(sorted(pool.members)) or 'none'}"
        )
    return [pool.members[name]]


@asynccontextmanager
async def _prober(settings: Settings) -> AsyncIterator[Prober]:
    telemetry = wiring.open_telemetry(settings)
    models = wiring.open_models(settings, telemetry)
    try:
        yield Prober(
            models=models,
            verifier=wiring.open_probe_verifier(settings),
            clock=wiring.system_clock(),
            telemetry=telemetry,
            concurrency=settings.probe.concurrency,
        )
    finally:
        await models.aclose()
