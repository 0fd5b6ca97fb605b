"""`python -m deltawheel.services.curation --settings FILE`."""

from deltawheel.infra import wiring
from deltawheel.services.curation.handler import Curation
from deltawheel.services.runtime.entry import Parts, run_streaming

__all__: list[str] = []


def build(parts: Parts) -> Curation:
    """Wire the handler."""
    return Curation(
        settings=parts.settings.curation,
        store=parts.store,
        checks=wiring.open_pair_checks(parts.settings),
        rubric=parts.settings.make_rubric(),
        clock=parts.clock,
        random=parts.random,
        telemetry=parts.telemetry,
        failpoints=parts.failpoints,
    )


if __name__ == "__main__":
    raise SystemExit(run_streaming("curation", build))
