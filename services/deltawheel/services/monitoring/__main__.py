"""`python -m deltawheel.services.monitoring --settings FILE`."""

from deltawheel.services.monitoring.handler import Monitoring
from deltawheel.services.runtime.entry import Parts, run_streaming

__all__: list[str] = []


def build(parts: Parts) -> Monitoring:
    """Wire the handler."""
    return Monitoring(
        settings=parts.settings.monitoring,
        store=parts.store,
        clock=parts.clock,
        telemetry=parts.telemetry,
        failpoints=parts.failpoints,
    )


if __name__ == "__main__":
    raise SystemExit(run_streaming("monitoring", build))
