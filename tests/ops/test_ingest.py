"""`deltawheel ingest` against a gateway that answers as the test says."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from deltawheel.infra import wiring
from deltawheel.ops.supervisor.runfile import RunFile
from tests.gateways import FakeGateway, serving
from tests.ops.stopped import settings_in
from tests.ops.terminals import Done, Shell

DEEP = '{"text": "x", "more": ' + "[" * 100_000
FAILED = (500, b'{"detail": "the disk is full"}')
BUSY = (503, b'{"detail": "the store is busy"}')


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> Shell:
    for name in ("DELTAWHEEL_CONFIG", "DELTAWHEEL_HOME", "DELTAWHEEL_GATEWAY_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return Shell(patch=monkeypatch)


def accepting(*ids: str) -> tuple[int, bytes]:
    return 202, json.dumps({"accepted": [accepted(name) for name in ids]}).encode()


def accepted(prompt_id: str) -> Mapping[str, Any]:
    return {"prompt_id": prompt_id, "round": 0, "accepted_at": "2026-01-01T00:00:00+00:00"}


@contextmanager
def running(folder: Path, gateway: FakeGateway) -> Iterator[Path]:
    """Let a wheel with that gateway seem to run, taking two prompts at once."""
    config = folder / "deltawheel.yaml"
    with serving(gateway):
        port = int(gateway.url.rsplit(":", 1)[1])
        content = {"home": str(folder / "home"), "gateway": {"port": port, "max_batch": 2}}
        config.write_text(json.dumps(content))
        settings = settings_in(config)
        run_file = RunFile(settings, wiring.system_clock())
        run_file.claim()
        run_file.begin(settings)
        try:
            yield config
        finally:
            run_file.release()


def ingest(shell: Shell, folder: Path, gateway: FakeGateway, *lines: str, as_json: bool) -> Done:
    file = folder / "prompts.jsonl"
    file.write_text("\n".join(lines))
    options = ("--json",) if as_json else ()
    with running(folder, gateway) as config:
        return shell.on(config).run("ingest", str(file), *options)


def texts_asked(gateway: FakeGateway) -> list[list[str]]:
    return [[prompt["text"] for prompt in body["prompts"]] for _, _, body in gateway.asked]


def test_line_that_is_nested_too_deeply_is_refused_and_later_ones_are_submitted(
    shell: Shell, tmp_path: Path
) -> None:
    gateway = FakeGateway(first=[accepting("a", "b")])
    done = ingest(shell, tmp_path, gateway, '{"text": "1"}', DEEP, '{"text": "2"}', as_json=True)
    assert done.code == 1
    told = json.loads(done.out)
    assert told["accepted"] == [accepted("a"), accepted("b")]
    [refused] = told["refused"]
    assert refused["line"] == 2
    assert "not a valid prompt: maximum recursion depth exceeded" in refused["reason"]
    assert texts_asked(gateway) == [["1", "2"]]


def test_what_the_gateway_would_ignore_cannot_spoil_a_batch(shell: Shell, tmp_path: Path) -> None:
    gateway = FakeGateway(first=[accepting("a")])
    line = '{"text": "1", "domain": "sums", "more": ' + "[" * 900 + "]" * 900 + "}"
    assert ingest(shell, tmp_path, gateway, line, as_json=False).code == 0
    [(_, _, body)] = gateway.asked
    assert body == {"prompts": [{"text": "1", "domain": "sums"}]}


def test_busy_gateway_is_asked_again_and_that_is_said(shell: Shell, tmp_path: Path) -> None:
    gateway = FakeGateway(first=[BUSY, accepting("a")])
    done = ingest(shell, tmp_path, gateway, '{"text": "1"}', as_json=False)
    assert done.code == 0
    assert done.err.splitlines() == [
        "the store is busy; trying again in 1 s (1 of 4)",
        "1 accepted",
    ]
    assert done.out == "1 prompts accepted, 0 lines refused\n"
    assert texts_asked(gateway) == [["1"], ["1"]]


LINES = ('{"text": "1"}', "{", '{"text": "2"}', '{"text": "3"}')


def test_failure_tells_what_was_accepted_before_it(shell: Shell, tmp_path: Path) -> None:
    gateway = FakeGateway(first=[accepting("a", "b"), FAILED])
    done = ingest(shell, tmp_path, gateway, *LINES, as_json=False)
    assert done.code == 1
    assert done.out == "2 prompts accepted, 1 lines refused\n"
    *_, refused, last = done.err.splitlines()
    assert refused.startswith("line 2: not a valid prompt: ")
    assert last == "deltawheel: the gateway answered 500: the disk is full"


def test_failure_tells_what_was_accepted_before_it_as_json(shell: Shell, tmp_path: Path) -> None:
    gateway = FakeGateway(first=[accepting("a", "b"), FAILED])
    done = ingest(shell, tmp_path, gateway, *LINES, as_json=True)
    assert done.code == 1
    told = json.loads(done.out)
    assert told["accepted"] == [accepted("a"), accepted("b")]
    assert [refused["line"] for refused in told["refused"]] == [2]
    assert told["failure"] == "the gateway answered 500: the disk is full"
    assert texts_asked(gateway) == [["1", "2"], ["3"]]
