"""Finding the wheel that runs on a home."""

from deltawheel.contracts.errors import DeltawheelError
from deltawheel.contracts.settings import Settings
from deltawheel.ops.supervisor.runfile import RunRecord, read_run

__all__ = ["require_running"]


def require_running(settings: Settings) -> RunRecord:
    """Return the run that is on.

    Raises:
        DeltawheelError: no wheel runs on this home.
    """
    run = read_run(settings)
    if run is None:
        raise DeltawheelError(
            f"no wheel runs on {settings.home}: start it with `deltawheel up`, or name another "
            "home with --home or --config"
        )
    return run
