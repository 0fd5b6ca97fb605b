"""The command line. Commands import what they need when they run, so that `--help` is instant."""

import importlib
import sys
from pathlib import Path
from typing import NoReturn

import click

from deltawheel.contracts.errors import DeltawheelError, ExitCode

__all__ = ["cli", "main"]

_COMMANDS = {
    "init": ("init", "Write a commented settings file, and say what to do next."),
    "doctor": ("doctor", "Look whether everything that a wheel needs is there."),
    "up": ("up", "Run the wheel until stopped; its state is kept between runs."),
    "demo": ("demo", "Run one whole turn of the wheel on the sandbox world, in minutes."),
    "status": ("status", "Show processes, progress and the current cycle."),
    "ingest": ("ingest", "Submit prompts from a JSONL file through the gateway."),
    "cycle": ("cycle", "Run, list and show training cycles."),
    "versions": ("versions", "List the registered models and who is champion."),
    "generators": ("generators", "List, show, add, drain and retire members of the pool."),
    "rotation": (
        "rotation",
        "Show which generators prompts would be dealt to, and compare policies.",
    ),
    "judge": ("judge", "Try the judge on stored traces, or on those of a file."),
    "pairs": ("pairs", "List and show stored preference pairs."),
    "dead-letters": ("dead_letters", "List, show, replay and drop what could not be processed."),
    "audit": ("audit", "Account for every accepted prompt; exit 1 if one is not."),
    "resume": ("resume", "Go on with partitions that were halted."),
    "migrate": ("migrate", "Bring the store's schema up to date, or back."),
    "config": ("config", "Check, show and explain settings."),
    "bench": ("bench", "Simulate, kill and measure a wheel."),
    "sandbox": ("sandbox", "Build the sandbox world's models."),
}


class _LazyGroup(click.Group):
    """Knows every command's name and sentence; imports a command only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"deltawheel.ops.commands.{_COMMANDS[cmd_name][0]}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, said) for name, (_, said) in _COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    "config",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="DELTAWHEEL_CONFIG",
    help="Settings file; unset, ./deltawheel.yaml if there is one, else the defaults.",
)
@click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of state/ and registry/, instead of the settings' home.",
)
@click.version_option(package_name="deltawheel")
@click.pass_context
def cli(context: click.Context, config: Path | None, home: Path | None) -> None:
    """Deltawheel, an alignment-data flywheel.

    A rotating pool of models writes reasoning traces, a judge scores them as they arrive, scored
    preference pairs are stored after data-quality checks, and training starts from the champion
    on the highest-delta slice. A model is registered only if out-of-domain evaluations improve.

    Exit codes: 0 done or promoted, 1 failure, 2 settings or usage, 3 rejected, 4 inconclusive,
    130 stopped by Ctrl-C.
    """
    default = Path("deltawheel.yaml")
    context.obj = {"config": config or (default if default.is_file() else None), "home": home}


def main() -> NoReturn:
    """Run the command line; every error ends in one sentence and its exit code."""
    try:
        status = cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("stopped", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except DeltawheelError as error:
        from deltawheel.contracts.addresses import without_password
        from deltawheel.ops.console import plain

        click.echo(f"deltawheel: {without_password(plain(error))}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.exit(ExitCode.DONE)
    except OSError as error:
        from deltawheel.ops.console import plain

        where = f"{error.filename}: " if error.filename else ""
        click.echo(f"deltawheel: {plain(where)}{plain(error.strerror or error)}", err=True)
        sys.exit(ExitCode.FAILURE)
    sys.exit(status if isinstance(status, int) else ExitCode.DONE)
