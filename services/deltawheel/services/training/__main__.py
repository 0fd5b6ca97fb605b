"""`python -m deltawheel.services.training --settings FILE`."""

import signal
from types import FrameType

from deltawheel.infra import wiring
from deltawheel.services.runtime.entry import Parts, run_process
from deltawheel.services.training.runner import CycleRunner
from deltawheel.services.training.schedule import Schedule

__all__: list[str] = []


def serve(parts: Parts) -> int:
    """Schedule and run cycles until stopped."""
    producer = wiring.open_producer(parts.settings)
    runner = CycleRunner(
        settings=parts.settings,
        settings_file=parts.settings_file,
        store=parts.store,
        producer=producer,
        clock=parts.clock,
        random=parts.random,
    )

    def stop(_signal: int, _frame: FrameType | None) -> None:
        runner.stop.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    schedule = Schedule(settings=parts.settings, store=parts.store, clock=parts.clock)
    stop_schedule = schedule.start()
    parts.announce(lambda: True)
    runner.run()
    stop_schedule()
    producer.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(run_process("training", serve))
