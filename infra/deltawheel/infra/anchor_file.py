"""Anchor cases as files: texts whose order on a dimension is known before a judge is asked."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from deltawheel.contracts.anchors import PARAPHRASE, SOLUTION, AnchorCase
from deltawheel.contracts.errors import ConfigError
from deltawheel.contracts.record import Name
from deltawheel.contracts.settings import JudgeKind, Settings
from deltawheel.infra.yaml_file import read_yaml

__all__ = ["anchor_cases", "read_anchors"]

_FOLDER: Final = Path(__file__).parent / "judges" / "anchors"
_SHIPPED: Final = _FOLDER / "language.yaml"
_OF_SANDBOX: Final = _FOLDER / "sandbox.yaml"


class _Case(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Name
    task: str = Field(min_length=1)
    right_answer: str | None = None
    solution: str = Field(min_length=1)
    paraphrase: str | None = Field(default=None, min_length=1)
    corrupted: Mapping[Name, str] = Field(min_length=1)


class _AnchorFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    cases: Sequence[_Case] = Field(min_length=1)


def anchor_cases(settings: Settings) -> list[AnchorCase]:
    """Return the cases that the settings name, or those that ship for their kind of judge.

    Raises:
        ConfigError: the file cannot be used.
    """
    if settings.anchors.file is not None:
        return read_anchors(settings.anchors.file)
    return read_anchors(_OF_SANDBOX if settings.judge.kind is JudgeKind.SANDBOX else _SHIPPED)


def read_anchors(path: Path) -> list[AnchorCase]:
    """Return the cases of a file, in its order.

    Raises:
        ConfigError: it cannot be read, or a case is wrong; the message names the place.
    """
    file = read_yaml(path, _AnchorFile, key="anchors.file")
    if lines := "\n".join(f"anchors.file: {path}: {fault}" for fault in _faults(file.cases)):
        raise ConfigError(lines)
    return [
        AnchorCase(
            name=case.name,
            task=case.task,
            right_answer=case.right_answer,
            solution=case.solution,
            paraphrase=case.paraphrase,
            corrupted=case.corrupted,
        )
        for case in file.cases
    ]


def _faults(cases: Sequence[_Case]) -> Iterator[str]:
    """Yield what would make a case say nothing, or be taken for another."""
    names = [case.name for case in cases]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        yield f"names must differ, but {repeated} are there twice"
    for case in cases:
        if taken := sorted({SOLUTION, PARAPHRASE} & case.corrupted.keys()):
            yield f"{case.name}.corrupted: {taken} name texts of a case, so no dimension can"
        for dimension, text in case.corrupted.items():
            if text == case.solution:
                yield (
                    f"{case.name}.corrupted.{dimension}: it is the solution itself; make it worse "
                    "on that dimension"
                )
