"""`deltawheel bench`: what is proved or measured by one command each."""

import importlib

import click

__all__ = ["command"]

_BENCHES = {
    "simulate": "Play the whole wheel from seeds, with faults, in virtual time.",
    "chaos": "Kill the processes of a real wheel again and again; nothing may be lost.",
    "audit": "Measure how long the audit takes over a large store.",
    "stream": "Measure the stream: pairs per second, latency, memory.",
    "serving": "Measure what share of a model server's pace the wheel keeps.",
}


class _LazyGroup(click.Group):
    """Imports a bench only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_BENCHES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _BENCHES:
            return None
        module = importlib.import_module(f"deltawheel.ops.bench.{cmd_name}.command")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_BENCHES.items()))


@click.group("bench", cls=_LazyGroup)
def command() -> None:
    """Prove and measure: each bench is one command, and says what it did."""
