"""`deltawheel generators`: the pool of a stopped wheel, shown and changed."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from deltawheel.contracts.pool import Pool
from deltawheel.infra import wiring
from tests.ops.stopped import a_stopped_wheel, settings_in
from tests.ops.terminals import Shell

GUEST = ("--endpoint", "http://host:8000/v1", "--model", "m", "--revision", "2026-05")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return a_stopped_wheel(tmp_path)


@pytest.fixture
def wheel(config: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    for name in ("DELTAWHEEL_CONFIG", "DELTAWHEEL_HOME"):
        monkeypatch.delenv(name, raising=False)
    return Shell(patch=monkeypatch).on(config)


def pool_of(config: Path) -> Pool:
    with wiring.reading(settings_in(config)) as store:
        return Pool.from_log(store.pool_log())


def as_json(wheel: Shell, *arguments: str) -> Any:
    done = wheel.run("generators", *arguments, "--json")
    assert (done.code, done.err) == (0, "")
    return json.loads(done.out)


def test_member_is_added_with_all_that_options_say(wheel: Shell, config: Path) -> None:
    options = ("--family", "llama", "--size-b", "7", "--role", "stronger", "--domain", "sums")
    limits = ("--domain", "code", "--max-in-flight", "4", "--temperature", "0.2")
    event = as_json(wheel, "add", "guest", *GUEST, *options, *limits, "--by", "ann")
    assert (event["kind"], event["reason"]) == ("added", "by ann: no reason given")
    guest = pool_of(config).members["guest"]
    assert (guest.family, guest.size_b, guest.role) == ("llama", 7.0, "stronger")
    assert (guest.domains, guest.max_in_flight) == (("sums", "code"), 4)
    assert str(guest.sampling.temperature) == "0.2"


@pytest.mark.parametrize("write", [yaml.safe_dump, json.dumps])
def test_member_is_read_from_a_file_below_what_options_say(
    wheel: Shell, config: Path, tmp_path: Path, write: Any
) -> None:
    file = tmp_path / "member"
    file.write_text(
        write({"name": "guest", "server": "local", "adapter": "sandbox:mid", "weight": 2})
    )
    as_json(wheel, "add", "--file", str(file), "--weight", "3")
    guest = pool_of(config).members["guest"]
    assert (guest.endpoint, guest.weight) == ("server:local", 3.0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("guest",), "give either 'server' or 'endpoint'"),
        (("guest", *GUEST, "--weight", "much"), "weight: "),
        (("guest", "--server", "lokal"), "unknown server 'lokal'; servers are ['local']"),
        (
            ("guest", "--endpoint", "http://me:secret@host/v1", "--model", "m"),
            "no user or password",
        ),
        (("guest", "--server", "local", "--adapter", "nowhere"), "holds no adapter_model"),
        (GUEST, "name: this key is required"),
    ],
    ids=str,
)
def test_member_that_cannot_be_is_an_error_of_usage(
    wheel: Shell, config: Path, arguments: tuple[str, ...], said: str
) -> None:
    done = wheel.run("generators", "add", *arguments)
    assert done.code == 2
    assert said in done.err
    assert "secret" not in done.err
    assert "guest" not in pool_of(config).members


@pytest.mark.parametrize("content", ["- a list", "{not: [valid", "just text"])
def test_file_that_holds_no_member_is_refused(wheel: Shell, tmp_path: Path, content: str) -> None:
    file = tmp_path / "member.yaml"
    file.write_text(content)
    done = wheel.run("generators", "add", "--file", str(file))
    assert (done.code, "member.yaml: " in done.sentence) == (2, True)


def test_model_without_a_revision_is_added_with_a_warning(wheel: Shell) -> None:
    done = wheel.run("generators", "add", "guest", *GUEST[:4])
    assert done.code == 0
    assert "a change of 'm' would go unnoticed" in done.err


def test_member_goes_and_comes_back_and_its_log_says_who(wheel: Shell, config: Path) -> None:
    as_json(wheel, "drain", "weak", "--by", "ann", "--reason", "it is slow")
    assert "weak" not in pool_of(config).members
    as_json(wheel, "return", "weak")
    assert "weak" in pool_of(config).members
    as_json(wheel, "retire", "weak", "--by", "bob")
    shown = as_json(wheel, "show", "weak")
    assert (shown["is_member"], shown["came_by"]) == (False, None)
    assert [event["kind"] for event in shown["log"]] == [
        "declared",
        "drained",
        "declared",
        "retired",
    ]
    assert "by ann: it is slow" in wheel.run("generators", "show", "weak").out
    assert "by bob: no reason given" in wheel.run("generators", "log").out
    assert len(as_json(wheel, "log", "--limit", "2")) == 2


def test_what_the_pool_has_no_place_for_is_a_failure_in_one_sentence(wheel: Shell) -> None:
    unknown = wheel.run("generators", "drain", "nobody")
    assert (unknown.code, "'mid', 'strong', 'weak'" in unknown.sentence) == (1, True)
    taken = wheel.run("generators", "add", "weak", *GUEST)
    assert (taken.code, "--replace" in taken.sentence) == (1, True)
    wheel.run("generators", "drain", "weak")
    last = wheel.run("generators", "drain", "mid")
    assert (last.code, "a pair needs two" in last.sentence) == (1, True)
    assert wheel.run("generators", "drain", "mid", "--force").code == 0


def test_members_are_listed_with_what_they_may_take_and_cost(wheel: Shell) -> None:
    limits = ("--max-tokens-per-day", "1000000", "--prompt-price", "0.3", "--family", "llama")
    as_json(wheel, "add", "guest", *GUEST, *limits)
    [guest] = [one for one in as_json(wheel, "list") if one["name"] == "guest"]
    assert (guest["came_by"], guest["absent"], guest["tokens_today"]) == ("added", None, 0)
    out = wheel.run("generators", "list").out
    assert "1,000,000 tokens a day" in out
    assert "0.3 + 0" in out
