"""`deltawheel rotation`."""

import click

from deltawheel.contracts.settings import RotationPolicy
from deltawheel.ops.console import json_option, print_json, print_table, settings_of

__all__ = ["command"]


@click.group("rotation")
def command() -> None:
    """Show how prompts are dealt to the generators."""


@command.command("preview")
@click.option(
    "--policy",
    type=click.Choice([policy.value for policy in RotationPolicy]),
    help="Instead of the settings' policy.",
)
@click.option(
    "--prompts",
    "number",
    default=10_000,
    show_default=True,
    type=click.IntRange(min=1),
    help="How many prompts to deal on trial.",
)
@click.option("--domain", help="Of which the prompts are; unset, that of the settings' probe.")
@json_option
@click.pass_context
def preview(
    context: click.Context, policy: str | None, number: int, domain: str | None, as_json: bool
) -> None:
    """Deal prompts on trial over the pool as it is, and show what would be asked of whom.

    Nobody is asked anything. Ratings and generator deltas are those of the ladder in this domain,
    with their standard errors; who is active is so in the present window of turnover.
    """
    from deltawheel.contracts.settings import RotationSettings
    from deltawheel.infra import wiring
    from deltawheel.ops.rotation_preview import Preview

    settings = settings_of(context)
    rotation = settings.rotation
    if policy is not None:
        rotation = RotationSettings(**{**rotation.model_dump(), "policy": policy})
    settings = settings.model_copy(update={"rotation": rotation})
    with wiring.reading(settings) as store:
        shown = Preview.of(
            store,
            settings,
            domain=domain or settings.probe.domain,
            number=number,
            at=wiring.system_clock().now(),
        )
    if as_json:
        print_json(shown.told())
        return
    print_table(f"members in {shown.domain!r}", *shown.members_table())
    print_table(
        f"{number} prompts dealt by {rotation.policy}: mean generator delta {shown.mean:+.2f}",
        *shown.pairs_table(),
    )
