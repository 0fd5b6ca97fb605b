"""Golden ids: records built from the file's own data, and the ids that they must have for ever.

A changed id is a breaking release. Where that is meant, `python -m tests.contracts.golden` writes
the ids that the code gives now into `golden_ids.json`; its records stay as they are.
"""

import json
from collections.abc import Callable, Mapping
from decimal import Decimal
from operator import attrgetter
from pathlib import Path
from typing import Any

from deltawheel.contracts.assignment import Assignment
from deltawheel.contracts.cycle import Cycle, Trigger
from deltawheel.contracts.dead_letter import DeadLetter
from deltawheel.contracts.events import event_id
from deltawheel.contracts.generator import PoolEvent
from deltawheel.contracts.ids import content_id, seed_of
from deltawheel.contracts.judgement import Judgement, PromptFailed, SlotFailed
from deltawheel.contracts.pair import PreferencePair, QuarantinedPair
from deltawheel.contracts.pool import Pool
from deltawheel.contracts.promotion import Promotion
from deltawheel.contracts.prompt import Prompt
from deltawheel.contracts.record import Record
from deltawheel.contracts.rubric import Rubric
from deltawheel.contracts.slices import SliceManifest
from deltawheel.contracts.trace import Trace
from tests.records import T0

FILE = Path(__file__).with_name("golden_ids.json")

_RECORDS: tuple[type[Record], ...] = (
    Assignment,
    DeadLetter,
    Judgement,
    PoolEvent,
    PreferencePair,
    Promotion,
    Prompt,
    PromptFailed,
    QuarantinedPair,
    Rubric,
    SliceManifest,
    SlotFailed,
    Trace,
)


def _cycle(asked: Mapping[str, str]) -> Cycle:
    trigger = Trigger(asked["trigger"])
    return Cycle.request(wheel=asked["wheel"], trigger=trigger, cause=asked["cause"], at=T0)


def _pool(log: list[Any]) -> Pool:
    return Pool.from_log([PoolEvent.model_validate(event) for event in log])


def _fields(values: list[Any]) -> list[Any]:
    return [
        Decimal(it["decimal"]) if isinstance(it, dict) and "decimal" in it else it for it in values
    ]


MAKERS: Mapping[str, Callable[[Any], Any]] = {
    **{record.__name__: record.model_validate for record in _RECORDS},
    "Cycle": _cycle,
    "Pool": _pool,
    "fields": _fields,
}
"""How a thing of the file is made of its data, by the kind that the file names."""

IDS: Mapping[str, Callable[[Any], str | int]] = {
    "prompt_id": attrgetter("prompt_id"),
    "trace_id of slot 0": lambda assignment: str(assignment.trace_id(0)),
    "trace_id of slot 1": lambda assignment: str(assignment.trace_id(1)),
    "seed of slot 0": lambda assignment: seed_of(assignment.trace_id(0)),
    "judgement_id": attrgetter("judgement_id"),
    "pair_id": attrgetter("pair_id"),
    "event_id": event_id,
    "event_id in the pool's log": attrgetter("event_id"),
    "revision of the pool": attrgetter("revision"),
    "rubric digest": attrgetter("digest"),
    "slice_id": attrgetter("slice_id"),
    "cycle_id": attrgetter("cycle_id"),
    "promotion_id": attrgetter("promotion_id"),
    "letter_id": attrgetter("letter_id"),
    "content_id": lambda fields: content_id("x", 1, *fields),
}
"""Everything that names a thing, by what the file calls it."""


def read() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return content


def id_now(content: Mapping[str, Any], case: Mapping[str, Any]) -> str | int:
    """Return the id that the code gives now to what the case names."""
    [(kind, data)] = content["things"][case["of"]].items()
    return IDS[case["id"]](MAKERS[kind](data))


def write(content: dict[str, Any]) -> None:
    text = json.dumps(content, indent=1)
    FILE.write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    golden = read()
    for case in golden["ids"]:
        case["is"] = id_now(golden, case)
    write(golden)
