"""Whether the stream flows: halted partitions, dependencies that are down, deferred records."""

from collections.abc import Iterator

from deltawheel.contracts.errors import DeltawheelError
from deltawheel.ops.console import age
from deltawheel.ops.doctor.findings import Finding, Site, failure, ok, warning

__all__ = ["check_flow"]


def check_flow(site: Site) -> Iterator[Finding]:
    """Read what holds the wheel up; a store that cannot be read is the store check's to tell of."""
    from deltawheel.infra import wiring
    from deltawheel.ops.interruptions_view import find_interruptions

    now = site.clock.now()
    try:
        with wiring.reading(site.settings) as store:
            found = find_interruptions(store, now=now)
    except DeltawheelError:
        yield ok("nothing is known to be held up, for the store cannot be read now")
        return
    for halt in found.halts:
        yield failure(
            f"{halt.service} is halted at partition {halt.partition} of {halt.topic}, offset "
            f"{halt.offset}: {halt.reason}",
            "put the deployment right (see `deltawheel dead-letters list`), then run "
            "`deltawheel resume`",
        )
    if found.drift is not None:
        yield failure(
            found.drift.sentence,
            "see how far it is with `deltawheel judge anchors`; no cycle selects meanwhile",
        )
    for outage in found.outages:
        yield warning(
            f"{outage.dependency} has been down for {age(outage.began_at, now)}",
            "bring it back: what needs it waits, and goes on by itself",
        )
    for backlog in found.backlogs:
        yield warning(
            f"{backlog.num_records} records of {backlog.service} are deferred, the oldest for "
            f"{age(backlog.oldest_at, now)}",
            f"look into {backlog.service}'s log for what they fail at",
        )
    if not (found.halts or found.drift or found.outages or found.backlogs):
        yield ok("nothing is halted, down or deferred")
