"""`deltawheel status` of a running wheel: where to scrape it, and where its broker is."""

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from deltawheel.contracts.settings import Settings
from deltawheel.infra import wiring
from deltawheel.infra.processes import current_process
from deltawheel.ops.supervisor.lifecycle import Phase
from deltawheel.ops.supervisor.plan import ProcessKind, service_file
from deltawheel.ops.supervisor.runfile import ProcessState, RunFile
from tests.infra.store.stored import add_judged
from tests.ops.stopped import a_stopped_wheel, settings_in
from tests.ops.terminals import Shell
from tests.records import a_generator, a_pool_event, a_prompt


def a_state(name: str, kind: ProcessKind = ProcessKind.SERVICE, **changes: object) -> ProcessState:
    state = ProcessState(
        name=name,
        kind=kind,
        phase=Phase.READY,
        guard=current_process(),
        members=(),
        host="127.0.0.1",
        ports=(),
        num_restarts=0,
        last_status=None,
        log_file=Path(f"{name}.log"),
    )
    return state.model_copy(update=changes)


def announce(settings: Settings, name: str, port: int) -> None:
    """Write down a service's health port, as the service does."""
    service_file(settings, name).write_text(json.dumps({"pid": 1, "health_port": port}))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return a_stopped_wheel(tmp_path)


@pytest.fixture
def settings(config: Path) -> Iterator[Settings]:
    """The settings of a wheel that runs, by its run file, in this process."""
    settings = settings_in(config)
    run_file = RunFile(settings, wiring.system_clock())
    run_file.claim()
    run_file.begin(settings)
    states = [
        a_state("broker", ProcessKind.BROKER),
        a_state("vllm-local", ProcessKind.SERVER),
        a_state("judging"),
        a_state("curation"),
        a_state("training", phase=Phase.STARTING),
        a_state("monitoring", phase=Phase.BACKING_OFF, guard=None),
    ]
    run_file.publish(states)
    announce(settings, "judging", 41001)
    announce(settings, "curation", 41002)
    announce(settings, "monitoring", 41003)
    yield settings
    run_file.release()


@pytest.fixture
def wheel(config: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Shell:
    for name in ("DELTAWHEEL_CONFIG", "DELTAWHEEL_HOME"):
        monkeypatch.delenv(name, raising=False)
    return Shell(patch=monkeypatch).on(config)


def status_json(wheel: Shell) -> Any:
    done = wheel.run("status", "--json")
    assert (done.code, done.err) == (0, "")
    return json.loads(done.out)


def test_json_tells_where_each_service_that_runs_can_be_scraped(wheel: Shell) -> None:
    assert status_json(wheel)["metrics"] == {
        "judging": "http://127.0.0.1:41001/metrics",
        "curation": "http://127.0.0.1:41002/metrics",
    }


def test_table_shows_each_services_metrics_beside_it(wheel: Shell) -> None:
    rows = {
        cells[0]: cells for line in wheel.run("status").out.splitlines() if (cells := line.split())
    }
    assert rows["judging"][-1] == "http://127.0.0.1:41001/metrics"
    assert rows["curation"][-1] == "http://127.0.0.1:41002/metrics"
    for name in ("broker", "vllm-local", "training", "monitoring"):
        assert "/metrics" not in rows[name][-1]


def test_file_that_a_service_has_not_written_whole_is_no_address(
    wheel: Shell, settings: Settings
) -> None:
    service_file(settings, "curation").write_text('{"pid": 1')
    assert status_json(wheel)["metrics"].keys() == {"judging"}


def test_both_forms_tell_the_brokers_address(wheel: Shell, settings: Settings) -> None:
    address = wiring.bootstrap_address(settings)
    assert status_json(wheel)["run"]["broker"] == address
    first, *_ = wheel.run("status").out.splitlines()
    assert first.endswith(f", broker {address}")


def test_both_forms_tell_unpaired_prompts_apart_by_cause(wheel: Shell) -> None:
    assert status_json(wheel)["unpaired"] == {"tie": 1}
    assert ["unpaired,", "tie", "1"] in [
        line.split() for line in wheel.run("status").out.splitlines()
    ]


def test_stopped_wheel_can_be_scraped_nowhere(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service_file(settings_in(config), "judging").parent.mkdir(exist_ok=True)
    announce(settings_in(config), "judging", 41001)
    assert status_json(Shell(patch=monkeypatch).on(config))["metrics"] == {}


def test_both_forms_tell_what_was_spent_and_what_for(wheel: Shell, settings: Settings) -> None:
    priced = a_generator("strong", prompt_price=Decimal(1), completion_price=Decimal(1))
    store = wiring.open_store(settings)
    store.add_pool_events([a_pool_event(priced, cause="settings 9")])
    store.close()
    told = status_json(wheel)["spending"]
    strong, weak = told["members"]
    assert (strong["generator"], weak["generator"], weak["cost"]) == ("strong", "weak", "0")
    tokens = strong["prompt_tokens"] + strong["completion_tokens"]
    assert float(told["cost"]) == float(strong["cost"]) == tokens / 1_000_000
    assert told["tokens_per_pair"] == told["tokens"]
    assert told["cost_per_sample_point"] == pytest.approx(float(told["cost"]) / 3)
    out = wheel.run("status").out
    assert "for each point of generator delta" in out
    assert ["strong", "4", str(strong["prompt_tokens"])] in [
        line.split()[:3] for line in out.splitlines()
    ]


def test_both_forms_tell_how_far_judging_is(wheel: Shell) -> None:
    told = status_json(wheel)["judging"]
    assert (told["pending"], told["retrying"], told["dead"]) == (0, 0, 1)
    assert told["judged"] == 8
    assert told["is_blind"] is False
    assert "judging: 8 judged, 0 pending, 0 retrying, 1 dead" in wheel.run("status").out


def test_judge_that_tells_nothing_apart_is_warned_of(wheel: Shell, settings: Settings) -> None:
    store = wiring.open_store(settings)
    for number in range(25):
        add_judged(store, a_prompt(f"{number}+2="))
    store.close()
    told = status_json(wheel)["judging"]
    assert told["is_blind"] is True
    assert set(told["score_spread"].values()) == {0}
    assert "warning: the judge gives all of the newest traces the same" in wheel.run("status").out
