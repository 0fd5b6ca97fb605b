"""A stopped wheel with a little of everything in its store."""

from pathlib import Path

import yaml

from deltawheel.contracts.cycle import Cycle, CycleState, StepName, StepState
from deltawheel.contracts.dead_letter import Burial
from deltawheel.contracts.gate import Verdict
from deltawheel.contracts.outcome import Outcome
from deltawheel.contracts.settings import Settings
from deltawheel.contracts.store import GroupEnd, Store
from deltawheel.infra import wiring
from tests.infra.store.stored import add_judged
from tests.records import (
    WHEEL,
    a_closing,
    a_cycle,
    a_dead_letter,
    a_generator,
    a_pair,
    a_paired_end,
    a_pool_event,
    a_prompt,
    a_quarantined_end,
    a_quarantined_pair,
    seconds,
)

PAIRED, QUARANTINED, UNPAIRED, OPEN = (a_prompt(f"{number}+1=") for number in range(1, 5))


def a_config(folder: Path) -> Path:
    """Write a settings file for a wheel whose home is there."""
    config = folder / "deltawheel.yaml"
    content = {"wheel": WHEEL, "home": str(folder / "home"), "gateway": {"port": 0}}
    config.write_text(yaml.safe_dump(content))
    return config


def settings_in(config: Path) -> Settings:
    return wiring.load_settings(config)


def database(config: Path) -> Path:
    return settings_in(config).state / "store.db"


def a_stopped_wheel(folder: Path) -> Path:
    """Fill a store as a wheel does, one prompt for each way to end; return the settings file."""
    config = a_config(folder)
    store = wiring.open_store(settings_in(config))
    for prompt in (PAIRED, QUARANTINED, UNPAIRED, OPEN):
        add_judged(store, prompt)
    quarantined = a_quarantined_pair(a_pair(QUARANTINED))
    store.close_groups(
        [
            a_paired_end(a_pair(PAIRED)),
            a_quarantined_end(quarantined),
            GroupEnd(closing=a_closing(UNPAIRED, outcome=Outcome.UNPAIRED)),
        ]
    )
    store.bury([Burial(a_dead_letter())])
    members = (a_generator("weak"), a_generator("strong"), a_generator("mid"))
    store.add_pool_events([a_pool_event(member) for member in members])
    add_rejected_cycle(store)
    store.close()
    return config


def add_rejected_cycle(store: Store) -> Cycle:
    cycle = store.add_cycle(a_cycle("first"))
    for at, name in enumerate(StepName):
        store.begin_step(
            cycle.cycle_id, name, token="t", at=seconds(at), lease_until=seconds(at + 10)
        )
        store.finish_step(
            cycle.cycle_id,
            name,
            token="t",
            state=StepState.DONE,
            at=seconds(at + 0.5),
            result={"num_pairs": 7} if name is StepName.SELECT else {},
        )
    store.end_cycle(cycle.cycle_id, state=CycleState.ENDED, at=seconds(20), verdict=Verdict.REJECT)
    return cycle
