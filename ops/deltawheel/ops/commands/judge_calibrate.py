"""`deltawheel judge calibrate`."""

import asyncio
from typing import TYPE_CHECKING, Final

import click

from deltawheel.contracts.errors import DeltawheelError, ExitCode
from deltawheel.ops.commands.judge_conformance import of_judge
from deltawheel.ops.console import (
    json_option,
    one_line,
    plain,
    print_json,
    print_table,
    settings_of,
)

if TYPE_CHECKING:
    from deltawheel.contracts.calibration import Calibration

__all__ = ["calibrate"]

_LEAST_DEGREES: Final = 20
"""Of freedom: with fewer, the standard error itself is unsure by more than a sixth."""


@click.command("calibrate")
@click.argument("model", required=False)
@click.option(
    "--repeats",
    type=click.IntRange(min=2),
    default=5,
    show_default=True,
    help="How often each text is judged.",
)
@click.option("--cases", type=click.IntRange(min=1), help="Only so many anchor cases; unset, all.")
@json_option
@click.pass_context
def calibrate(
    context: click.Context, model: str | None, repeats: int, cases: int | None, as_json: bool
) -> int:
    """Measure the standard error of the judge's scores, and have new pairs carry it.

    Every text of the anchor cases is judged again and again; how far judgements of the same text
    lie apart, pooled over texts, becomes the variance of the judge's scores at this revision under
    this rubric. Curation takes the newest within a minute; pairs that are stored keep theirs. A
    judge that has drifted is not calibrated, for that would take its wavering for its rest. Exit
    code 1 if a text could not be judged; what was measured of the others is stored.
    """
    from deltawheel.contracts.calibration import Calibration
    from deltawheel.infra import wiring
    from deltawheel.ops.conformance.card import judge_name
    from deltawheel.ops.conformance.measure import judge_anchors
    from deltawheel.ops.running import as_it_runs

    settings = of_judge(as_it_runs(settings_of(context)), model)
    anchors = wiring.anchor_cases(settings)[:cases]
    revision, digest = wiring.judge_revision(settings), settings.make_rubric().digest
    with wiring.reading(settings) as store:
        if drift := store.judge_drift(revision, digest):
            raise DeltawheelError(
                f"nothing is calibrated while the judge has drifted: {drift.sentence}"
            )
        judged = asyncio.run(judge_anchors(anchors, settings, repeats=repeats, say=_say))
        for fault, number in judged.faults.items():
            _say(f"{number} times: {one_line(fault)}")
        measured = Calibration.measured(
            judged.found.values(),
            judge=judge_name(settings),
            judge_revision=revision,
            rubric_digest=digest,
            at=wiring.system_clock().now(),
        )
        if measured is None:
            raise DeltawheelError("no text was judged twice, so nothing was measured or stored")
        if measured.degrees_of_freedom < _LEAST_DEGREES:
            raise DeltawheelError(
                f"{measured.num_judgements} judgements of {measured.num_texts} texts are too few "
                "for pairs to carry what they say: raise --cases or --repeats"
            )
        stored = store.add_calibration(measured)
    if as_json:
        print_json({"calibration_id": stored.calibration_id, **stored.model_dump(mode="json")})
    else:
        _show(stored)
    return ExitCode.DONE if judged.parse_rate == 1 else ExitCode.FAILURE


def _show(stored: "Calibration") -> None:
    rows = [
        (name, f"{variance:.4f}", f"{stored.stderr(name):.3f}", f"{(2 * variance) ** 0.5:.3f}")
        for name, variance in stored.variances.items()
    ]
    title = (
        f"{stored.judge} at {stored.judge_revision}: {stored.num_judgements} judgements of "
        f"{stored.num_texts} texts"
    )
    print_table(title, ("dimension", "variance", "stderr", "stderr of a delta"), rows)


def _say(text: str) -> None:
    click.echo(plain(text), err=True)
