"""Rubrics as files: what an LLM judge is told of each dimension and each score."""

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from deltawheel.contracts.errors import ConfigError
from deltawheel.contracts.record import Name
from deltawheel.contracts.rubric import SCORES
from deltawheel.infra.yaml_file import read_yaml

__all__ = ["SHIPPED_RUBRIC", "read_rubric"]

SHIPPED_RUBRIC: Final = Path(__file__).parent / "judges" / "rubrics" / "paper-five.yaml"


def _with_text_keys(dimension: object) -> object:
    """YAML reads a score as a number; texts are what JSON and settings have as keys."""
    if not isinstance(dimension, Mapping):
        return dimension
    return {str(key): value for key, value in dimension.items()}


class _Dimension(BaseModel):
    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, str]
    question: str = Field(min_length=1)


class _RubricFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Name
    dimensions: Mapping[Name, Annotated[_Dimension, BeforeValidator(_with_text_keys)]] = Field(
        min_length=1
    )
    order_by: Mapping[Name, Annotated[Decimal, Field(gt=0)]] = Field(min_length=1)
    tie_width: Decimal = Field(default=Decimal(0), ge=0, le=4)


def read_rubric(path: Path) -> dict[str, Any]:
    """Return what a rubric's file says, as the keys of the settings' section `rubric`.

    Raises:
        ConfigError: it cannot be read, or lacks a description; the message names the place.
    """
    rubric = read_yaml(path, _RubricFile, key="rubric.file")
    return {
        "name": rubric.name,
        "dimensions": {name: it.question for name, it in rubric.dimensions.items()},
        "anchors": {name: _anchors(path, name, it) for name, it in rubric.dimensions.items()},
        "order_by": dict(rubric.order_by),
        "tie_width": rubric.tie_width,
    }


def _anchors(path: Path, name: str, dimension: _Dimension) -> dict[str, str]:
    described = dimension.__pydantic_extra__
    if missing := [score for score in SCORES if not described.get(score, "").strip()]:
        raise ConfigError(
            f"rubric.file: {path}: dimension {name!r} does not say what score "
            f"{', '.join(missing)} means; describe every score from 1 to 5"
        )
    if unknown := sorted(described.keys() - set(SCORES)):
        raise ConfigError(
            f"rubric.file: {path}: dimension {name!r} has unknown keys {unknown}; it may have "
            "'question' and the scores 1 to 5"
        )
    return {score: described[score].strip() for score in SCORES}
