"""YAML files that settings name, read into a form; every fault names the key and the place."""

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from deltawheel.contracts.errors import ConfigError

__all__ = ["read_yaml"]

F = TypeVar("F", bound=BaseModel)


def read_yaml(path: Path, form: type[F], *, key: str) -> F:
    """Return a file's content in its form; `key` is the setting that names the file.

    Raises:
        ConfigError: it cannot be read, is no YAML, or has another form; a line for each fault.
    """
    try:
        content = yaml.safe_load(path.expanduser().read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{key}: {path} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{key}: {path} is no YAML: {error}") from error
    try:
        return form.model_validate(content)
    except ValidationError as error:
        faults = (
            f"{key}: {path}: {'.'.join(map(str, fault['loc'])) or 'file'}: {fault['msg']}"
            for fault in error.errors(include_url=False, include_input=False)
        )
        raise ConfigError("\n".join(faults)) from None
