"""`deltawheel generators ladder` and `probe`: what is known of members, and finding out more."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from deltawheel.contracts.generator import PoolEventKind
from deltawheel.infra import wiring
from tests.ops.stopped import a_stopped_wheel, settings_in
from tests.ops.terminals import Shell
from tests.records import a_generator, a_pool_event, a_probe
from tests.servers import stub_in_thread


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return a_stopped_wheel(tmp_path)


@pytest.fixture
def wheel(config: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    for name in ("DELTAWHEEL_CONFIG", "DELTAWHEEL_HOME"):
        monkeypatch.delenv(name, raising=False)
    return Shell(patch=monkeypatch).on(config)


def as_json(wheel: Shell, *arguments: str) -> Any:
    done = wheel.run("generators", *arguments, "--json")
    assert (done.code, done.err) == (0, "")
    return json.loads(done.out)


def hold_out(config: Path, *lines: dict[str, str]) -> None:
    """Write prompts for the probe, and name their file in the settings."""
    prompts = config.with_name("probe.jsonl")
    prompts.write_text("\n".join(json.dumps(line) for line in lines))
    content = yaml.safe_load(config.read_text())
    config.write_text(yaml.safe_dump({**content, "probe": {"file": str(prompts)}}))


def test_ladder_shows_prior_probe_and_judged_work_apart(wheel: Shell, config: Path) -> None:
    with wiring.reading(settings_in(config)) as store:
        probed = [(a_generator("strong"), 4), (a_generator("weak"), 16)]
        store.add_probes([a_probe(it, num_items=20, num_right=right) for it, right in probed])
    [ladder] = as_json(wheel, "ladder")
    assert (ladder["domain"], ladder["scale"]) == ("sums", "declared-prior+probe")
    rated = {it["generator"]: it for it in ladder["ratings"]}
    assert ladder["ratings"][0] == (weak := rated["weak"])
    strong = rated["strong"]
    assert (strong["prior"]["mean"], strong["num_right"], strong["num_items"]) == (1.0, 4, 20)
    assert strong["judged"]["mean"] > weak["judged"]["mean"]
    assert strong["num_judged"] == weak["num_judged"] == 2  # a pair and a tie
    done = wheel.run("generators", "ladder", "--domain", "sums")
    assert "4/20" in done.out
    assert "+1.00 ± 0.50" in done.out


def test_ladder_of_a_domain_of_which_nothing_is_known_is_the_prior(wheel: Shell) -> None:
    [ladder] = as_json(wheel, "ladder", "--domain", "poems")
    assert {it["estimate"] == it["prior"]["mean"] for it in ladder["ratings"]} == {True}
    assert {it["probe"] for it in ladder["ratings"]} == {None}


def test_probe_asks_members_now_and_shows_the_ladder(wheel: Shell, config: Path) -> None:
    hold_out(
        config,
        {"text": "1+1=", "reference_answer": "2", "domain": "sums"},
        {"text": "2+3=", "reference_answer": "5", "domain": "sums"},
    )
    with stub_in_thread("doubles") as (_, url):
        guest = a_generator("guest").model_copy(update={"endpoint": url, "model": "doubles"})
        here = a_pool_event(guest, kind=PoolEventKind.ADDED)
        with wiring.reading(settings_in(config)) as store:
            store.add_pool_events([here])
        told = as_json(wheel, "probe", "guest")
    [probe] = told["probes"]
    assert (probe["generator"], probe["num_items"], probe["num_right"]) == ("guest", 2, 1)
    [ladder] = told["ladders"]
    assert {it["generator"]: it["num_items"] for it in ladder["ratings"]}["guest"] == 2
    with wiring.reading(settings_in(config)) as store:
        assert [it.generator for it in store.probes()] == ["guest"]


def test_probe_without_held_out_prompts_says_which_key_names_them(wheel: Shell) -> None:
    done = wheel.run("generators", "probe")
    assert done.code == 2
    assert done.sentence.startswith("probe.file: unset")


def test_probe_of_nobody_says_who_there_is(wheel: Shell, config: Path) -> None:
    hold_out(config, {"text": "1+1=", "reference_answer": "2"})
    done = wheel.run("generators", "probe", "nobody")
    assert done.code == 1
    assert "no member 'nobody'; it has mid, strong, weak" in done.sentence
