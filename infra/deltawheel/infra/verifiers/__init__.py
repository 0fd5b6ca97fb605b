"""Programs that tell right answers from wrong ones, each found by its name.

A package adds one of its own with an entry point of the group `deltawheel.verifiers`: a callable
that takes the settings of the judge and returns a `contracts.ports.Verifier`.
"""

from importlib.metadata import EntryPoint, entry_points
from typing import Final

from deltawheel.contracts.errors import ConfigError
from deltawheel.contracts.ports import Verifier
from deltawheel.contracts.settings import JudgeSettings

__all__ = ["GROUP", "open_verifier"]

GROUP: Final = "deltawheel.verifiers"


def open_verifier(settings: JudgeSettings) -> Verifier:
    """Build the verifier that `judge.verifier` names.

    Raises:
        ConfigError: no installed package has one of that name, or it cannot be loaded.
    """
    found: dict[str, EntryPoint] = {point.name: point for point in entry_points(group=GROUP)}
    point = found.get(settings.verifier)
    if point is None:
        raise ConfigError(
            f"judge.verifier: there is none named {settings.verifier!r}; installed are "
            f"{', '.join(sorted(found)) or 'none (run `make setup`)'}"
        )
    try:
        verifier: Verifier = point.load()(settings)
    except Exception as error:  # of somebody else's code
        raise ConfigError(
            f"judge.verifier: {settings.verifier!r} ({point.value}) cannot be loaded: {error!r}"
        ) from error
    return verifier
