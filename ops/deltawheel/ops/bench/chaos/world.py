"""The wheel that is killed: its settings, its prompts, its folder."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from itertools import count, product
from pathlib import Path
from typing import Any, Final

from deltawheel.contracts.errors import ConfigError
from deltawheel.contracts.outcome import Outcome
from deltawheel.contracts.settings import Settings
from deltawheel.infra.brokers import describe_program
from deltawheel.infra.local_postgres import programs
from deltawheel.infra.settings_file import (
    environment_without_settings,
    load_settings,
    save_settings,
)

__all__ = [
    "CONFIG",
    "FAILPOINTS",
    "MARKER",
    "MODELS",
    "chaos_environment",
    "chaos_prompts",
    "chaos_settings",
    "expected_outcome",
    "prepare_home",
    "remove_state",
]

CONFIG: Final = "deltawheel.yaml"
FAILPOINTS: Final = "failpoints"
MARKER: Final = "chaos.json"
"""Lies in every folder that a chaos run made, and in no other."""

_RIGHT: Final = ("doubles", "doubles-2")
_WRONG: Final = ("guesses", "guesses-2")
MODELS: Final = (*_RIGHT, *_WRONG)
"""Of the stub server, which says what they answer."""

_RESULTS: Final = ("state", "registry", "extra", FAILPOINTS, CONFIG)
_REPORTS: Final = ("report.json", "report.md", "up.log", "models.log", "members.log")
_NEVER_S: Final = 1e9
_WITHOUT_REFERENCE: Final = 25
_WITHOUT_NUMBER: Final = 20


def chaos_settings(home: Path, models_url: str) -> Settings:
    """Return the settings of a wheel on Kafka and PostgreSQL whose slots never expire.

    Pauses are short, so that two hundred kills fit into minutes; nothing else differs from what a
    user would run.

    Raises:
        ConfigError: the environment overrides a setting, or Kafka or PostgreSQL is not there.
    """
    kept = environment_without_settings()
    if overrides := sorted(name for name in os.environ if name not in kept):
        raise ConfigError(
            f"the chaos bench has settings of its own, but {', '.join(overrides)} in the "
            f"environment would override them: unset it, as `env -u {overrides[0]} …` does"
        )
    settings = load_settings(
        None,
        home=home.expanduser().resolve(),
        gateway={"port": 0},
        broker={"kind": "local-kafka"},
        store={"kind": "local-postgres"},
        servers=[],
        generators=[
            {
                "name": model,
                "endpoint": models_url,
                "model": model,
                "revision": "1",
                "capability": 1 if model in _RIGHT else 0,
            }
            for model in MODELS
        ],
        rotation={"pairs": list(product(_RIGHT, _WRONG))},
        judge={"kind": "exact-match"},
        generation={"request_timeout_s": 3, "expire_after_s": _NEVER_S},
        curation={"republish_after_s": 5},
        training={
            "is_enabled": False,
            "min_pairs": 2,
            "top_share": "1",
            "pause_generation": False,
            "lease_s": 3,
        },
        runtime={
            "backoff_cap_s": 2,
            "breaker_cap_s": 2,
            "defer_base_s": 2,
            "defer_cap_s": 10,
        },
        supervisor={"backoff_base_s": 0.2, "backoff_cap_s": 2, "stable_after_s": 10},
    )
    describe_program(settings)
    programs()
    return settings


def chaos_environment(home: Path) -> dict[str, str]:
    """Return the environment of `up`: failpoints of all its services can be armed by files."""
    return {**os.environ, "DELTAWHEEL_FAILPOINT_DIR": str(home / FAILPOINTS)}


def chaos_prompts() -> Iterator[dict[str, Any]]:
    """Yield distinct prompts for ever.

    Most give a pair. One in 20 has no number, so that both answers are wrong and tie; one in 25
    has no reference answer, so that no trace of it can be judged.
    """
    for number in count(1):
        body = {"text": f"How much is {number} and {number}?", "reference_answer": str(2 * number)}
        if number % _WITHOUT_NUMBER == 0:
            body["text"] = f"How much is {_spelled(number)} and as much again?"
        if number % _WITHOUT_REFERENCE == 0:
            del body["reference_answer"]
        yield body


def expected_outcome(body: Mapping[str, Any]) -> Outcome:
    """Return how one of these prompts ends when both models have given an answer."""
    if "reference_answer" not in body:
        return Outcome.DEAD_LETTERED
    has_number = any(character.isdigit() for character in body["text"])
    return Outcome.PAIRED if has_number else Outcome.UNPAIRED


def _spelled(number: int) -> str:
    return "".join("abcdefghij"[int(digit)] for digit in str(number))


def prepare_home(settings: Settings) -> None:
    """Empty the folder and write the settings there.

    Raises:
        ConfigError: the folder holds something that no chaos run made, or cannot be used.
    """
    home = settings.home
    try:
        if home.exists() and any(home.iterdir()) and not (home / MARKER).is_file():
            raise ConfigError(
                f"{home} holds something, but no {MARKER} of this bench's own, so it may be "
                "somebody's wheel: name an empty folder with --home"
            )
        home.mkdir(parents=True, exist_ok=True)
        (home / MARKER).write_text(json.dumps({"made_by": "deltawheel bench chaos"}) + "\n")
        remove_state(home)
        for name in _REPORTS:
            (home / name).unlink(missing_ok=True)
        (home / FAILPOINTS).mkdir()
        save_settings(settings, home / CONFIG)
    except OSError as error:
        raise ConfigError(
            f"{home} cannot be used ({error}): name another folder with --home"
        ) from error


def remove_state(home: Path) -> None:
    """Remove what the wheel kept; reports and the log of `up` stay."""
    for name in _RESULTS:
        path = home / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
