"""`deltawheel demo`."""

from pathlib import Path

import click

from deltawheel.ops.console import json_option, print_json

__all__ = ["command"]


@click.command("demo")
@click.option("--sabotage", is_flag=True, help="Invert the judge: the gate must refuse (exit 3).")
@click.option("--controls", is_flag=True, help="Also train on what should give nothing, or less.")
@click.option(
    "--prompts", default=4_000, show_default=True, type=click.IntRange(min=300), help="How many."
)
@click.option(
    "--items",
    default=1_000,
    show_default=True,
    type=click.IntRange(min=50),
    help="Evaluation items of each suite.",
)
@click.option("--seed", default=0, show_default=True, help="Of prompts and of training.")
@json_option
@click.pass_context
def command(
    context: click.Context,
    sabotage: bool,
    controls: bool,
    prompts: int,
    items: int,
    seed: int,
    as_json: bool,
) -> int:
    """Run one whole turn of the wheel on the sandbox world, in minutes on two cores.

    Starts broker, store, vLLM and the six services, feeds prompts, runs one training cycle, and
    stops everything. Its folder is emptied first and kept afterwards: `deltawheel up` goes on
    from there. A folder that no demo made is refused. Exit code 0: promoted; 3: rejected;
    4: inconclusive; 1: something failed; 2: wrong folder, settings or usage; 130: stopped by
    Ctrl-C.
    """
    from deltawheel.ops.commands.cycle import exit_code
    from deltawheel.ops.demo.run import DemoPlan, run_demo
    from deltawheel.ops.demo.summary import print_summary

    home = context.obj["home"] or Path("var/sabotage" if sabotage else "var/demo")
    plan = DemoPlan(
        home=home,
        is_sabotaged=sabotage,
        with_controls=controls,
        num_prompts=prompts,
        num_items=items,
        seed=seed,
    )
    result = run_demo(plan)
    if as_json:
        print_json(result.as_json())
    else:
        print_summary(result)
    return exit_code(result.cycle)
