"""Adapters on disk: kept under their content, and made into one folder that loads anywhere."""

import json
from pathlib import Path

import pytest

from deltawheel.contracts.errors import CycleError
from deltawheel.contracts.ids import digest_of
from deltawheel.contracts.settings import Settings
from deltawheel.pipelines.adapters import adapter_digest, keep_adapter, make_portable
from tests.infra.store.stored import in_threads
from tests.pipelines.fakes import an_adapter

WEIGHTS = b"weights of a test"
CARRIED = {
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "chat_template.jinja",
    "merges.txt",
}
LEFT_OUT = {"model.bin", "optimizer.pt", "weights.ckpt", "array.npy", "modeling.py", ".cache"}


def a_base(folder: Path) -> Path:
    folder.mkdir()
    for name in CARRIED | LEFT_OUT:
        (folder / name).write_text(name)
    return folder


def test_portable_folder_holds_the_base_and_nothing_that_could_run(tmp_path: Path) -> None:
    folder = an_adapter(tmp_path / "model", WEIGHTS)
    config = {"base_model_name_or_path": "/somewhere/else", "target_modules": ["v", "q"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    make_portable(folder, a_base(tmp_path / "base"))
    assert {path.name for path in (folder / "base").iterdir()} == CARRIED
    written = json.loads((folder / "adapter_config.json").read_text())
    assert written == {"base_model_name_or_path": "base", "target_modules": ["q", "v"]}


def test_adapter_is_kept_once_under_the_digest_of_its_weights(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    folder = an_adapter(tmp_path / "trained", WEIGHTS)
    kept = in_threads(4, lambda _: keep_adapter(settings, folder))
    assert set(kept) == {kept[0]}
    assert kept[0].name == digest_of(WEIGHTS).removeprefix("sha256:")
    assert (kept[0] / "adapter_model.safetensors").read_bytes() == WEIGHTS
    assert [path.name for path in kept[0].parent.iterdir()] == [kept[0].name]


def test_folder_without_safetensors_is_no_adapter(tmp_path: Path) -> None:
    (tmp_path / "adapter_model.bin").write_bytes(WEIGHTS)
    with pytest.raises(CycleError, match=r"holds no adapter_model\.safetensors"):
        adapter_digest(tmp_path)
