"""Settings as a file: read with the environment above it, written, and shown."""

import itertools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from deltawheel.contracts.addresses import without_password
from deltawheel.contracts.errors import ConfigError
from deltawheel.contracts.settings import JudgeKind, RubricSettings, Settings
from deltawheel.contracts.settings.template import settings_template
from deltawheel.infra.rubric_file import SHIPPED_RUBRIC, read_rubric
from deltawheel.infra.settings_faults import faults_of

__all__ = [
    "environment_without_settings",
    "load_settings",
    "save_settings",
    "settings_faults",
    "shown_settings",
    "write_commented_settings",
]

_PREFIX = "DELTAWHEEL_"


def load_settings(path: Path | None, **overrides: object) -> Settings:
    """Return the settings in the file, with the environment above them; no file, the defaults.

    Raises:
        ConfigError: names every wrong key, one to a line, with what would be valid.
    """
    settings, faults = _read(path, overrides)
    if settings is None:
        where = f"{path}: " if path else "settings: "
        raise ConfigError("\n".join(where + fault for fault in faults))
    return settings


def settings_faults(path: Path) -> list[str]:
    """Return one sentence for each wrong key; none means that the file is valid."""
    return _read(path, {})[1]


def save_settings(settings: Settings, path: Path) -> None:
    """Write settings with every key, for processes that must all read the same.

    Only this user may read the file, from its first byte on: URLs in it may hold passwords.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)  # an old one could be open to others
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        yaml.safe_dump(settings.model_dump(mode="json"), file, sort_keys=False)
    part.replace(path)


def write_commented_settings(path: Path, *, keeps_old: bool) -> Path | None:
    """Write the commented file with every key and its default; only this user may read it.

    A file that is there already is moved aside if `keeps_old`; returns where it then lies.

    Raises:
        ConfigError: there is one already, or it cannot be written.
    """
    try:
        aside = _move_aside(path) if keeps_old and os.path.lexists(path) else None
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(settings_template())
    except FileExistsError as error:
        raise ConfigError(
            f"{path} exists already and is left as it is; name another file, or give --force, "
            "which keeps a copy of it"
        ) from error
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error.strerror}; name a file in a folder that exists and "
            "may be written"
        ) from error
    return aside


def _move_aside(path: Path) -> Path:
    names = (f"{path.name}.bak{number or ''}" for number in itertools.count())
    aside = next(found for name in names if not os.path.lexists(found := path.with_name(name)))
    return path.rename(aside)


def shown_settings(settings: Settings) -> dict[str, Any]:
    """Return settings as they may be shown: with every key, and without passwords."""
    shown: dict[str, Any] = _without_passwords(settings.model_dump(mode="json"))
    return shown


def environment_without_settings() -> dict[str, str]:
    """Return the environment less the keys that override settings, in whichever case they are.

    Processes of a running wheel read the file in which these overrides are resolved already;
    secrets and switches that are no settings stay.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if not (name.upper().startswith(_PREFIX) and _is_setting(name[len(_PREFIX) :]))
    }


def _is_setting(name: str) -> bool:
    return name.split("__")[0].lower() in Settings.model_fields


def _without_passwords(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, dict):
        return {key: _without_passwords(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_passwords(inner) for inner in value]
    return without_password(value) if isinstance(value, str) else value


def _read(path: Path | None, overrides: Mapping[str, object]) -> tuple[Settings | None, list[str]]:
    content: dict[str, Any] = {}
    if path is not None:
        try:
            loaded = yaml.safe_load(path.read_text()) or {}
        except FileNotFoundError:
            return None, ["there is no such file; `deltawheel init` writes one"]
        except (OSError, UnicodeDecodeError) as error:
            return None, [f"it cannot be read: {error}"]
        except yaml.YAMLError as error:
            return None, [f"not valid YAML{_place_of(error)}"]
        if not isinstance(loaded, dict):
            return None, ["it must hold keys with values, such as 'wheel: default'"]
        content = {str(key): value for key, value in loaded.items()}
    content.update(overrides)
    try:
        return _with_rubric(content), []
    except ValidationError as error:
        return None, faults_of(content, error)
    except ConfigError as error:
        return None, str(error).splitlines()


def _with_rubric(content: Mapping[str, Any]) -> Settings:
    """Make the settings, with all of a rubric's file in them: all processes judge by one reading.

    Keys beside the file's name override it where they say anything.

    Raises:
        ValidationError: the settings are wrong.
        ConfigError: the file cannot be used.
    """
    rubric, judge = (_section(content, name) for name in ("rubric", "judge"))
    file = os.environ.get(f"{_PREFIX}RUBRIC__FILE", rubric.get("file"))
    kind = os.environ.get(f"{_PREFIX}JUDGE__KIND", judge.get("kind"))
    is_told = rubric.get("anchors") is not None
    if is_told or not (file or kind == JudgeKind.LLM) or not isinstance(file, str | None):
        return Settings(**content)
    if rubric.get("dimensions") is not None:
        raise ConfigError(
            "rubric.dimensions: a model that judges must be told what each score means, so put "
            "dimensions into a file, and name that in rubric.file"
        )
    told = read_rubric(Path(file) if file else SHIPPED_RUBRIC)
    silent = {"file": None, **RubricSettings().model_dump()}
    said = {key: value for key, value in rubric.items() if value != silent.get(key, ...)}
    said.pop("file", None)
    return Settings(**{**content, "rubric": told | said})


def _section(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = content.get(name)
    return section if isinstance(section, dict) else {}


def _place_of(error: yaml.YAMLError) -> str:
    """Say where and what, without the line itself, which may hold a password."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return ""
    mark = error.problem_mark
    return f": line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
