"""The demo's settings, its prompts and its clean folder."""

import json
import os
import shutil
from collections.abc import Iterator
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from deltawheel.contracts.errors import ConfigError
from deltawheel.contracts.settings import Settings
from deltawheel.infra.sandbox.grammar import Family, sample_problem, seeded_rng
from deltawheel.infra.settings_file import (
    environment_without_settings,
    load_settings,
    save_settings,
)

__all__ = ["DOMAIN", "MARKER", "demo_prompts", "demo_settings", "prepare_home"]

DOMAIN = "sums"
MARKER: Final = "demo.json"
"""Lies in every folder that a demo made, and in no other."""

_MADE_BY: Final = "deltawheel demo"
_RESULTS: Final = frozenset({"state", "registry", "deltawheel.yaml"})


def demo_settings(home: Path, *, is_sabotaged: bool, num_items: int, seed: int) -> Settings:
    """Return the demo's settings, with its home as an absolute path; nothing is written.

    Sabotage inverts the judge and changes nothing else.

    Raises:
        ConfigError: the environment overrides a setting, which could send the demo, and whoever
            looks at its results afterwards, into the store, registry or home of another wheel.
    """
    kept = environment_without_settings()
    if overrides := sorted(name for name in os.environ if name not in kept):
        raise ConfigError(
            f"the demo has settings of its own, but {', '.join(overrides)} in the environment "
            f"would override them: unset it, as `env -u {overrides[0]} deltawheel demo` does"
        )
    return load_settings(
        None,
        home=home.expanduser().resolve(),
        gateway={"port": 0},
        judge={"inverted": is_sabotaged},
        evaluation={"items_per_suite": num_items},
        training={"cron": None, "min_new_pairs": None, "seed": seed, "top_share": Decimal("0.3")},
    )


def prepare_home(settings: Settings) -> None:
    """Empty the demo's folder and write its settings there, where `up` finds them again.

    Only an empty folder, or one with the marker of an earlier demo and nothing but what demos
    leave, is touched. The marker comes first and stays, so that a demo which is killed meanwhile
    leaves a folder that the next one takes.

    Raises:
        ConfigError: the folder is not the demo's, or cannot be used.
    """
    home = settings.home
    try:
        _refuse_what_no_demo_made(home)
        home.mkdir(parents=True, exist_ok=True)
        made = {"made_by": _MADE_BY, "version": version("deltawheel"), "emptied": "at each start"}
        (home / MARKER).write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
        for name in _RESULTS:
            _remove(home / name)
        save_settings(settings, home / "deltawheel.yaml")
    except OSError as error:
        raise ConfigError(
            f"{home} cannot be used ({error}): name another folder with --home"
        ) from error


def _refuse_what_no_demo_made(home: Path) -> None:
    held = {path.name for path in home.iterdir()} if home.exists() else set()
    if _has_marker(home):
        held -= {MARKER, *_RESULTS}
        why = "which no demo made"
    else:
        why = f"but no {MARKER} of the demo's own, so it may be somebody's wheel"
    if held:
        raise ConfigError(
            f"{home} holds {', '.join(sorted(held)[:3])}, {why}: name an empty folder with --home, "
            "or empty this one yourself"
        )


def _has_marker(home: Path) -> bool:
    try:
        made = json.loads((home / MARKER).read_bytes())
    except (FileNotFoundError, ValueError, RecursionError):
        return False
    return isinstance(made, dict) and made.get("made_by") == _MADE_BY


def _remove(path: Path) -> None:
    """Remove a file, a folder, or a link, whose target is left as it is."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def demo_prompts(count: int, *, seed: int) -> Iterator[dict[str, Any]]:
    """Yield distinct in-domain prompts; none of them is withheld for evaluation."""
    rng = seeded_rng("demo", seed)
    seen: set[str] = set()
    while len(seen) < count:
        text = sample_problem(rng, Family.IN_DOMAIN, withheld=False).text
        if text not in seen:
            seen.add(text)
            yield {"domain": DOMAIN, "text": text}
