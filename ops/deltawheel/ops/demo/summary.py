"""The demo's closing summary, as text and as JSON from the same figures."""

import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from deltawheel.contracts.addresses import without_password
from deltawheel.contracts.cycle import Cycle, CycleState, StepName
from deltawheel.contracts.evaluation import SuiteRole
from deltawheel.contracts.gate import Comparison, GateDecision, Verdict
from deltawheel.contracts.outcome import Outcome
from deltawheel.contracts.settings import Settings
from deltawheel.contracts.slices import ORDER_BY
from deltawheel.contracts.store import DeltaStats, Progress
from deltawheel.ops.console import plain, print_table

__all__ = ["DemoResult", "print_summary"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """Everything that the summary shows."""

    settings: Settings
    progress: Progress
    deltas: Sequence[DeltaStats]
    generator_deltas: Mapping[str, str]
    cycle: Cycle
    decision: GateDecision | None
    controls: Sequence[Mapping[str, Any]]
    elapsed_s: float
    state_bytes: int
    peak_memory_bytes: int

    def as_json(self) -> dict[str, Any]:
        """Return the figures for machines."""
        progress = self.progress
        return {
            "prompts": progress.prompts,
            "outcomes": {outcome.value: n for outcome, n in progress.outcomes.items()},
            "traces": progress.traces,
            "pairs": progress.pairs,
            "quarantined": dict(progress.quarantined),
            "mean_sample_delta": mean_deltas(self.deltas),
            "generator_deltas": dict(self.generator_deltas),
            "cycle": self.cycle,
            "decision": self.decision,
            "controls": list(self.controls),
            "elapsed_s": round(self.elapsed_s, 1),
            "peak_memory_bytes": self.peak_memory_bytes,
            "home": str(self.settings.home),
            "home_bytes": self.state_bytes,
        }


def mean_deltas(stats: Sequence[DeltaStats]) -> dict[str, float]:
    """Return the mean sample delta of each dimension over all generator pairs, in points."""
    sums: dict[str, tuple[float, int]] = {}
    for row in stats:
        total, count = sums.get(row.dimension, (0.0, 0))
        sums[row.dimension] = (total + row.mean_delta * row.num_pairs, count + row.num_pairs)
    return {name: total / count for name, (total, count) in sums.items() if count}


def print_summary(result: DemoResult) -> None:
    """Print the summary."""
    click.echo()
    _print_stream(result)
    _print_deltas(result)
    _print_slice(result.cycle)
    if result.decision:
        _print_decision(result.decision)
    if result.controls:
        _print_controls(result.controls)
    _print_verdict(result)
    _print_where(result)


def _print_stream(result: DemoResult) -> None:
    progress = result.progress
    rows: list[tuple[str, object]] = [
        (outcome.value, progress.outcomes.get(outcome, 0)) for outcome in Outcome
    ]
    rows.append(("open", progress.prompts - progress.closed))
    print_table(f"{progress.prompts} prompts, and where each ended", ("outcome", "prompts"), rows)
    reasons = ", ".join(f"{name} {count}" for name, count in progress.quarantined.items())
    click.echo(f"{progress.pairs} pairs stored; quarantined: {reasons or 'none'}\n")


def _print_deltas(result: DemoResult) -> None:
    rows = [(name, f"{mean:+.3f}") for name, mean in sorted(mean_deltas(result.deltas).items())]
    print_table("mean sample delta, points of the 1-5 scale", ("dimension", "delta"), rows)
    click.echo()
    ordered = [row for row in result.deltas if row.dimension == ORDER_BY]
    stored = [
        (
            f"{row.chosen_generator} over {row.rejected_generator}",
            row.num_pairs,
            f"{row.mean_delta:+.3f}",
            result.generator_deltas.get(f"{row.chosen_generator}/{row.rejected_generator}", ""),
        )
        for row in sorted(ordered, key=lambda row: -row.num_pairs)
    ]
    columns = ("chosen over rejected", "pairs", "sample delta", "generator delta")
    print_table("generator pairs", columns, stored)
    click.echo()


def _print_slice(cycle: Cycle) -> None:
    selected = cycle.step(StepName.SELECT).result
    if selected:
        click.echo(
            f"slice: {selected['num_pairs']} of {selected['num_candidates']} pairs, mean delta "
            f"{selected['mean_delta']:.3f} (all pairs {selected['mean_delta_of_candidates']:.3f})\n"
        )


def _line(comparison: Comparison) -> tuple[str, ...]:
    return (
        f"{comparison.role.value}, all" if comparison.suite is None else f"  {comparison.suite}",
        str(comparison.num_items),
        f"{comparison.champion_accuracy:.3f}",
        f"{comparison.candidate_accuracy:.3f}",
        f"{comparison.difference:+.3f} [{comparison.lower:+.3f}, {comparison.upper:+.3f}]",
    )


def _print_decision(decision: GateDecision) -> None:
    order = {role: place for place, role in enumerate(SuiteRole)}
    rows = [
        _line(comparison)
        for comparison in sorted(
            decision.comparisons,
            key=lambda row: (order[row.role], row.suite is not None, row.suite or ""),
        )
    ]
    columns = ("suite", "items", "champion", "candidate", "difference, paired interval")
    print_table("accuracy, greedy decoding", columns, rows)
    click.echo()


def _print_controls(rows: Sequence[Mapping[str, Any]]) -> None:
    suites = list(rows[0]["accuracy"])
    table = [
        (
            row["arm"],
            row["num_pairs"],
            *(f"{row['accuracy'][suite]:.3f}" for suite in suites),
            f"{row['difference']:+.3f} [{row['lower']:+.3f}, {row['upper']:+.3f}]",
        )
        for row in rows
    ]
    columns = ("trained on", "pairs", *suites, "out-of-domain gain over champion")
    print_table("controls, from the same pairs at equal budget", columns, table)
    click.echo()


def _print_verdict(result: DemoResult) -> None:
    decision, registered = result.decision, result.cycle.step(StepName.REGISTER).result
    if decision is None or result.cycle.state is CycleState.FAILED:
        click.echo(f"the cycle failed: {plain(result.cycle.error)}")
        return
    click.echo(f"verdict: {decision.verdict.value}, because {'; '.join(decision.reasons)}")
    if decision.verdict is Verdict.PROMOTE:
        click.echo(
            f"MLflow: {result.settings.registered_model} version {registered['version']}, "
            "alias champion"
        )
    else:
        click.echo("MLflow: no new version; the champion is who it was")


def _print_where(result: DemoResult) -> None:
    settings: Settings = result.settings
    config = f"{_program('deltawheel')} --config {shlex.quote(f'{settings.home}/deltawheel.yaml')}"
    registry = shlex.quote(without_password(settings.registry_uri))
    memory = f"{result.peak_memory_bytes / 1e9:.1f} GB of memory"
    size = f"{settings.home} holds {result.state_bytes / 1e6:.0f} MB"
    click.echo(
        f"took {result.elapsed_s:.0f} s, at most {memory}; {size}\n\n"
        f"where to look next:\n"
        f"  {config} pairs list\n"
        f"  {config} audit\n"
        f"  {_program('mlflow')} ui --backend-store-uri {registry}\n"
        f"  {config} up      # the same wheel, until stopped\n"
        f"the store is {without_password(settings.store_url.removeprefix('sqlite:///'))}"
    )


def _program(name: str) -> str:
    """Return what starts this installation's program from any folder, as a shell reads it."""
    own = Path(sys.executable).with_name(name)
    found = Path(shutil.which(name) or "")
    is_on_path = found.is_absolute() and found.resolve() == own.resolve()
    return name if is_on_path else shlex.quote(str(own))
