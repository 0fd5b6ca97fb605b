"""What topics add to an audit: offsets always, every record of them with `--deep`."""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from deltawheel.contracts.topics import Topic

if TYPE_CHECKING:
    from deltawheel.contracts.settings import Settings
    from deltawheel.contracts.store import Store
    from deltawheel.contracts.topic_audit import DeepAudit, GroupOffset

__all__ = ["GROUPS", "compare_topics", "read_offsets"]

GROUPS: Final[Mapping[str, Sequence[Topic]]] = {
    "generation": (Topic.PROMPTS, Topic.PROMOTIONS),
    "judging": (Topic.TRACES,),
    "curation": (Topic.JUDGEMENTS,),
}
"""The groups that move prompts on, and what each reads."""

_DEEP: Final = (Topic.PROMPTS, Topic.TRACES, Topic.JUDGEMENTS, Topic.PAIRS)
_WATCHING: Final[Mapping[str, Sequence[Topic]]] = {"monitoring": _DEEP}
"""Buries what it cannot read, as each of the others does, and is alone in reading pairs."""
_BATCH: Final = 500
_REPORTED_EVERY: Final = 50_000
_SETTLED: Final = timedelta(minutes=1)
"""How old a stored pair is, as the reading begins, before its event is missed."""


def read_offsets(settings: "Settings") -> "list[GroupOffset]":
    """Ask the broker how far each group has read.

    Raises:
        RetryLaterError: the broker cannot be reached.
    """
    from deltawheel.infra import wiring

    settings = _where_it_runs(settings)
    with wiring.reading_topics(settings) as reader:
        return reader.offsets(_named(GROUPS, settings.wheel))


def _named(groups: Mapping[str, Sequence[Topic]], wheel: str) -> dict[str, list[str]]:
    return {
        f"{wheel}.{group}": [topic.of(wheel) for topic in topics]
        for group, topics in groups.items()
    }


def _where_it_runs(settings: "Settings") -> "Settings":
    """Name the port on which a running wheel's own broker listens.

    Raises:
        RetryLaterError: no wheel runs, and so neither does its broker.
    """
    from deltawheel.contracts.errors import RetryLaterError
    from deltawheel.contracts.settings import BrokerKind
    from deltawheel.ops.supervisor.runfile import read_run

    if settings.broker.kind is BrokerKind.KAFKA:
        return settings
    run = read_run(settings)
    if run is None:
        raise RetryLaterError("no wheel runs here, so its own broker does not run either")
    port = int(run.broker.rpartition(":")[2])
    broker = settings.broker.model_copy(update={"port": port})
    return settings.model_copy(update={"broker": broker})


def compare_topics(
    settings: "Settings", store: "Store", *, progress: Callable[[str], None]
) -> "DeepAudit":
    """Read every record of the stream's topics, and compare each with the row behind it.

    Args:
        settings: Whose topics they are.
        store: Holds the rows.
        progress: Told how many records have been read.

    Raises:
        RetryLaterError: the broker cannot be reached.
    """
    from deltawheel.contracts.topic_audit import DeepAudit, batches, compare_events, name_unsent
    from deltawheel.infra import wiring

    topics = [topic.of(settings.wheel) for topic in _DEEP]
    with wiring.reading_topics(_where_it_runs(settings)) as reader:
        audit = DeepAudit(offsets=reader.offsets(_named({**GROUPS, **_WATCHING}, settings.wheel)))
        before = wiring.system_clock().now() - _SETTLED
        for batch in batches(reader.messages(topics), _BATCH):
            compare_events(batch, store, wheel=settings.wheel, audit=audit)
            if audit.messages.total() % _REPORTED_EVERY < _BATCH:
                progress(f"{audit.messages.total()} records of topics")
    moving = _named(GROUPS, settings.wheel)
    is_drained = not any(offset.lag for offset in audit.offsets if offset.group in moving)
    if is_drained and audit.pairs_since is not None:
        name_unsent(store.stored_pairs(since=audit.pairs_since, before=before), audit)
    return audit
