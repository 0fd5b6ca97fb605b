"""`deltawheel rotation`: what would be dealt to whom."""

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


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return a_stopped_wheel(tmp_path)


@pytest.fixture
def wheel(config: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    for name in ("DELTAWHEEL_CONFIG", "DELTAWHEEL_HOME"):
        monkeypatch.delenv(name, raising=False)
    return Shell(patch=monkeypatch).on(config)


def preview(wheel: Shell, *arguments: str) -> Any:
    done = wheel.run("rotation", "preview", "--prompts", "300", "--json", *arguments)
    assert (done.code, done.err) == (0, "")
    return json.loads(done.out)


def test_preview_deals_over_the_ratings_of_the_domain(wheel: Shell, config: Path) -> None:
    with wiring.reading(settings_in(config)) as store:
        probed = [(a_generator("strong"), 20), (a_generator("weak"), 180)]
        store.add_probes([a_probe(it, num_items=200, num_right=right) for it, right in probed])
    told = preview(wheel, "--domain", "sums")
    assert (told["domain"], told["scale"]) == ("sums", "declared-prior+probe")
    assert told["members"][0]["generator"] == "weak"
    assert sum(pair["prompts"] for pair in told["pairs"]) == 300
    assert ("weak", "strong") in {(pair["stronger"], pair["weaker"]) for pair in told["pairs"]}
    elsewhere = preview(wheel, "--domain", "poems", "--policy", "weighted")
    assert (elsewhere["policy"], elsewhere["scale"]) == ("weighted", "declared-prior")
    assert elsewhere["members"][0]["generator"] == "strong"


def test_preview_says_who_is_not_dealt_to_and_why(wheel: Shell, config: Path) -> None:
    content = yaml.safe_load(config.read_text())
    config.write_text(yaml.safe_dump({**content, "rotation": {"max_active": 2}}))
    poet = a_pool_event(a_generator("poet", domains=("poems",)), kind=PoolEventKind.ADDED)
    gone = a_pool_event(a_generator("mid"), kind=PoolEventKind.LEFT, cause="down")
    with wiring.reading(settings_in(config)) as store:
        store.add_pool_events([poet, gone])
    done = wheel.run("rotation", "preview", "--domain", "poems", "--prompts", "10")
    assert done.code == 0
    assert "away" in done.out
    assert "not active now" in done.out
    with wiring.reading(settings_in(config)) as store:
        store.add_pool_events([a_pool_event(poet.generator, kind=PoolEventKind.DRAINED, cause="x")])
    states = {it["generator"]: it["state"] for it in preview(wheel)["members"]}
    assert states == {"strong": "active", "weak": "active", "mid": "away"}


def test_preview_of_a_domain_that_nobody_writes_for_says_so(wheel: Shell, config: Path) -> None:
    only = [a_generator(name, revision="r2", domains=("sums",)) for name in ("strong", "weak")]
    with wiring.reading(settings_in(config)) as store:
        store.add_pool_events(
            [a_pool_event(it, kind=PoolEventKind.ADDED, cause="new") for it in only]
        )
    done = wheel.run("rotation", "preview", "--domain", "poems")
    assert done.code == 1
    assert "no two generators to pair for domain 'poems'" in done.sentence
