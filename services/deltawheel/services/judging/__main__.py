"""`python -m deltawheel.services.judging --settings FILE`."""

from deltawheel.infra import wiring
from deltawheel.services.judging.handler import Judging
from deltawheel.services.runtime.entry import Parts, run_streaming

__all__: list[str] = []


def build(parts: Parts) -> Judging:
    """Wire the handler."""
    return Judging(
        store=parts.store,
        judge=wiring.open_judge(parts.settings),
        rubric=parts.settings.make_rubric(),
        clock=parts.clock,
        telemetry=parts.telemetry,
        failpoints=parts.failpoints,
        concurrency=parts.settings.judge.concurrency,
    )


if __name__ == "__main__":
    raise SystemExit(run_streaming("judging", build))
