"""What every section of the settings is made from."""

from collections.abc import Iterable, Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "Port",
    "Section",
    "refuse",
    "repeated",
]


Port = Annotated[int, Field(ge=0, le=65535)]


class Section(BaseModel):
    """A group of keys; a key that it does not know is an error, never ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


def refuse(faults: Iterable[str]) -> None:
    """Refuse a value for all that is wrong with it: one line each, which names its key.

    Raises:
        ValueError: there are faults.
    """
    if lines := "\n".join(faults):
        raise ValueError(lines)


def repeated(key: str, names: Sequence[str]) -> list[str]:
    """Return the fault that names are not all different, if they are not."""
    is_repeated = len(set(names)) < len(names)
    return [f"{key}: names must differ, but they are {list(names)}"] if is_repeated else []
