"""A member of the pool on the command line: every key of `generators:` as an option, or a file."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from deltawheel.contracts.errors import ConfigError
from deltawheel.contracts.settings import GeneratorSettings

if TYPE_CHECKING:
    from deltawheel.contracts.generator import Generator
    from deltawheel.contracts.settings import Settings

__all__ = ["make_member", "member_options"]

F = TypeVar("F", bound=Callable[..., Any])

_SAMPLING: Final = "sampling"
_REPEATED: Final = "domains"
_OF_SAMPLING: Final = {
    "temperature": "How freely it writes, 0 to 2.",
    "top_p": "Share of the probability that it draws from.",
    "max_tokens": "Longest answer, tokens.",
}


def member_options(function: F) -> F:
    """Add an option for each key of a generator's settings but its name."""
    for name, help_text in reversed(_OF_SAMPLING.items()):
        function = click.option(f"--{name.replace('_', '-')}", help=help_text)(function)
    for name, key in reversed(GeneratorSettings.model_fields.items()):
        if name in ("name", _SAMPLING):
            continue
        is_repeated = name == _REPEATED
        option = "domain" if is_repeated else name.replace("_", "-")
        again = " Give it again for more." if is_repeated else ""
        function = click.option(
            f"--{option}", name, multiple=is_repeated, help=f"{key.description}{again}"
        )(function)
    return function


def make_member(
    name: str | None, file: Path | None, given: Mapping[str, Any], settings: "Settings"
) -> "Generator":
    """Return the member that file and options describe, the options above the file.

    Raises:
        ConfigError: a key is wrong, or the file, the server or the adapter cannot be found.
    """
    from deltawheel.infra.declared_pool import added_generator, read_member

    content: dict[str, Any] = _read(file) if file is not None else {}
    said = {key: value for key, value in given.items() if value not in (None, ())}
    sampling = {key: said.pop(key) for key in _OF_SAMPLING if key in said}
    if sampling:
        content[_SAMPLING] = {**(content.get(_SAMPLING) or {}), **sampling}
    content |= said
    if name is not None:
        content["name"] = name
    return added_generator(read_member(content), settings)


def _read(file: Path) -> dict[str, Any]:
    """Read YAML, of which JSON is a part."""
    import yaml

    try:
        content = yaml.safe_load(file.read_text())
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{file}: neither YAML nor JSON that can be read") from error
    if not isinstance(content, dict):
        raise ConfigError(
            f"{file}: it must hold the keys of one generator, such as 'name: strong', as "
            "`generators:` of the settings does"
        )
    return {str(key): value for key, value in content.items()}
