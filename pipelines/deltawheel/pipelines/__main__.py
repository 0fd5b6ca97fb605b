"""`python -m deltawheel.pipelines`: one stage of one cycle, in a process of its own.

Exit status 0: done; 1 and 2: it will never work, the last line says why; 75: try again later.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from deltawheel.contracts.cycle import StepName
from deltawheel.contracts.errors import ConfigError, DeltawheelError, RetryLaterError
from deltawheel.pipelines.context import StageContext, TrainingArm
from deltawheel.pipelines.stages import CONTROLS, STAGES, attempt_folder, final_folder, run_stage

if TYPE_CHECKING:
    from deltawheel.contracts.settings import Settings

__all__ = ["RETRY_STATUS", "main", "opened"]

RETRY_STATUS: Final = 75
"""EX_TEMPFAIL of sysexits.h: the runner begins the step again."""

_OWN_ARM: Final = frozenset({StepName.SELECT.value, StepName.TRAIN.value, StepName.EVALUATE.value})
_ENVIRONMENT: Final = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage that the command line names; return the exit status."""
    arguments = _parser().parse_args(argv)
    os.environ.update(_ENVIRONMENT)
    try:
        _run(arguments)
    except RetryLaterError as error:
        print(_sentence(error), file=sys.stderr)  # noqa: T201
        return RETRY_STATUS
    except DeltawheelError as error:
        print(_sentence(error), file=sys.stderr)  # noqa: T201
        return error.exit_code
    return 0


@contextmanager
def opened(
    settings: "Settings", cycle_id: str, *, token: str, folder: Path, arm: TrainingArm
) -> Iterator[StageContext]:
    """Build a stage's context from the settings, and close what was opened."""
    from deltawheel.infra import wiring

    store = wiring.open_store(settings)
    with asyncio.Runner() as runner:
        models = wiring.open_models(settings, wiring.open_telemetry(settings))

        def done(name: StepName) -> Path:
            is_own = name.value in _OWN_ARM
            return final_folder(
                settings, cycle_id, name.value, arm if is_own else TrainingArm.TOP_DELTA
            )

        try:
            yield StageContext(
                settings=settings,
                store=store,
                registry=wiring.open_registry(settings),
                models=models,
                clock=wiring.system_clock(),
                random=wiring.system_random(),
                cycle_id=cycle_id,
                token=token,
                judge_revision=wiring.judge_revision(settings),
                folder=folder,
                done=done,
                progress=_say,
                reach=wiring.failpoints().reach_blocking,
                runner=runner,
                arm=arm,
            )
        finally:
            runner.run(models.aclose())
            store.close()


def _run(arguments: argparse.Namespace) -> None:
    from deltawheel.infra import wiring

    settings = wiring.load_settings(Path(arguments.settings))
    arm = TrainingArm(arguments.arm)
    if arm is not TrainingArm.TOP_DELTA and arguments.step not in _OWN_ARM:
        raise ConfigError(
            f"--arm {arm.value} goes with --step {', '.join(sorted(_OWN_ARM))}; only the "
            "candidate is decided on and registered"
        )
    final = final_folder(settings, arguments.cycle, arguments.step, arm)
    folder = attempt_folder(final, arguments.token)
    attempt = {"token": arguments.token, "folder": folder, "arm": arm}
    with opened(settings, arguments.cycle, **attempt) as context:
        context.cycle()
        run_stage(arguments.step, context, final)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deltawheel.pipelines", description="Run one stage of one training cycle."
    )
    parser.add_argument("--settings", required=True, help="settings file of the wheel")
    parser.add_argument("--cycle", required=True, help="id of the cycle")
    parser.add_argument("--step", required=True, choices=sorted(STAGES), help="which stage")
    parser.add_argument("--token", required=True, help="this attempt's lease token")
    parser.add_argument(
        "--arm",
        default=TrainingArm.TOP_DELTA.value,
        choices=[arm.value for arm in TrainingArm],
        help=f"which arm to select, train or evaluate; `--step {CONTROLS}` runs all controls",
    )
    return parser


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


def _sentence(error: DeltawheelError) -> str:
    return " ".join(str(error).split())


if __name__ == "__main__":
    sys.exit(main())
