"""`deltawheel audit --deep` on a running wheel: topics against rows, garbage before and after."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from deltawheel.contracts.events import OutboundMessage, encode
from deltawheel.contracts.prompt import PromptKey
from deltawheel.contracts.trace import Trace
from deltawheel.infra import wiring
from tests.servers import endpoints
from tests.waiting import wait_for
from tests.wheels import Wheel, run_cli, running_up

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

GARBAGE = OutboundMessage(topic="default.traces", key=b"stranger", value=b"{garbage \xff")


@pytest.fixture
def wheel(tmp_path: Path) -> Iterator[Wheel]:
    with endpoints() as settings, running_up(tmp_path / "home", settings) as running:
        yield running


def publish(wheel: Wheel, message: OutboundMessage) -> None:
    with closing(wiring.open_producer(wheel.settings)) as producer:
        producer.publish([message])


def a_stored_trace(wheel: Wheel, prompt_id: str) -> Trace:
    group = wheel.store.group(PromptKey(prompt_id, 0))
    assert group is not None
    return next(iter(group.traces.values()))


def test_what_nobody_has_read_is_no_fault_and_what_contradicts_a_row_is(wheel: Wheel) -> None:
    def topics() -> dict[str, Any]:
        told: dict[str, Any] = wheel.cli("audit", "--deep")["topics"]
        return told

    first, *_ = wheel.submit(
        [{"text": f"{n} + {n}?", "reference_answer": str(2 * n)} for n in range(20)]
    )
    wheel.drained()
    wait_for(lambda: topics()["records"].get("default.pairs") == 20, what="20 pairs' events")
    assert (topics()["dead"], topics()["unread"]) == (0, 0)

    readers = [wheel.process_of(name) for name in ("judging", "monitoring")]
    for reader in readers:
        reader.suspend()
    try:
        publish(wheel, GARBAGE)
        assert topics()["unread"] == 1
    finally:
        for reader in readers:
            reader.resume()
    wait_for(lambda: len(wheel.store.dead_letters(10)) == 2, what="both readers bury the garbage")
    wait_for(lambda: (topics()["dead"], topics()["unread"]) == (1, 0), what="it counts as dead")

    forged = a_stored_trace(wheel, first).model_copy(update={"answer": "forged"})
    publish(wheel, encode(forged, wheel="default", service="stranger"))
    done = run_cli("--config", str(wheel.config), "audit", "--deep")
    assert done.returncode == 1
    assert "says something else than the stored Trace" in done.stdout
