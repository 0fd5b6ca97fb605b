"""Files of a stage: written whole, flushed to the disk, and measured before there is a shortage."""

import errno
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deltawheel.contracts.errors import CycleError, DeltawheelError

__all__ = [
    "flush_tree",
    "folder_bytes",
    "no_space_is_a_cycle_error",
    "read_json",
    "require_space",
    "write_json",
    "write_json_lines",
]

_MB = 1_000_000
_FULL = "No space left on device"


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write one JSON object, the same bytes for the same content."""
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False)
    path.write_text(f"{text}\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read one JSON object.

    Raises:
        CycleError: the file is missing or damaged, which a finished step's never is.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CycleError(f"{path} cannot be read ({error}); start a new cycle") from error
    return content


def write_json_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object per line."""
    with path.open("w", encoding="utf-8") as lines:
        for row in rows:
            lines.write(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n")


def flush_tree(folder: Path) -> None:
    """Bring every file of the folder onto the disk, so that its new name means that it is whole."""
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def folder_bytes(folder: Path) -> int:
    """Return the size of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def require_space(folder: Path, needed_bytes: int) -> None:
    """Make sure that a step's files fit before hours are spent on them.

    Raises:
        CycleError: they do not.
    """
    if shutil.disk_usage(folder).free < needed_bytes:
        raise CycleError(_no_space(folder, needed_bytes))


@contextmanager
def no_space_is_a_cycle_error(folder: Path, needed_bytes: int) -> Iterator[None]:
    """Turn a full disk into one sentence.

    Libraries wrap the error in their own: torch and safetensors quote its text, datasets (for
    lm-eval's items) only names it as the cause. So text and causes are read too.
    """
    try:
        yield
    except DeltawheelError:
        raise
    except Exception as error:
        if _is_full(error):
            raise CycleError(_no_space(folder, needed_bytes)) from error
        raise


def _is_full(error: BaseException | None) -> bool:
    if error is None:
        return False
    is_full = isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}
    return is_full or _FULL in str(error) or _is_full(error.__cause__)


def _no_space(folder: Path, needed_bytes: int) -> str:
    free = shutil.disk_usage(folder).free
    return (
        f"the disk is full: {folder} has {free / _MB:.1f} MB free and this step needs about "
        f"{needed_bytes / _MB:.1f} MB; free some space and run the cycle again"
    )
