"""`deltawheel up`."""

import click

from deltawheel.ops.console import settings_of

__all__ = ["command"]


@click.command("up")
@click.pass_context
def command(context: click.Context) -> int:
    """Run the wheel until stopped: broker, model servers and the six services.

    Each process is restarted when it dies; Ctrl-C or SIGTERM stops them in order. What was
    accepted is kept between runs: a new start publishes again whatever the broker forgot.
    """
    from deltawheel.ops.wheel import run_until_stopped

    return run_until_stopped(settings_of(context), say=lambda text: click.echo(text, err=True))
