"""The commands that a person and a script run: their help, what they read, and how they fail."""

import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from deltawheel.contracts.cycle import CycleState, StepName, StepState
from deltawheel.contracts.dead_letter import Burial
from deltawheel.contracts.settings.template import settings_template
from deltawheel.infra import wiring
from deltawheel.ops.cli import cli
from deltawheel.ops.demo.world import demo_settings, prepare_home
from tests.infra.store.stored import add_judged
from tests.ops.stopped import OPEN, PAIRED, a_config, a_stopped_wheel, database, settings_in
from tests.ops.terminals import CONTROL, STYLE, Done, Shell
from tests.records import (
    a_cycle,
    a_dead_letter,
    a_generator,
    a_pair,
    a_paired_end,
    a_pool_event,
    a_prompt,
    seconds,
)

PAIR, CYCLE, LETTER = a_pair(PAIRED), a_cycle("first"), a_dead_letter()
READING: tuple[tuple[str, ...], ...] = (
    ("status",),
    ("pairs", "list"),
    ("pairs", "show", PAIR.pair_id),
    ("cycle", "list"),
    ("cycle", "show", CYCLE.cycle_id),
    ("generators", "list"),
    ("generators", "show", "strong"),
    ("generators", "log"),
    ("dead-letters", "list"),
    ("dead-letters", "show", LETTER.letter_id),
    ("audit",),
)
ASKING_THE_STORE = pytest.mark.parametrize("command", READING, ids=" ".join)
HEAVY = {
    "aiohttp",
    "apscheduler",
    "fastapi",
    "great_expectations",
    "kafka",
    "mlflow",
    "sqlalchemy",
    "sqlmodel",
    "torch",
    "transformers",
    "trl",
}


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> Shell:
    for name in ("DELTAWHEEL_CONFIG", "DELTAWHEEL_HOME", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    return Shell(patch=monkeypatch)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The settings file of a stopped wheel, for tests that only read it."""
    return a_stopped_wheel(tmp_path_factory.mktemp("stopped"))


@pytest.fixture
def wheel(shell: Shell, config: Path) -> Shell:
    return shell.on(config)


@pytest.fixture
def falsifiable(shell: Shell, tmp_path: Path) -> Path:
    """The settings file of a stopped wheel of the test's own."""
    return a_stopped_wheel(tmp_path)


def read_json(shell: Shell, *command: str) -> Any:
    done = shell.run(*command, "--json")
    assert (done.code, done.err) == (0, "")
    return json.loads(done.out)


# Help


def commands_below(
    command: click.Command = cli, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None, f"{name} is listed but does not exist"
            yield from commands_below(found, (*path, name))


COMMANDS = dict(commands_below())
every_command = pytest.mark.parametrize("path", COMMANDS, ids=lambda path: " ".join(path) or "-")


def test_commands_of_all_levels_are_looked_at() -> None:
    assert {("up",), ("demo",), ("cycle", "run"), ("pairs", "show"), ("audit",)} <= COMMANDS.keys()


@every_command
def test_help_says_what_the_command_does(path: tuple[str, ...], shell: Shell) -> None:
    done = shell.run(*path, "--help")
    assert (done.code, done.err) == (0, "")
    first, *_ = (COMMANDS[path].help or "").strip().splitlines()
    assert len(first.split()) >= 4
    assert first.endswith(".")
    assert first in " ".join(done.out.split())


@every_command
def test_every_option_says_what_it_does(path: tuple[str, ...], shell: Shell) -> None:
    shown = " ".join(shell.run(*path, "--help").out.split())
    for parameter in COMMANDS[path].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{parameter.name} of {' '.join(path)} has no help"
            assert parameter.opts[0] in shown
            assert " ".join(parameter.help.split()) in shown
        else:
            assert parameter.make_metavar(click.Context(COMMANDS[path])) in shown


def test_help_lists_every_command_with_one_sentence(shell: Shell) -> None:
    listed = re.findall(
        r"^  ([\w-]+)  +(.+(?:\n   .+)*)", shell.run("-h").out.split("Commands:")[1], re.MULTILINE
    )
    assert [name for name, _ in listed] == [path[0] for path in COMMANDS if len(path) == 1]
    for name, said in listed:
        assert len(said.split()) >= 4, name
        assert said.endswith("."), name


def test_command_that_waits_for_a_verdict_tells_its_exit_codes(shell: Shell) -> None:
    for path in ((), ("demo",), ("cycle", "run")):
        said = " ".join(shell.run(*path, "--help").out.split())
        told = said.lower().split("exit code")[1]
        assert re.search(r"\b3:? rejected.*\b4:? inconclusive", told)
        if path != ("cycle", "run"):
            assert re.search(r"\b130:? stopped by ctrl-c", told)


def test_help_of_all_commands_loads_nothing_heavy() -> None:
    script = """
import contextlib, io, json, sys
from deltawheel.ops.cli import main
for path in json.loads(sys.argv[1]):
    sys.argv = ["deltawheel", *path, "--help"]
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
        main()
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""
    argv = [sys.executable, "-c", script, json.dumps(list(COMMANDS))]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    loaded = set(json.loads(done.stdout))
    assert {"click", "deltawheel"} <= loaded
    assert loaded & HEAVY == set()


def test_what_the_system_refuses_is_one_sentence() -> None:
    argv = [str(Path(sys.executable).with_name("deltawheel")), "config", "template"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr == "deltawheel: No space left on device\n"


def test_plain_help_loads_no_command() -> None:
    script = """
import contextlib, io, sys
from deltawheel.ops.cli import main
sys.argv = ["deltawheel", "--help"]
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
    main()
print([name for name in sys.modules if "pydantic" in name or ".ops.commands" in name])
"""
    argv = [sys.executable, "-c", script]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("fly",), "No such command 'fly'"),
        (("pairs", "fly"), "No such command 'fly'"),
        (("status", "--fly"), "--fly"),
        (("pairs", "show"), "Missing argument 'PAIR_ID'"),
        (("pairs", "list", "--limit", "many"), "'many' is not a valid integer"),
        (("demo", "--prompts", "1"), "1 is not in the range x>=300"),
        (("demo", "--items", "1"), "1 is not in the range x>=50"),
        (("ingest", "/there/is/no/such/file"), "No such file or directory"),
    ],
)
def test_wrong_usage_exits_2_and_says_what_is_wrong(
    arguments: tuple[str, ...], said: str, shell: Shell
) -> None:
    done = shell.run(*arguments)
    assert done.code == 2
    assert said in done.err
    assert "Traceback" not in done.err


def test_version_is_printed(shell: Shell) -> None:
    assert shell.run("--version").out.endswith(f", version {version('deltawheel')}\n")


# A stopped wheel


def test_status_of_a_stopped_wheel_counts_its_rows(wheel: Shell) -> None:
    status = read_json(wheel, "status")
    assert status["is_running"] is False
    assert status["run"] is None
    assert (status["prompts"], status["open"], status["traces"], status["pairs"]) == (4, 1, 8, 1)
    assert status["outcomes"] == {"paired": 1, "quarantined": 1, "unpaired": 1}
    assert status["quarantined"] == {"expect_answers_to_differ": 1}
    assert status["dead_letters"] == 1
    assert status["oldest_open_at"] == "2026-01-01T00:00:00+00:00"
    assert status["cycle"]["cycle_id"] == CYCLE.cycle_id


def test_status_says_in_words_that_the_wheel_is_stopped_and_how_to_start_it(wheel: Shell) -> None:
    done = wheel.run("status")
    assert (done.code, done.err) == (0, "")
    assert "wheel test is stopped; `deltawheel up` starts it" in done.out
    rows = [line.split() for line in done.out.splitlines()]
    assert ["prompts", "4"] in rows
    assert ["quarantined", "1"] in rows
    assert ["dead", "letters", "1"] in rows
    assert any(row[:3] == ["open", "1", "(oldest"] for row in rows)
    assert f"last cycle {CYCLE.cycle_id}: ended, verdict reject" in done.out


def test_pairs_are_listed_with_both_sides_and_both_deltas(wheel: Shell) -> None:
    assert read_json(wheel, "pairs", "list") == [PAIR.model_dump(mode="json")]
    listed = wheel.run("pairs", "list").out
    assert "1 of 1 pairs" in listed
    [row] = [line for line in listed.splitlines() if PAIR.pair_id in line]
    for figure in ("strong", "weak", "3.00", "+1.00 ± 0.50", "1+1="):
        assert figure in row


def test_pages_of_pairs_go_by_id(wheel: Shell) -> None:
    assert read_json(wheel, "pairs", "list", "--after", PAIR.pair_id) == []
    assert len(read_json(wheel, "pairs", "list", "--after", "pair_")) == 1
    assert "0 of 1 pairs" in wheel.run("pairs", "list", "--after", PAIR.pair_id).out


def test_pair_is_shown_with_its_texts_scores_and_deltas(wheel: Shell) -> None:
    assert read_json(wheel, "pairs", "show", PAIR.pair_id) == PAIR.model_dump(mode="json")
    shown = wheel.run("pairs", "show", PAIR.pair_id).out.splitlines()
    assert "prompt    1+1=" in shown
    assert "chosen    1+1=2   by strong" in shown
    assert "rejected  1+1=3   by weak" in shown
    rows = [line.split() for line in shown]
    assert ["factuality", "5.00", "2.00", "+3.00"] in rows
    assert ["order_by", "+3.00"] in rows


def test_cycles_are_listed_with_their_verdicts(wheel: Shell) -> None:
    [listed] = read_json(wheel, "cycle", "list")
    assert (listed["cycle_id"], listed["verdict"]) == (CYCLE.cycle_id, "reject")
    [row] = [line for line in wheel.run("cycle", "list").out.splitlines() if "cycle_" in line]
    assert row.split()[:4] == [CYCLE.cycle_id, "operator", "ended", "reject"]


def test_cycle_is_shown_with_its_steps(wheel: Shell) -> None:
    shown = read_json(wheel, "cycle", "show", CYCLE.cycle_id)
    assert [step["name"] for step in shown["steps"]] == list(StepName)
    text = wheel.run("cycle", "show", CYCLE.cycle_id).out
    rows = [line.split() for line in text.splitlines()]
    assert ["select", "done", "1", "0.5", "num_pairs=7"] in rows
    assert ["verdict:", "reject"] in rows


def test_generators_are_listed_most_capable_first(wheel: Shell) -> None:
    listed = read_json(wheel, "generators", "list")
    assert [member["name"] for member in listed] == ["strong", "mid", "weak"]
    text = wheel.run("generators", "list").out
    assert "3 generators" in text
    rows = [line.split() for line in text.splitlines()]
    assert ["strong", "strong-r1", "r1", "1", "±", "0.5", "0", "declared"] in [
        row[:8] for row in rows
    ]


def test_rotation_preview_deals_on_trial_over_the_pool(wheel: Shell) -> None:
    told = read_json(wheel, "rotation", "preview", "--prompts", "3000")
    assert told["policy"] == "round-robin"
    assert {(row["stronger"], row["weaker"]) for row in told["pairs"]} == {
        ("strong", "mid"),
        ("strong", "weak"),
        ("mid", "weak"),
    }
    assert sum(row["prompts"] for row in told["pairs"]) == 3_000
    aimed = read_json(wheel, "rotation", "preview", "--policy", "delta-targeting")
    assert aimed["mean_generator_delta"] != told["mean_generator_delta"]
    text = wheel.run("rotation", "preview").out
    assert "10000 prompts dealt by round-robin: mean generator delta" in text


def test_audit_of_an_honest_wheel_is_clean(wheel: Shell) -> None:
    audit = read_json(wheel, "audit")
    assert audit == {
        "prompts": 4,
        "outcomes": {"paired": 1, "quarantined": 1, "unpaired": 1},
        "in_flight": 1,
        "oldest_in_flight_at": "2026-01-01T00:00:00+00:00",
        "stages": {
            "closing": {
                "prompts": 1,
                "oldest_at": "2026-01-01T00:00:00+00:00",
                "oldest_prompt_id": OPEN.prompt_id,
                "oldest_round": 0,
            }
        },
        "num_findings": 0,
        "findings": [],
        "offsets": None,
        "offsets_unknown_because": "no wheel runs here, so its own broker does not run either",
        "topics": None,
        "is_clean": True,
    }
    done = wheel.run("audit")
    assert done.code == 0
    assert "every prompt is accounted for" in done.out
    assert "topics: how far they are read is not known: no wheel runs here" in done.out
    assert ["paired", "1"] in [line.split() for line in done.out.splitlines()]


def test_deep_audit_reads_payloads_where_the_topics_cannot_be_read(
    falsifiable: Path, shell: Shell
) -> None:
    assert shell.on(falsifiable).run("audit", "--deep").code == 0
    with closing(sqlite3.connect(database(falsifiable))) as file, file:
        file.execute("UPDATE pairs SET chosen_generator = 'mid'")
    assert shell.on(falsifiable).run("audit").code == 0
    done = shell.on(falsifiable).run("audit", "--deep")
    assert done.code == 1
    assert "pairs.chosen_generator is 'mid', but its payload says 'strong'" in done.out


@pytest.mark.parametrize(
    ("falsify", "kind", "fact"),
    [
        (
            "UPDATE closings SET outcome = 'unpaired' WHERE prompt_id = ?",
            "contradictory",
            "stored as unpaired, the evidence says paired",
        ),
        (
            "DELETE FROM judgements WHERE slot = 0 AND prompt_id = ?",
            "missing",
            "2 slots ended judged, but 1 judgements",
        ),
        (
            "UPDATE prompts SET closed_at = NULL WHERE prompt_id = ?",
            "contradictory",
            "prompts.closed_at says otherwise than the closings: closed as paired",
        ),
        (
            "DELETE FROM closings WHERE prompt_id = ?",
            "contradictory",
            "has pairs but is not closed",
        ),
    ],
)
def test_audit_names_the_prompt_whose_rows_were_falsified_and_exits_1(
    falsify: str, kind: str, fact: str, falsifiable: Path, shell: Shell
) -> None:
    with closing(sqlite3.connect(database(falsifiable))) as file, file:
        assert file.execute(falsify, (PAIRED.prompt_id,)).rowcount == 1
    done = shell.on(falsifiable).run("audit", "--json")
    assert done.code == 1
    audit = json.loads(done.out)
    assert audit["is_clean"] is False
    named = {"kind": kind, "prompt_id": PAIRED.prompt_id, "round": 0, "attempt": 1, "fact": fact}
    assert named in [{name: one[name] for name in named} for one in audit["findings"]]
    assert any(row.startswith("slot 0 ") for one in audit["findings"] for row in one["rows"])
    told = shell.on(falsifiable).run("audit")
    assert told.code == 1
    assert f"{audit['num_findings']} findings" in told.out
    assert PAIRED.prompt_id in told.out
    assert fact in told.out
    assert "accounted for" not in told.out


def test_registry_without_versions_says_who_is_champion(wheel: Shell, config: Path) -> None:
    assert read_json(wheel, "versions") == []
    said = wheel.run("versions").out
    assert said == "deltawheel-test: no version yet; the champion is the base model\n"
    assert not settings_in(config).registry_folder.exists(), "looking made a registry"


@ASKING_THE_STORE
def test_reading_changes_nothing(command: tuple[str, ...], wheel: Shell, config: Path) -> None:
    before = database(config).read_bytes()
    wheel.run(*command)
    assert database(config).read_bytes() == before


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (
            ("pairs", "show", "pair_0"),
            "no pair pair_0 is stored; `deltawheel pairs list` names some",
        ),
        (
            ("cycle", "show", "cycle_0"),
            "there is no cycle cycle_0; `deltawheel cycle list` names them",
        ),
    ],
)
@pytest.mark.parametrize("options", [(), ("--json",)])
def test_unknown_id_exits_1_with_one_sentence(
    command: tuple[str, ...], options: tuple[str, ...], sentence: str, wheel: Shell
) -> None:
    done = wheel.run(*command, *options)
    assert (done.code, done.sentence) == (1, sentence)


@pytest.mark.parametrize("command", [("cycle", "run"), ("ingest", "-")], ids=" ".join)
def test_command_that_needs_a_running_wheel_says_how_to_start_one(
    command: tuple[str, ...], wheel: Shell, config: Path
) -> None:
    done = wheel.run(*command)
    assert done.code == 1
    assert done.sentence.startswith(f"no wheel runs on {settings_in(config).home}: start it with")


def test_demo_refuses_the_home_of_a_wheel_that_it_did_not_make(
    shell: Shell, falsifiable: Path
) -> None:
    home = settings_in(falsifiable).home
    before = database(falsifiable).read_bytes()
    done = shell.run("--home", str(home), "demo")
    assert done.code == 2
    assert done.sentence.startswith(f"{home} holds state, but no demo.json")
    assert "name an empty folder with --home" in done.sentence
    assert [path.name for path in home.iterdir()] == ["state"]
    assert database(falsifiable).read_bytes() == before


def test_demo_refuses_an_environment_that_would_send_it_to_another_store(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "demo"
    prepare_home(demo_settings(home, is_sabotaged=False, num_items=50, seed=0))
    (home / "registry").mkdir()
    monkeypatch.setenv("DELTAWHEEL_STORE__URL", f"sqlite:///{tmp_path}/precious.db")
    done = shell.run("--home", str(home), "demo")
    assert done.code == 2
    assert "DELTAWHEEL_STORE__URL in the environment" in done.sentence
    assert (home / "registry").is_dir(), "an earlier demo is kept until the next one can begin"
    assert not (tmp_path / "precious.db").exists()


# A home where nothing has run


@ASKING_THE_STORE
@pytest.mark.parametrize("options", [(), ("--json",)])
def test_home_where_nothing_has_run_exits_2_and_is_left_empty(
    command: tuple[str, ...], options: tuple[str, ...], shell: Shell, tmp_path: Path
) -> None:
    done = shell.on(a_config(tmp_path)).run(*command, *options)
    assert done.code == 2
    assert done.sentence.startswith("no wheel has run here yet: start one with deltawheel up")
    assert not (tmp_path / "home").exists()


def test_registry_of_a_home_where_nothing_has_run_is_empty(shell: Shell, tmp_path: Path) -> None:
    assert read_json(shell.on(a_config(tmp_path)), "versions") == []
    assert not (tmp_path / "home").exists()


def test_wheel_of_another_name_on_the_same_store_sees_none_of_it(
    shell: Shell, falsifiable: Path
) -> None:
    other = falsifiable.with_name("other.yaml")
    other.write_text(falsifiable.read_text().replace("wheel: test", "wheel: other"))
    assert read_json(shell.on(other), "pairs", "list") == []
    assert read_json(shell.on(other), "audit")["prompts"] == 0


# Settings


def test_home_on_the_command_line_stands_above_file_and_environment(
    wheel: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DELTAWHEEL_HOME", "/somewhere/else")
    options = (*wheel.options, "--home", str(tmp_path))
    there = Shell(patch=wheel.patch, options=options)
    assert read_json(there, "config", "show")["home"] == str(tmp_path)
    assert read_json(wheel, "config", "show")["home"] == "/somewhere/else"


def test_settings_file_in_the_working_folder_is_read(
    shell: Shell, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(config.parent)
    assert read_json(shell, "audit")["prompts"] == 4


def test_settings_file_can_be_named_by_the_environment(
    shell: Shell, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DELTAWHEEL_CONFIG", str(config))
    assert read_json(shell, "audit")["prompts"] == 4


def test_missing_settings_file_exits_2(shell: Shell, tmp_path: Path) -> None:
    done = shell.on(tmp_path / "none.yaml").run("status")
    assert done.code == 2
    assert done.sentence.endswith("there is no such file; `deltawheel init` writes one")


def test_every_wrong_key_is_named_on_a_line_of_its_own(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("gateway: {prot: 1}\njudge: {nois: 1}\n")
    done = shell.on(path).run("status")
    assert done.code == 2
    assert len(done.err.splitlines()) == 2
    assert "did you mean 'port'?" in done.err
    assert "did you mean 'noise'?" in done.err


def test_config_check_names_each_fault_and_exits_2(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("gateway: {prot: 1}\n")
    done = shell.run("config", "check", str(path))
    assert (done.code, done.out) == (2, "")
    assert f"{path}: gateway.prot: unknown key" in done.err
    as_json = shell.run("config", "check", str(path), "--json")
    assert as_json.code == 2
    [fault] = json.loads(as_json.out)["faults"]
    assert "gateway.prot" in fault


def test_config_check_of_a_valid_file_says_so(shell: Shell, config: Path) -> None:
    done = shell.run("config", "check", str(config))
    assert (done.code, done.out) == (0, f"{config}: valid\n")


def test_config_check_without_a_file_says_what_to_name(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = shell.run("config", "check")
    assert done.code == 2
    assert "name a file" in done.err


def test_config_show_prints_settings_that_can_be_loaded_again(
    wheel: Shell, config: Path, tmp_path: Path
) -> None:
    printed = tmp_path / "printed.yaml"
    printed.write_text(wheel.run("config", "show").out)
    assert settings_in(printed) == settings_in(config)
    assert read_json(wheel, "config", "show") == yaml.safe_load(printed.read_text())


def test_config_template_is_the_commented_file(shell: Shell) -> None:
    assert shell.run("config", "template").out == settings_template()


# What others wrote is text


MARKUP = "[red]x[/red] [/nothing] :boom:"
ESCAPES = "\x1b[2J\x1b]0;owned\x07\x1b[31m\x9b2J\x08\x7f\x00\rback"
HOSTILE = MARKUP + ESCAPES
SHOWN = MARKUP + r"\x1b[2J\x1b]0;owned\x07\x1b[31m\x9b2J\x08\x7f\x00\x0dback"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The settings file of a wheel whose prompts, models and training run mean no good."""
    config = a_config(tmp_path_factory.mktemp("hostile"))
    store = wiring.open_store(settings_in(config))
    prompt = add_judged(store, a_prompt(HOSTILE))
    pair = a_pair(prompt, chosen_answer=HOSTILE, rejected_answer=HOSTILE)
    store.close_groups([a_paired_end(pair)])
    store.add_prompts([open_prompt := a_prompt(f"{HOSTILE} again")])
    store.close_groups([])
    member = a_generator("strong", revision=f"r1{ESCAPES}")
    store.add_pool_events([a_pool_event(member)])
    store.bury([Burial(HOSTILE_LETTER)])
    cycle = store.add_cycle(a_cycle("first"))
    store.begin_step(
        cycle.cycle_id, StepName.TRAIN, token="t", at=seconds(1), lease_until=seconds(2)
    )
    store.finish_step(
        cycle.cycle_id,
        StepName.TRAIN,
        token="t",
        state=StepState.FAILED,
        at=seconds(2),
        error=HOSTILE,
    )
    store.end_cycle(cycle.cycle_id, state=CycleState.FAILED, at=seconds(3), error=HOSTILE)
    store.close()
    assert open_prompt.prompt_id != prompt.prompt_id
    return config


HOSTILE_PAIR = a_pair(a_prompt(HOSTILE))
HOSTILE_LETTER = a_dead_letter(HOSTILE.encode()).model_copy(
    update={"reason": HOSTILE, "key": HOSTILE.encode(), "headers": ((HOSTILE, HOSTILE.encode()),)}
)
HOSTILE_IDS = {PAIR.pair_id: HOSTILE_PAIR.pair_id, LETTER.letter_id: HOSTILE_LETTER.letter_id}


def on_hostile(shell: Shell, hostile: Path, command: tuple[str, ...], *options: str) -> Done:
    named = tuple(HOSTILE_IDS.get(part, part) for part in command)
    done = shell.on(hostile).run(*named, *options, at_terminal=True)
    assert done.code == 0, done.err
    return done


@ASKING_THE_STORE
def test_no_control_character_of_others_reaches_a_terminal(
    command: tuple[str, ...], shell: Shell, hostile: Path
) -> None:
    done = on_hostile(shell, hostile, command)
    assert CONTROL.findall(STYLE.sub("", done.out + done.err)) == []


@ASKING_THE_STORE
def test_json_carries_control_characters_only_escaped_and_loses_none(
    command: tuple[str, ...], shell: Shell, hostile: Path
) -> None:
    done = on_hostile(shell, hostile, command, "--json")
    assert CONTROL.findall(done.out) == []
    json.loads(done.out)


def test_markup_in_texts_of_others_is_shown_as_it_is(shell: Shell, hostile: Path) -> None:
    shown = on_hostile(shell, hostile, ("pairs", "show", PAIR.pair_id)).out
    assert f"prompt    {SHOWN}\n" in shown
    assert f"chosen    {SHOWN}   by strong\n" in shown
    assert f"rejected  {SHOWN}   by weak\n" in shown
    listed = on_hostile(shell, hostile, ("pairs", "list")).out
    assert MARKUP in STYLE.sub("", listed)
    cycle = STYLE.sub("", on_hostile(shell, hostile, ("cycle", "show", CYCLE.cycle_id)).out)
    assert cycle.count(SHOWN.replace(r"\x00", "\N{REPLACEMENT CHARACTER}")) == 2


def test_lines_of_a_pairs_texts_cannot_pass_for_ours(shell: Shell, tmp_path: Path) -> None:
    config, sly = a_config(tmp_path), "x\nrejected  well written   by mid"
    store = wiring.open_store(settings_in(config))
    pair = a_pair(add_judged(store, a_prompt(sly)), chosen_answer=sly)
    store.close_groups([a_paired_end(pair)])
    store.close()
    shown = shell.on(config).run("pairs", "show", pair.pair_id).out.splitlines()
    assert len([line for line in shown if line.startswith("rejected ")]) == 1
    assert len([line for line in shown if line.startswith(" " * 10 + "rejected  well")]) == 2


def test_bytes_of_others_are_shown_as_text_that_only_shows(shell: Shell, hostile: Path) -> None:
    shown = on_hostile(shell, hostile, ("dead-letters", "show", LETTER.letter_id)).out
    assert f"key       {SHOWN}\n" in shown
    assert f"header    {SHOWN}: {SHOWN}\n" in shown
    assert f"    {SHOWN}\n" in shown
    assert MARKUP in STYLE.sub("", on_hostile(shell, hostile, ("dead-letters", "list")).out)


def test_texts_of_others_are_in_json_what_they_were(shell: Shell, hostile: Path) -> None:
    pair = json.loads(on_hostile(shell, hostile, ("pairs", "show", PAIR.pair_id), "--json").out)
    assert pair["chosen"]["trace"]["answer"] == HOSTILE
    assert pair["prompt"]["messages"][0]["content"] == HOSTILE


def test_error_that_repeats_what_it_was_given_is_shown_as_text(shell: Shell, config: Path) -> None:
    done = shell.on(config).run("pairs", "show", HOSTILE.replace("\x00", ""), at_terminal=True)
    assert done.code == 1
    assert CONTROL.findall(done.err) == []
    assert MARKUP in done.err


def test_fault_in_a_settings_file_is_shown_as_text(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "hostile.yaml"
    path.write_text('gateway: {"\\x1b[2J[red]": 1}\n')
    for done in (
        shell.run("config", "check", str(path), at_terminal=True),
        shell.on(path).run("status", at_terminal=True),
    ):
        assert done.code == 2
        assert CONTROL.findall(done.err) == []
        assert r"gateway.\x1b[2J[red]: unknown key" in done.err
