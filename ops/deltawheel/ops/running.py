"""Finding the wheel that runs on a home."""

from deltawheel.contracts.errors import DeltawheelError
from deltawheel.contracts.settings import Settings
from deltawheel.infra import wiring
from deltawheel.ops.supervisor.plan import run_folder
from deltawheel.ops.supervisor.runfile import RunRecord, read_run

__all__ = ["as_it_runs", "require_running"]


def as_it_runs(settings: Settings) -> Settings:
    """Return the settings of the wheel that runs on this home, ports and all; else these.

    The files that settings name (a rubric) are then as they were when it was started.
    """
    if read_run(settings) is None:
        return settings
    return wiring.load_settings(run_folder(settings) / "settings.yaml")


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
