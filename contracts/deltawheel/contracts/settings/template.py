"""The commented settings file, made from the settings' types so that it is never out of date."""

import json
import textwrap
from collections.abc import Iterator

from pydantic import BaseModel

from deltawheel.contracts.settings import Settings

__all__ = ["settings_template"]

_WIDTH = 96
_HEAD = """\
Settings of a Deltawheel wheel: every key with its default. Keep the keys that you change.
`deltawheel config check` names each wrong key. The environment stands above this file:
DELTAWHEEL_GATEWAY__PORT=8601 sets gateway.port. Secrets come from the environment only:
DELTAWHEEL_GATEWAY_TOKEN, DELTAWHEEL_BROKER_PASSWORD, DELTAWHEEL_BROKER_KEY_PASSWORD, and whatever
variables `api_key_env` names.
"""


def settings_template() -> str:
    """Return the YAML text, which loads as the default settings."""
    return "\n".join([*_comment(_HEAD, ""), "", *_section(Settings(), "")]) + "\n"


def _comment(text: str, indent: str) -> list[str]:
    width = _WIDTH - len(indent)
    lines = (part for line in text.splitlines() for part in textwrap.wrap(line, width))
    return [f"{indent}# {line}" for line in lines]


def _section(model: BaseModel, indent: str) -> Iterator[str]:
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if not indent:
            yield ""
        yield from _comment(field.description or "", indent)
        if isinstance(value, BaseModel):
            yield f"{indent}{name}:"
            yield from _section(value, indent + "  ")
        elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
            yield f"{indent}{name}:"
            yield from _items(value, indent + "  ")
        else:
            yield f"{indent}{name}: {_scalar(model, name)}"
            for example in field.examples or ():
                lines = [f"{name}:", *_section(example, "  ")]
                yield from (f"{indent}# {line}" for line in lines)


def _items(models: tuple[BaseModel, ...], indent: str) -> Iterator[str]:
    """Explain the keys of the first item; the others are written without comments."""
    for index, model in enumerate(models):
        lines = list(_section(model, indent + "  "))
        if index:
            lines = [line for line in lines if not line.lstrip().startswith("#")]
        lines = [line for line in lines if line]
        yield f"{indent}-"
        yield from lines


def _scalar(model: BaseModel, name: str) -> str:
    """Return a value as JSON, every form of which is YAML too."""
    return json.dumps(model.model_dump(mode="json")[name], ensure_ascii=False)
