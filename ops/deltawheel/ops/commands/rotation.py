"""`deltawheel rotation`."""

import click

from deltawheel.contracts.ladder import UpdateBy
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


@command.command("simulate")
@click.option(
    "--policy",
    "policies",
    multiple=True,
    type=click.Choice(["round-robin", "weighted", "thompson", "ucb", "oracle"]),
    help="Only this one; may be repeated. thompson and ucb are delta-targeting.",
)
@click.option(
    "--world",
    type=click.Choice(["wrong-priors", "right-priors", "identical"]),
    default="wrong-priors",
    show_default=True,
    help="What is known of its five members beforehand, or that they do not differ.",
)
@click.option(
    "--update-by",
    type=click.Choice([each.value for each in UpdateBy]),
    help="Instead of the settings' ladder.update_by.",
)
@click.option(
    "--prompts",
    "number",
    default=2_000,
    show_default=True,
    type=click.IntRange(min=4),
    help="How many prompts to deal.",
)
@click.option("--seed", default=0, show_default=True, help="Of everything that is drawn.")
@json_option
@click.pass_context
def simulate(
    context: click.Context,
    policies: tuple[str, ...],
    world: str,
    update_by: str | None,
    number: int,
    seed: int,
    as_json: bool,
) -> None:
    """Compare policies in a world of known capabilities, in which the ladder has to learn.

    No model is asked. Deltas are the true ones. Regret is how much less capable the stronger
    member is than that of the best pair, and how much further its delta lies outside of
    rotation.target_delta; an oracle knows the capabilities.
    """
    from deltawheel.infra import wiring
    from deltawheel.ops.rotation_trial import CONTENDERS, run_trial
    from deltawheel.ops.rotation_world import WORLDS

    settings = settings_of(context)
    outcomes = [
        run_trial(
            WORLDS[world],
            contender,
            rotation=settings.rotation,
            update_by=UpdateBy(update_by) if update_by else settings.ladder.update_by,
            number=number,
            random=wiring.seeded_random(seed),
        ).told()
        for contender in policies or CONTENDERS
    ]
    if as_json:
        print_json({"world": world, "prompts": number, "seed": seed, "policies": outcomes})
        return
    rows = [
        (
            it["policy"],
            f"{it['mean_delta']:+.3f}",
            f"{it['delta_per_1000_tokens']:.3f}",
            f"{it['share_in_band']:.1%}",
            f"{it['regret']:.3f}",
            " ".join(f"{quarter:.3f}" for quarter in it["regret_by_quarter"]),
            f"{it['believed_at_the_end']:+.2f} ({it['true_at_the_end']:+.2f})",
        )
        for it in outcomes
    ]
    columns = (
        "policy",
        "mean delta",
        "per 1,000 tokens",
        "in band",
        "regret",
        "by quarter",
        "believed at the end (true)",
    )
    print_table(f"{number} prompts in a world of {world}, seed {seed}", columns, rows)
