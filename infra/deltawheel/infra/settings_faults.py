"""Everything that is wrong with settings, in sentences: the key, the fault, what would be valid."""

import copy
import difflib
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType, UnionType
from typing import Any, Final, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from deltawheel.contracts.addresses import without_password
from deltawheel.contracts.settings import Settings

__all__ = ["faults_of", "section_faults"]

_STAND_IN: Final = "x-stand-in-x"
_TWO: Final = (_STAND_IN, f"{_STAND_IN}-2")
_ELSEWHERE: Final = {"server": None, "endpoint": f"http://{_STAND_IN}/v1", "model": _STAND_IN}
_STAND_INS: Final[Mapping[str, Mapping[str, object]]] = MappingProxyType(
    {
        "broker.bootstrap": {"bootstrap": _STAND_IN},
        "broker.security.mechanism": {"mechanism": "PLAIN"},
        "broker.security.username": {"username": _STAND_IN},
        "servers": {"servers": [{"name": _STAND_IN}]},
        "servers.name": {"name": _STAND_IN},
        "servers.base": {"base": _STAND_IN},
        "generators": {"generators": [{"name": name, **_ELSEWHERE} for name in _TWO]},
        "generators.name": {"name": _STAND_IN},
        **{f"generators.{key}": _ELSEWHERE for key in _ELSEWHERE},
        "judge.favourite": {"favourite": _STAND_IN},
        "evaluation.suites.name": {"name": _STAND_IN},
        "evaluation.suites.items": {"items": "sandbox:in_domain"},
        "evaluation.suites.role": {"role": "out-of-domain"},
    }
)
"""What takes the place of a wrong value that cannot simply be left out."""

_JUDGED: Final = ("judge.", "rubric.", "training.dimension")
_UNKNOWABLE: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "broker.kind": ("broker.",),
        "broker.security.protocol": ("broker.security.",),
        "judge": _JUDGED,
        "judge.kind": _JUDGED,
        "rubric": _JUDGED,
        "rubric.dimensions": _JUDGED,
    }
)
"""Where a key is wrong, the keys of which nothing can be said until it is right."""


def faults_of(content: Mapping[str, Any], error: ValidationError) -> list[str]:
    """Return one sentence for each fault, none of which shows a password.

    Sections are compared with each other only if each is valid by itself. So that one run names
    everything, wrong values are left out, and what remains is looked at again.
    """
    rest = copy.deepcopy(dict(content))
    sentences: list[str] = []
    wrong: dict[tuple[int | str, ...], ErrorDetails] = {}
    unmet: list[ErrorDetails] = error.errors()
    while unmet:
        sentences += _still_meant([line for fault in unmet for line in _sentences(fault)], wrong)
        for fault in unmet:
            wrong[fault["loc"]] = fault
            _leave_out(rest, fault)
        unmet = [fault for fault in _found_in(rest) if fault["loc"] not in wrong]
    return [without_password(sentence) for sentence in dict.fromkeys(sentences)]


def section_faults(error: ValidationError, section: type[BaseModel]) -> list[str]:
    """Return one sentence for each fault of a section that is read by itself; no passwords."""
    sentences = (line for fault in error.errors() for line in _sentences(fault, section))
    return [without_password(line) for line in dict.fromkeys(sentences)]


def _found_in(content: Mapping[str, Any]) -> list[ErrorDetails]:
    try:
        Settings(**content)
    except ValidationError as error:
        return error.errors()
    return []


def _still_meant(sentences: Iterable[str], wrong: Mapping[Any, ErrorDetails]) -> list[str]:
    """Drop what is only said of a stand-in, or hangs on a value that is wrong itself."""
    unknowable = tuple(key for fault in wrong.values() for key in _UNKNOWABLE.get(_key(fault), ()))
    return [
        sentence
        for sentence in sentences
        if _STAND_IN not in sentence and not sentence.startswith(unknowable)
    ]


def _leave_out(content: Any, fault: ErrorDetails) -> None:  # noqa: ANN401
    """Take out the innermost key on the way to a fault; what came from elsewhere stays."""
    location = fault["loc"]
    last = max((place for place, part in enumerate(location) if isinstance(part, str)), default=-1)
    if last < 0:
        return
    for part in location[:last]:
        try:
            content = content[part]
        except (KeyError, IndexError, TypeError):
            return
    if isinstance(content, dict):
        content.pop(location[last], None)
        if fault["type"] != "extra_forbidden":
            content.update(_STAND_INS.get(_key(fault), {}))


def _key(fault: ErrorDetails) -> str:
    return ".".join(part for part in fault["loc"] if isinstance(part, str))


def _sentences(fault: ErrorDetails, root: type[BaseModel] = Settings) -> list[str]:
    location = fault["loc"]
    where = ".".join(map(str, location))
    if fault["type"] == "extra_forbidden":
        valid = _keys_at(location[:-1], root)
        near = difflib.get_close_matches(str(location[-1]), valid, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return [f"{where}: unknown key{hint} (valid keys: {', '.join(valid)})"]
    if fault["type"] == "missing":
        return [f"{where}: this key is required"]
    lines = fault["msg"].removeprefix("Value error, ").splitlines()
    if not location or all(line.startswith((f"{where}.", f"{where}:")) for line in lines):
        return lines
    given = fault.get("input")
    is_long = isinstance(given, dict | list | tuple | BaseModel)
    shown = "" if given is None or is_long else f" (it is {given!r})"
    return [f"{where}: {'; '.join(lines)}{shown}"]


def _keys_at(location: Sequence[int | str], root: type[BaseModel]) -> list[str]:
    model = root
    for part in location:
        if isinstance(part, int):
            continue
        field = model.model_fields.get(part)
        inner = _model_in(field.annotation) if field else None
        if inner is None:
            return []
        model = inner
    return sorted(model.model_fields)


def _model_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, UnionType, tuple, list):
        for argument in get_args(annotation):
            if (inner := _model_in(argument)) is not None:
                return inner
    return None
