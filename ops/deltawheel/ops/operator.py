"""Who acts, and why: what every command asks that changes what a wheel has done by itself."""

import getpass
import os

import click

__all__ = ["by_option", "operator_name", "reason_option"]


def operator_name() -> str:
    """Return the system's name of whoever runs this, or the number where it has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


by_option = click.option(
    "--by",
    default=operator_name,
    show_default="the system's user",
    help="Who does it; kept with what is done.",
)
reason_option = click.option(
    "--reason", default="no reason given", show_default=True, help="Why; kept with what is done."
)
