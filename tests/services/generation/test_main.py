"""Generation as it is wired: members are probed where prompts are held out, and nowhere else."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deltawheel.contracts.settings import Settings
from deltawheel.infra import wiring
from deltawheel.infra.clock import SystemClock, SystemRandom
from deltawheel.infra.failpoints import FileFailpoints
from deltawheel.infra.telemetry import PrometheusTelemetry
from deltawheel.services.generation.__main__ import build
from deltawheel.services.generation.handler import Generation
from deltawheel.services.runtime.dependencies import Dependencies
from deltawheel.services.runtime.entry import Parts
from tests.records import WHEEL, a_generator, a_pool_event
from tests.servers import stub_in_thread

Wire = Callable[..., tuple[Generation, Parts]]


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Wire]:
    opened: list[Parts] = []

    def wired(**sections: Any) -> tuple[Generation, Parts]:
        settings = Settings(wheel=WHEEL, home=tmp_path, **sections)
        telemetry, clock, random = PrometheusTelemetry(), SystemClock(), SystemRandom(0)
        parts = Parts(
            service="generation",
            settings=settings,
            settings_file=tmp_path / "wheel.yaml",
            store=wiring.open_store(settings),
            clock=clock,
            random=random,
            telemetry=telemetry,
            failpoints=FileFailpoints({}),
            dependencies=Dependencies(
                clock=clock, random=random, telemetry=telemetry, settings=settings.runtime
            ),
        )
        opened.append(parts)
        return build(parts), parts

    yield wired
    for parts in opened:
        parts.store.close()


async def test_nobody_is_probed_unless_prompts_are_held_out(wire: Wire) -> None:
    generation, _ = wire()
    assert "probing" not in {tick.name for tick in generation.ticks}
    assert generation.held_out is None


async def test_members_are_probed_by_the_verifier_of_the_held_out_prompts(wire: Wire) -> None:
    generation, parts = wire(probe={"file": "sandbox", "domain": "sums", "num_items": 8})
    [look] = [tick.run for tick in generation.ticks if tick.name == "probing"]
    with stub_in_thread("stepwise") as (_, url):
        member = a_generator("member").model_copy(update={"endpoint": url, "model": "stepwise"})
        parts.store.add_pool_events([a_pool_event(member)])
        await look()
        await generation.models.aclose()
    [probe] = parts.store.probes()
    assert (probe.generator, probe.domain) == ("member", "sums")
    assert (probe.num_items, probe.num_right) == (8, 8)
    assert generation.held_out is not None
