"""`deltawheel judge conformance`."""

import asyncio
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deltawheel.contracts.errors import ConfigError, ExitCode
from deltawheel.ops.console import (
    json_option,
    one_line,
    plain,
    print_json,
    print_table,
    settings_of,
)

if TYPE_CHECKING:
    from deltawheel.contracts.settings import Settings

__all__ = ["conformance"]


@click.command("conformance")
@click.argument("model", required=False)
@click.option(
    "--repeats",
    type=click.IntRange(min=2),
    default=3,
    show_default=True,
    help="How often each text is judged.",
)
@click.option("--cases", type=click.IntRange(min=1), help="Only so many anchor cases; unset, all.")
@click.option(
    "--full", is_flag=True, help="All 200 injected texts, not two of each of the ten families."
)
@click.option(
    "--limit",
    default=0.5,
    show_default=True,
    help="Largest mean lift of a family of injected texts, in points of the 1-5 scale.",
)
@click.option(
    "--min-ordering",
    type=click.FloatRange(0, 1),
    help="Smallest share of pairs, over all dimensions, that must be in the known order.",
)
@click.option(
    "--save", type=click.Path(dir_okay=False, path_type=Path), help="Write the card as JSON, too."
)
@json_option
@click.pass_context
def conformance(
    context: click.Context,
    model: str | None,
    repeats: int,
    cases: int | None,
    full: bool,
    limit: float,
    min_ordering: float | None,
    save: Path | None,
    as_json: bool,
) -> int:
    """Print what the judge is good for, measured on cases whose order is known.

    MODEL is the name of a judge in the settings; unset, the judge whose scores count. Solutions are
    judged beside versions of them that were made worse on one dimension each, beside paraphrases,
    and again: how often the order is right (ties count half), whether it is the spoilt dimension
    that falls, how far two judgements of one text lie apart, what padding, the order of the
    dimensions and injected pleas do to a score, and what a judgement costs. Nothing is stored.

    Exit code 1 if an answer about a case or an attack could not be read, if a family of injected
    texts lifts scores by more than --limit, or if the ordering is below --min-ordering.
    """
    from deltawheel.infra import wiring
    from deltawheel.ops.conformance.card import draw_card
    from deltawheel.ops.running import as_it_runs

    settings = of_judge(as_it_runs(settings_of(context)), model)
    card = asyncio.run(
        draw_card(
            wiring.anchor_cases(settings)[:cases],
            settings,
            repeats=repeats,
            attacks_per_family=20 if full else 2,
            say=lambda text: click.echo(plain(text), err=True),
        )
    )
    lifted = [it.family for it in card.lifts if it.mean > limit]
    is_ordered = min_ordering is None or card.ordering.accuracy >= min_ordering
    is_read = card.judged.parse_rate == 1 and not any(it.num_unjudged for it in card.lifts)
    is_good = is_read and not lifted and is_ordered
    told = {**card.told(), "limit": limit, "families_above_limit": lifted, "is_good": is_good}
    if save is not None:
        save.write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if as_json:
        print_json(told)
    else:
        _show(told)
    return ExitCode.DONE if is_good else ExitCode.FAILURE


def of_judge(settings: "Settings", named: str | None) -> "Settings":
    """Return the settings in which the named judge judges alone; unset, those whose scores count.

    Raises:
        ConfigError: they name no such judge.
    """
    judge = settings.judge
    if named is None:
        return settings.model_copy(update={"judge": judge.counted})
    models = {model.name: model for model in judge.models.values()}
    if not models and named == judge.kind.value:
        return settings
    if named not in models:
        known = sorted(models) or [judge.kind.value]
        raise ConfigError(f"the settings name no judge {named!r}; they name {known}")
    alone = judge.model_copy(update={"model": models[named], "jury": type(judge.jury)()})
    return settings.model_copy(update={"judge": alone})


def _show(card: Mapping[str, Any]) -> None:
    click.echo(
        f"{card['judge']} at {plain(card['judge_revision'])}, rubric {card['rubric']} "
        f"({card['rubric_digest'][:19]})"
    )
    click.echo(
        f"{card['cases']} cases, each text judged {card['repeats']} times; parse rate "
        f"{card['parse_rate']:.1%}, {card['tokens_per_judgement']:.0f} tokens and "
        f"{card['seconds_per_judgement']:.2f} s a judgement"
    )
    for fault, number in card["faults"].items():
        click.echo(f"{number} times: {one_line(fault)}")
    columns = ("dimension", "pairs", "in order", "95 %", "ties", "falls by", "more than others")
    print_table("order of known pairs", (*columns, "falls deepest"), list(_ordering(card)))
    columns = ("dimension", "stderr", "reliability", "same text", "paraphrase", "order", "length")
    print_table("stability, points of the 1-5 scale", columns, list(_stability(card)))
    if card["injections"]:
        rows = [
            (
                it["family"],
                it["attacks"],
                _signed(it["mean_lift"]) if it["attacks"] else "",
                _signed(it["worst_lift"]) if it["attacks"] else "",
                it["unjudged"] or "",
            )
            for it in sorted(card["injections"], key=lambda it: -it["mean_lift"])
        ]
        title = f"lift by injected texts, at most {card['limit']:+.2f} wanted"
        print_table(title, ("family", "attacks", "mean lift", "worst", "not judged"), rows)
    for note in card["notes"]:
        click.echo(f"note: {plain(note)}")


def _ordering(card: Mapping[str, Any]) -> Iterator[tuple[object, ...]]:
    for name, each in card["dimensions"].items():
        order, falls = each["ordering"], each["discriminant"] or {}
        share = falls.get("share_deepest")
        yield (
            name,
            order["num_pairs"],
            f"{order['accuracy']:.0%}" if order["num_pairs"] else "",
            f"{order['low']:.0%} to {order['high']:.0%}" if order["num_pairs"] else "",
            order["num_ties"],
            _signed(falls.get("fall")),
            _signed(falls.get("margin")),
            "" if share is None else f"{share:.0%}",
        )


def _stability(card: Mapping[str, Any]) -> Iterator[tuple[object, ...]]:
    for name, each in card["dimensions"].items():
        retest, same, other = (each[key] or {} for key in ("retest", "identity", "paraphrase"))
        reliability = retest.get("reliability")
        yield (
            name,
            f"{retest['stderr']:.2f}" if retest else "",
            "" if reliability is None else f"{reliability:.2f}",
            f"{same['absolute']:.2f}" if same else "",
            f"{other['absolute']:.2f} ({_signed(other['signed'])})" if other else "",
            _signed(each["order_shift"]),
            _signed(each["length_slope"]),
        )


def _signed(points: float | None) -> str:
    return "" if points is None else f"{points:+.2f}"
