import json
import re
import shutil
from pathlib import Path

import pytest

from deltawheel.infra.sandbox.grammar import SUITES
from deltawheel.infra.sandbox.paths import (
    GENERATORS,
    WEIGHTS,
    base_path,
    find_changed_files,
    generator_path,
    manifest,
)

MAX_SAFETENSORS_BYTES = 5_000_000


def test_every_file_is_as_the_manifest_says() -> None:
    assert find_changed_files() == []


def test_a_changed_a_missing_and_a_new_file_are_all_named(tmp_path: Path) -> None:
    copy = tmp_path / "weights"
    shutil.copytree(WEIGHTS, copy)
    (copy / "base" / "config.json").write_text("{}")
    (copy / "base" / "tokenizer.json").unlink()
    (copy / "base" / "extra.txt").write_text("")
    names = ["base/config.json", "base/extra.txt", "base/tokenizer.json"]
    assert find_changed_files(copy) == names


def test_the_weights_are_small_enough_to_be_checked_in() -> None:
    sizes = [path.stat().st_size for path in WEIGHTS.rglob("*.safetensors")]
    assert len(sizes) == 1 + len(GENERATORS)
    assert sum(sizes) <= MAX_SAFETENSORS_BYTES


def test_nothing_but_safetensors_json_and_templates_is_shipped() -> None:
    suffixes = {path.suffix for path in WEIGHTS.rglob("*") if path.is_file()}
    assert suffixes <= {".safetensors", ".json", ".jinja"}


def test_no_file_names_a_path_of_the_machine_that_built_it() -> None:
    for path in WEIGHTS.rglob("*.json"):
        assert not re.search(r'"/[a-z]', path.read_text(encoding="utf-8")), path


def test_every_generator_is_an_adapter_of_rank_16_on_the_served_base() -> None:
    for name in GENERATORS:
        config = json.loads((generator_path(name) / "adapter_config.json").read_text())
        assert config["r"] == 16
        assert config["base_model_name_or_path"] == "sandbox-base"


def test_an_unknown_generator_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="use one of strong, mid, weak"):
        generator_path("brilliant")


def test_the_base_speaks_float32_and_short_contexts() -> None:
    config = json.loads((base_path() / "config.json").read_text())
    assert config["dtype"] == "float32"
    assert config["max_position_embeddings"] == 128
    assert config["vocab_size"] == 22


def test_greedy_the_base_hides_a_skill_that_a_first_step_reveals() -> None:
    accuracy = manifest().greedy_accuracy
    assert set(accuracy["base"]) == set(SUITES)
    for suite in ("in_domain", "out_of_domain_times", "out_of_domain_mixed"):
        assert accuracy["base"][suite] < 0.45
        assert accuracy["base made to start with a step"][suite] > 0.65
    assert accuracy["base"]["guard"] > 0.9


def test_no_generator_is_as_good_as_the_base_can_become() -> None:
    accuracy = manifest().greedy_accuracy
    latent = accuracy["base made to start with a step"]["in_domain"]
    assert all(accuracy[name]["in_domain"] < latent - 0.2 for name in GENERATORS)
