"""What was spent on traces, as `deltawheel status` shows it."""

from typing import Any, Final

from deltawheel.contracts.spending import Spending
from deltawheel.ops.console import print_table

__all__ = ["show_spending", "spending_json"]

_RATES: Final = {
    "pair": "for each pair",
    "sample": "for each point of sample delta",
    "generator": "for each point of generator delta",
}


def spending_json(spending: Spending) -> dict[str, Any]:
    """Return it for machines; a rate is null where nothing came of the work yet."""
    return {
        "tokens": spending.tokens,
        "cost": spending.cost,
        "members": [
            {
                "generator": it.tokens.generator,
                "traces": it.tokens.num_traces,
                "prompt_tokens": it.tokens.prompt_tokens,
                "completion_tokens": it.tokens.completion_tokens,
                "cost": it.cost,
            }
            for it in spending.members
        ],
        "sample_points": spending.gained.sample_points,
        "generator_points": spending.gained.generator_points,
        **{
            f"{unit}_per_{what}{'' if what == 'pair' else '_point'}": rate and rate[place]
            for what, rate in spending.rates.items()
            for place, unit in enumerate(("tokens", "cost"))
        },
    }


def show_spending(spending: Spending) -> None:
    """Print it, unless nobody has written anything."""
    if not spending.members:
        return
    rows: list[tuple[object, ...]] = [
        (
            it.tokens.generator,
            it.tokens.num_traces,
            it.tokens.prompt_tokens,
            it.tokens.completion_tokens,
            _money(float(it.cost)),
        )
        for it in spending.members
    ]
    print_table("spent", ("generator", "traces", "tokens read", "tokens written", "cost"), rows)
    rates = [
        (_RATES[what], f"{rate[0]:,.1f}", _money(rate[1]))
        for what, rate in spending.rates.items()
        if rate is not None
    ]
    if rates:
        print_table("spent on what came of it", ("what", "tokens", "cost"), rates)


def _money(amount: float) -> str:
    return f"{amount:.6g}" if amount else "-"
