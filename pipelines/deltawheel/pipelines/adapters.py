"""Adapters on disk: named by their content, kept where they outlive the cycle that made them."""

import json
import shutil
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from deltawheel.contracts.errors import CycleError, RetryLaterError
from deltawheel.contracts.generator import Generator, Sampling
from deltawheel.contracts.ids import digest_of
from deltawheel.contracts.promotion import Champion
from deltawheel.contracts.settings import Settings
from deltawheel.infra.sandbox.paths import model_folder
from deltawheel.pipelines.context import StageContext
from deltawheel.pipelines.files import flush_tree

__all__ = [
    "ADAPTER_CONFIG",
    "ADAPTER_WEIGHTS",
    "BASE_FOLDER",
    "adapter_digest",
    "base_folder",
    "evaluation_sampling",
    "keep_adapter",
    "load_with_patience",
    "make_portable",
    "on_server",
    "serve_base",
    "serve_champion",
]

ADAPTER_WEIGHTS: Final = "adapter_model.safetensors"
ADAPTER_CONFIG: Final = "adapter_config.json"
BASE_FOLDER: Final = "base"
_COPIED: Final = frozenset({".safetensors", ".json", ".jinja", ".txt", ".model"})
"""Weights, settings, chat template and vocabularies of a base, by suffix."""
_LOAD_TRIES: Final = 6
_LOAD_WAIT_S: Final = 2.0


def base_folder(settings: Settings) -> Path:
    """Return the folder of the epoch's base model.

    Raises:
        ConfigError: there is no model in it.
    """
    return model_folder(settings.training.base, key="training.base")


def adapter_digest(folder: Path) -> str:
    """Return the digest of an adapter's weights: its exact revision.

    Raises:
        CycleError: the folder holds no adapter saved as safetensors.
    """
    weights = folder / ADAPTER_WEIGHTS
    if not weights.is_file():
        raise CycleError(f"{folder} holds no {ADAPTER_WEIGHTS}, so it is no adapter of this wheel")
    return digest_of(weights.read_bytes())


def make_portable(folder: Path, base: Path) -> None:
    """Turn a saved adapter into one folder that loads anywhere: the base lies in it.

    Only weights as safetensors and text are copied: a pickle could run code where it is loaded.
    """
    config_file = folder / ADAPTER_CONFIG
    config = json.loads(config_file.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = BASE_FOLDER
    config["target_modules"] = sorted(config["target_modules"])
    config_file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    shutil.copytree(base, folder / BASE_FOLDER, ignore=_left_out)
    (folder / "README.md").unlink(missing_ok=True)


def _left_out(folder: str, names: Sequence[str]) -> list[str]:
    return [
        name
        for name in names
        if name.startswith(".")
        or ((Path(folder) / name).is_file() and Path(name).suffix not in _COPIED)
    ]


def keep_adapter(settings: Settings, folder: Path) -> Path:
    """Copy an adapter to `state/adapters/<digest>/`, where servers may load it for ever after."""
    digest = adapter_digest(folder).removeprefix("sha256:")
    kept = (settings.state / "adapters" / digest).resolve()
    if (kept / ADAPTER_WEIGHTS).is_file():
        return kept
    kept.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=kept.parent, prefix=f"{digest}.") as scratch:
        part = Path(scratch) / "adapter"
        part.mkdir()
        for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
            shutil.copyfile(folder / name, part / name)
        flush_tree(part)
        try:
            part.replace(kept)
        except OSError:
            if not (kept / ADAPTER_WEIGHTS).is_file():
                raise
    return kept


def evaluation_sampling(settings: Settings) -> Sampling:
    """Return how both arms are asked: as deployed, greedily by default."""
    evaluation = settings.evaluation
    return Sampling(
        temperature=Decimal(str(evaluation.temperature)), max_tokens=evaluation.max_tokens
    )


def on_server(context: StageContext, name: str, folder: Path, sampling: Sampling) -> Generator:
    """Describe an adapter on the training server, under a model name that no other weights had."""
    revision = adapter_digest(folder)
    return Generator(
        name=name,
        revision=revision,
        endpoint=f"server:{context.server.name}",
        model=f"{name}-{revision.removeprefix('sha256:')[:12]}",
        adapter_path=str(folder),
        capability=0.0,
        sampling=sampling,
    )


def serve_base(context: StageContext) -> Generator:
    """Describe the base itself, as the server answers for it."""
    return Generator(
        name="base",
        revision="base",
        endpoint=f"server:{context.server.name}",
        model=context.server.served_name,
        capability=0.0,
        sampling=evaluation_sampling(context.settings),
    )


def serve_champion(context: StageContext, champion: Champion) -> Generator:
    """Describe the champion of this cycle."""
    if champion.adapter_path is None:
        return serve_base(context)
    return on_server(
        context, "champion", Path(champion.adapter_path), evaluation_sampling(context.settings)
    )


def load_with_patience(context: StageContext, generator: Generator) -> None:
    """Load an adapter into its server, which may be restarting just now.

    Raises:
        RetryLaterError: the server has not come back within about a minute.
    """
    for attempt in range(1, _LOAD_TRIES):
        try:
            context.await_(context.models.load(generator))
        except RetryLaterError as error:
            context.progress(f"{generator.model} is not loaded yet: {error}")
            context.clock.wait(_LOAD_WAIT_S * attempt)
        else:
            return
    context.await_(context.models.load(generator))
