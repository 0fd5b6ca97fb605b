"""`deltawheel rotation`."""

from collections import Counter

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
@json_option
@click.pass_context
def preview(context: click.Context, policy: str | None, number: int, as_json: bool) -> None:
    """Deal prompts on trial over the pool as it is, and show what would be asked of whom.

    Nobody is asked anything. Generator deltas are those of the ladder, with their standard errors.
    """
    from deltawheel.contracts.pool import Pool, generator_delta
    from deltawheel.contracts.prompt import PromptKey
    from deltawheel.contracts.settings import RotationSettings
    from deltawheel.infra import wiring
    from deltawheel.services.generation.rotation import deal, generator_pairs

    settings = settings_of(context)
    rotation = settings.rotation
    if policy is not None:
        rotation = RotationSettings(**{**rotation.model_dump(), "policy": policy})
    with wiring.reading(settings) as store:
        pool = Pool.from_log(store.pool_log())
    pairs = generator_pairs(pool, rotation.pairs)
    counts = Counter(deal(PromptKey(f"trial-{n}", 0), pairs, rotation) for n in range(number))
    deltas = {pair: generator_delta(*pair, pool=pool) for pair in pairs}
    rows = [
        {
            "stronger": stronger.name,
            "weaker": weaker.name,
            "prompts": counts[stronger, weaker],
            "share": counts[stronger, weaker] / number,
            "generator_delta": deltas[stronger, weaker].estimate,
            "stderr": deltas[stronger, weaker].stderr,
        }
        for stronger, weaker in sorted(pairs, key=lambda pair: -counts[pair])
    ]
    mean = sum(counts[pair] * delta.estimate for pair, delta in deltas.items()) / number
    if as_json:
        print_json({"policy": rotation.policy, "pairs": rows, "mean_generator_delta": mean})
        return
    print_table(
        f"{number} prompts dealt by {rotation.policy}: mean generator delta {mean:+.2f}",
        ("stronger", "weaker", "prompts", "share", "generator delta"),
        [
            (
                row["stronger"],
                row["weaker"],
                row["prompts"],
                f"{row['share']:.1%}",
                f"{row['generator_delta']:+.2f} ± {row['stderr']:.2f}",
            )
            for row in rows
        ],
    )
