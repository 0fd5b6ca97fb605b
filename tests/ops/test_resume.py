"""`deltawheel resume`, and how `status` and `doctor` show what holds a wheel up."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from deltawheel.contracts.interruptions import Halt, Outage
from deltawheel.contracts.store import Store
from deltawheel.infra import wiring
from deltawheel.ops.doctor.examine import site_of
from deltawheel.ops.doctor.findings import Finding, Level
from deltawheel.ops.doctor.flow import check_flow
from deltawheel.ops.operator import operator_name
from tests.ops.stopped import a_config, settings_in
from tests.ops.terminals import Shell
from tests.records import T0, WHEEL, a_deferral

HALT = Halt(
    service="judging",
    topic=f"{WHEEL}.traces",
    partition=1,
    offset=41,
    reason="20 records in a row are invalid; the last: no \x1b[31mreference",
    halted_at=T0,
)
OTHER = replace(HALT, service="curation", topic=f"{WHEEL}.judgements", partition=0)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return a_config(tmp_path)


@pytest.fixture
def store(config: Path) -> Iterator[Store]:
    store = wiring.open_store(settings_in(config))
    yield store
    store.close()


@pytest.fixture
def wheel(config: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> Shell:
    for name in ("DELTAWHEEL_CONFIG", "DELTAWHEEL_HOME"):
        monkeypatch.delenv(name, raising=False)
    return Shell(patch=monkeypatch).on(config)


def read(wheel: Shell, *arguments: str) -> Any:
    done = wheel.run(*arguments, "--json")
    assert (done.code, done.err) == (0, "")
    return json.loads(done.out)


def findings(config: Path) -> list[Finding]:
    return list(check_flow(site_of(settings_in(config), config)))


def test_everything_that_is_halted_goes_on(wheel: Shell, store: Store) -> None:
    store.add_halts([HALT, OTHER])
    resumed = read(wheel, "resume")
    assert {(each["service"], each["partition"]) for each in resumed} == {
        ("judging", 1),
        ("curation", 0),
    }
    assert store.halts() == []
    assert read(wheel, "resume") == []
    assert wheel.run("resume").out == "no partition is halted\n"


@pytest.mark.parametrize(
    "options",
    [
        ("--service", "judging"),
        ("--topic", "traces"),
        ("--topic", f"{WHEEL}.traces"),
        ("--partition", "1"),
        ("--service", "judging", "--partition", "1", "--by", operator_name()),
    ],
)
def test_only_what_is_meant_goes_on(wheel: Shell, store: Store, options: tuple[str, ...]) -> None:
    store.add_halts([HALT, OTHER])
    done = wheel.run("resume", *options)
    assert done.code == 0
    assert "judging" in done.out
    assert "\x1b" not in done.out
    assert store.halts() == [OTHER]


def test_choice_that_means_nothing_is_refused_and_told_what_there_is(
    wheel: Shell, store: Store
) -> None:
    store.add_halts([HALT])
    done = wheel.run("resume", "--service", "generation")
    assert done.code == 1
    assert f"judging {WHEEL}.traces:1" in done.sentence
    assert store.halts() == [HALT]


def test_status_shows_what_holds_the_wheel_up(wheel: Shell, store: Store) -> None:
    now = wiring.system_clock().now()
    store.add_halts([HALT])
    store.add_deferrals([a_deferral()])
    outage = Outage(dependency="server:local", began_at=now - timedelta(minutes=5), ended_at=now)
    over = Outage(dependency="store", began_at=T0, ended_at=T0 + timedelta(seconds=5))
    store.note_outages([outage, over, replace(outage, began_at=now - timedelta(minutes=1))])
    status = read(wheel, "status")
    assert [each["service"] for each in status["halted_partitions"]] == ["judging"]
    assert [each["num_records"] for each in status["deferred"]] == [1]
    assert [each["dependency"] for each in status["outages"]] == ["server:local"]
    told = wheel.run("status").out
    assert "halted: judging at partition 1" in told
    assert "`deltawheel resume`" in told
    assert "down: server:local, for 5 min" in told
    assert "deferred: 1 records of judging, the oldest for" in told
    assert "\x1b[31m" not in told


def test_doctor_finds_nothing_where_the_stream_flows(config: Path, store: Store) -> None:
    [finding] = findings(config)
    assert finding.level is Level.OK


def test_doctor_fails_for_a_halt_and_warns_of_the_rest(config: Path, store: Store) -> None:
    now = wiring.system_clock().now()
    store.add_halts([HALT])
    store.add_deferrals([a_deferral()])
    store.note_outages([Outage(dependency="broker", began_at=T0, ended_at=now)])
    halted, down, deferred = findings(config)
    assert (halted.level, down.level, deferred.level) == (
        Level.FAILURE,
        Level.WARNING,
        Level.WARNING,
    )
    assert "deltawheel resume" in (halted.todo or "")
    assert "broker has been down" in down.found
    assert "1 records of judging are deferred" in deferred.found


def test_doctor_leaves_a_store_that_is_not_there_to_its_own_check(tmp_path: Path) -> None:
    config = a_config(tmp_path)
    [finding] = findings(config)
    assert finding.level is Level.OK
