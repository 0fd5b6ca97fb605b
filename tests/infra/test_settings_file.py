import stat
from pathlib import Path

import pytest

from deltawheel.contracts.errors import ConfigError
from deltawheel.infra.settings_file import (
    environment_without_settings,
    load_settings,
    save_settings,
    settings_faults,
    shown_settings,
)


def a_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "deltawheel.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "gateway: {prot: 1}",
            "gateway.prot: unknown key; did you mean 'port'? (valid keys: host, ",
        ),
        ("gatway: {}", "gatway: unknown key; did you mean 'gateway'?"),
        ("gateway: {port: 99999}", "gateway.port: Input should be less than or equal to 65535"),
        ("generators: [{name: a, server: local, adpter: x}]", "did you mean 'adapter'?"),
        (
            "generators: [{name: a, server: nowhere}, {name: b, server: local}]",
            "generators.a.server: unknown server 'nowhere'; servers are ['local']",
        ),
        (
            "rotation: {pairs: [[strong, nobody]]}",
            "rotation.pairs: unknown generator 'nobody'; generators are ['strong', 'mid', 'weak']",
        ),
        ("training: {dimension: charm}", "training.dimension: unknown 'charm'; it may be order_by"),
        ("broker: {kind: kafka}", "broker.bootstrap: kind kafka needs 'bootstrap'"),
        ("generators: []", "generators: a pair needs two, so name at least two"),
        (
            "judge: {answer_pattern: 'A:('}",
            "judge.answer_pattern: no regular expression: missing ), unterminated subpattern at "
            "position 2 (it is 'A:(')",
        ),
        ("a: [", "not valid YAML: line 1, column 5: expected the node content"),
        ("just text", "it must hold keys with values"),
    ],
)
def test_wrong_key_is_named_with_what_would_be_valid(
    tmp_path: Path, text: str, sentence: str
) -> None:
    [fault, *_] = settings_faults(a_file(tmp_path, text))
    assert sentence in fault


def test_every_wrong_key_is_named(tmp_path: Path) -> None:
    path = a_file(tmp_path, "gateway: {prot: 1, hots: x}\njudge: {nois: 1}")
    assert len(settings_faults(path)) == 3


WRONG_ALL_OVER = """
gateway: {prot: 1}
broker: {host: 0.0.0.0}
store: {url: "mysql://h/d"}
servers: [{name: local, host: 0.0.0.0}]
generators:
- {name: a, endpoint: "host:8000", model: m}
- {name: b, server: locl}
- {name: c, server: local, adapter: "sandbox:stong"}
rotation: {pairs: [[a, nobody], [a, a]]}
judge: {answer_pattern: "A:(", self_preference: 0.5}
rubric: {dimensions: {charm: "?"}, order_by: {grace: 1}}
training: {cron: "0 3 * *", server: nowhere, dimension: wit}
evaluation:
  answer_pattern: "A"
  suites: [{name: x, role: guard, items: "sandbox:x"}, {name: x, role: guard, items: x}]
"""


def test_every_kind_of_fault_is_named_in_one_run(tmp_path: Path) -> None:
    faults = settings_faults(a_file(tmp_path, WRONG_ALL_OVER))
    assert sorted(fault.split(": ")[0] for fault in faults) == sorted(
        [
            "gateway.prot",
            "broker.host",
            "store.url",
            "servers.0.host",
            "generators.0.endpoint",
            "generators.2.adapter",
            "generators.b.server",
            "rotation.pairs",  # with an unknown generator
            "rotation.pairs",  # with itself
            "judge.answer_pattern",
            "judge.favourite",
            "rubric.dimensions",
            "rubric.order_by",
            "training.cron",
            "training.server",
            "training.dimension",
            "evaluation.answer_pattern",
            "evaluation.suites.0.items",
            "evaluation.suites.1.items",
            "evaluation.suites",  # of one name
            "evaluation.suites",  # none out-of-domain
        ]
    )
    assert not any("stand-in" in fault for fault in faults)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("servers: [{name: A!}]\ntraining: {server: mine}", "servers.0.name"),
        ("servers: 5\ntraining: {server: mine}", "servers"),
        ("servers: [5]\ntraining: {server: mine}", "servers.0"),
        (
            "generators: [{name: A!, server: local}, {name: b, server: local}]\n"
            "rotation: {pairs: [[a, b]]}\njudge: {favourite: a}",
            "generators.0.name",
        ),
        (
            "judge: {kind: exactly}\nrubric: {dimensions: {factuality: '?'}}",
            "judge.kind",
        ),
        ("broker: {kind: kafkaesque, host: 0.0.0.0}", "broker.kind"),
        ("rubric: {dimensions: 5}\ntraining: {dimension: wit}", "rubric.dimensions"),
        ("evaluation: {suites: [{name: x, role: odd, items: x.jsonl}]}", "evaluation.suites.0.rol"),
    ],
)
def test_nothing_is_said_of_what_hangs_on_a_wrong_value(
    tmp_path: Path, text: str, key: str
) -> None:
    [fault] = settings_faults(a_file(tmp_path, text))
    assert fault.startswith(key)


def test_fault_in_the_environment_is_named_with_those_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DELTAWHEEL_GATEWAY__PORT", "none of your business")
    path = a_file(tmp_path, "training: {cron: x}")
    assert [fault.split(":")[0] for fault in settings_faults(path)] == [
        "gateway.port",
        "training.cron",
    ]


@pytest.mark.parametrize(
    "text",
    [
        'store: {url: "mysql://u:secret@h/d"}',
        'generators: [{name: a, endpoint: "http://u:secret@h/v1", model: m}]',
        'registry: {uri: ["http://u:secret@h"]}',
        'store: {url: "postgresql://u:secret@h/d" }}',
        '"http://u:secret@h": 1',
    ],
)
def test_no_fault_shows_a_password(tmp_path: Path, text: str) -> None:
    path = a_file(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_settings(path)
    assert settings_faults(path)
    assert "secret" not in str(caught.value) + "".join(settings_faults(path))
    assert "sec" not in str(caught.value)


def test_settings_are_shown_without_passwords_and_otherwise_whole() -> None:
    settings = load_settings(
        None,
        store={"url": "postgresql://u:secret@h/d"},
        registry={"uri": "https://u:secret@mlflow"},
    )
    shown = shown_settings(settings)
    assert shown["store"]["url"] == "postgresql://u:***@h/d"
    assert shown["registry"]["uri"] == "https://u:***@mlflow"
    assert shown_settings(load_settings(None)) == load_settings(None).model_dump(mode="json")


def test_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="deltawheel init"):
        load_settings(tmp_path / "none.yaml")


def test_environment_stands_above_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DELTAWHEEL_GATEWAY__PORT", "1234")
    settings = load_settings(a_file(tmp_path, "gateway: {port: 1, max_batch: 7}"))
    assert (settings.gateway.port, settings.gateway.max_batch) == (1234, 7)


def test_processes_of_a_wheel_do_not_inherit_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DELTAWHEEL_GATEWAY__PORT", "0")
    monkeypatch.setenv("DELTAWHEEL_GATEWAY_TOKEN", "secret")
    kept = environment_without_settings()
    assert "DELTAWHEEL_GATEWAY__PORT" not in kept
    assert kept["DELTAWHEEL_GATEWAY_TOKEN"] == "secret"


def test_saved_settings_load_as_they_were(tmp_path: Path) -> None:
    settings = load_settings(None, home=tmp_path, judge={"inverted": True})
    save_settings(settings, tmp_path / "saved.yaml")
    assert [path.name for path in tmp_path.iterdir()] == ["saved.yaml"]
    assert load_settings(tmp_path / "saved.yaml") == settings


def test_nobody_else_can_read_saved_settings_while_they_are_written(tmp_path: Path) -> None:
    part, target = tmp_path / "saved.part", tmp_path / "saved.yaml"
    part.write_text("left by a killed process")
    part.chmod(0o644)
    target.mkdir()  # so that the finished file cannot take its place
    with pytest.raises(IsADirectoryError):
        save_settings(load_settings(None), target)
    assert "wheel: default" in part.read_text()
    assert stat.S_IMODE(part.stat().st_mode) == 0o600
