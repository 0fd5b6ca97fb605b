"""Where the sandbox's built models lie, and what their manifest says of them.

The weights are package data, checked in beside this module; `deltawheel sandbox build` makes them
anew.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self

from deltawheel.contracts.errors import ConfigError
from deltawheel.contracts.settings.values import SANDBOX

WEIGHTS: Final = Path(__file__).with_name("weights")
GENERATORS: Final = ("strong", "mid", "weak")
MANIFEST_NAME: Final = "manifest.json"


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One built file: its SHA-256 in hexadecimal and its size in bytes."""

    sha256: str
    num_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What was built, from which seed, and how good it is.

    Args:
        seed: The seed of every draw; builds on one machine and library set are alike, elsewhere
            they agree in accuracy, not in bytes.
        command: What builds these files again.
        num_items: Items per suite behind the accuracies; their standard error is at most
            ``.5 / sqrt(num_items)``.
        greedy_accuracy: Share of right answers by suite, decoded greedily, by model.
        files: The built files by path relative to the manifest, in order.
    """

    seed: int
    command: str
    num_items: int
    greedy_accuracy: Mapping[str, Mapping[str, float]]
    files: Mapping[str, FileEntry]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read a folder's manifest."""
        fields = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
        files = {path: FileEntry(**entry) for path, entry in fields.pop("files").items()}
        return cls(files=files, **fields)

    def write(self, folder: Path) -> None:
        """Write the manifest into its folder, the same bytes for the same content."""
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False)
        (folder / MANIFEST_NAME).write_text(f"{text}\n", encoding="utf-8")


def base_path() -> Path:
    """Give the folder of the base model, as vLLM's ``--model`` takes it."""
    return WEIGHTS / "base"


def generator_path(name: str) -> Path:
    """Give the folder of a generator's LoRA adapter, as vLLM's ``--lora-modules`` takes it.

    Raises:
        ValueError: There is no generator of this name.
    """
    if name not in GENERATORS:
        raise ValueError(f"unknown sandbox generator {name!r}; use one of {', '.join(GENERATORS)}")
    return WEIGHTS / "generators" / name


def manifest() -> Manifest:
    """Read the manifest of the weights in the package."""
    return Manifest.read(WEIGHTS)


def describe_files(folder: Path) -> dict[str, FileEntry]:
    """Take the digest and size of every file under a folder but its manifest, in path order."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST_NAME)
    return {
        path.relative_to(folder).as_posix(): FileEntry(
            hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size
        )
        for path in sorted(paths)
    }


def model_folder(declared: str, *, key: str) -> Path:
    """Return the folder of a base model that settings name; `sandbox` is the one that ships.

    Raises:
        ConfigError: there is no model in it; `key` is the setting to correct.
    """
    folder = base_path() if declared == SANDBOX else Path(declared).expanduser()
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"{key}: no model in {folder} (config.json is missing); give the folder of a model, or "
            f"{SANDBOX!r}"
        )
    return folder.resolve()


def find_changed_files(folder: Path = WEIGHTS) -> list[str]:
    """Name every file that is missing, new, or not what the manifest says; empty when all is well.

    `deltawheel doctor` asks: a checkout that mangles binary files would otherwise only show as a
    model that cannot calculate.
    """
    declared, found = Manifest.read(folder).files, describe_files(folder)
    return sorted(
        path for path in declared.keys() | found.keys() if declared.get(path) != found.get(path)
    )
