"""What a run says of itself: a table, two files, and one JSON object."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from deltawheel.ops.bench.chaos.recovery import Recovery, percentile
from deltawheel.ops.bench.chaos.verdict import Verdict

__all__ = ["ChaosResult", "write_report"]

_EDGES_S: Final = (1, 2, 3, 5, 8, 13, 20, 30, 45, 60, 90, 120)
_BAR: Final = 40
_SHOWN: Final = 20
_HOW_RECOVERY_IS_MEASURED: Final = (
    "From the kill until another process answers in the place of the killed one and the store",
    "shows more of its work. A process that is killed again before that counts from its first",
    "kill. Training and monitoring add nothing to the stream: theirs is the time to the answer.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChaosResult:
    """One run: what was done, what it was felt for, and what the store held afterwards."""

    seed: int
    wall_s: float
    verdict: Verdict
    kills: Mapping[str, int]
    outages: Mapping[str, int]
    held: Mapping[str, int]
    missed: tuple[str, ...]
    recoveries: Sequence[Recovery]
    effects_found: int
    owed_republished: int
    unanswered: Mapping[str, int]
    num_garbage: int
    num_members: int
    num_given_up: int
    survivors: tuple[int, ...]

    @property
    def is_clean(self) -> bool:
        """Whether the guarantee held, and the run did all that it says."""
        was_complete = not (self.missed or self.num_given_up or self.survivors)
        return self.verdict.is_clean and was_complete

    @property
    def took_s(self) -> list[float]:
        """Return how long each kill of a service, a guard or the supervisor was felt, seconds."""
        return [one.took_s for one in self.recoveries if one.is_over]

    def took_by_cause(self) -> dict[str, list[float]]:
        """Return the same, by who was killed."""
        by_cause: dict[str, list[float]] = {}
        for one in self.recoveries:
            if one.is_over:
                by_cause.setdefault(one.victim.name, []).append(one.took_s)
        return by_cause

    def as_json(self) -> dict[str, Any]:
        """Return the object that stands in the last line."""
        return {
            "prompts": self.verdict.prompts,
            "kills": sum(self.kills.values()),
            "redeliveries": self.effects_found + self.owed_republished,
            "duplicates": self.verdict.duplicates,
            "lost": self.verdict.lost,
            "recovery_p50_s": round(percentile(self.took_s, 0.5), 2),
            "recovery_p99_s": round(percentile(self.took_s, 0.99), 2),
            "is_clean": self.is_clean,
            "seed": self.seed,
            "wall_s": round(self.wall_s, 1),
            "kills_by_process": dict(self.kills),
            "kills_at_failpoints": dict(self.held),
            "failpoints_missed": list(self.missed),
            "outages": dict(self.outages),
            "effects_found": self.effects_found,
            "owed_events_republished": self.owed_republished,
            "unanswered_batches": dict(self.unanswered),
            "outcomes": self.verdict.outcomes,
            "audit_findings": len(self.verdict.findings),
            "garbage": self.num_garbage,
            "garbage_without_dead_letter": self.verdict.unburied,
            "dead_letters": self.verdict.dead_letters,
            "dead_letters_in_vain": self.verdict.misburied,
            "outcomes_unexplained": self.verdict.unexplained,
            "extra_members": self.num_members,
            "up_ended_by_itself": self.num_given_up,
            "processes_left": list(self.survivors),
        }

    def rows(self) -> list[tuple[str, object]]:
        """Return the table for people."""
        verdict = self.verdict
        ends = ", ".join(f"{number} {name}" for name, number in verdict.outcomes.items())
        outages = ", ".join(f"{number} × {name}" for name, number in self.outages.items())
        return [
            ("prompts accepted", verdict.prompts),
            ("  ended", ends),
            ("SIGKILLs of services, guards, supervisor", sum(self.kills.values())),
            ("  of these, at failpoints", sum(self.held.values())),
            ("outages besides", outages),
            ("further group members that came and went", self.num_members),
            ("garbage, messages", self.num_garbage),
            ("  without its dead letters", verdict.unburied),
            ("dead letters of what an outage had stopped", verdict.misburied),
            ("redelivered records that found their effect", f"at least {self.effects_found}"),
            ("owed events published again", f"at least {self.owed_republished}"),
            ("batches submitted again by clients", sum(self.unanswered.values())),
            ("duplicates stored", verdict.duplicates),
            ("lost", verdict.lost),
            ("audit findings", len(verdict.findings)),
            ("recovery, p50 / p99", _spread(self.took_s)),
            ("took", f"{self.wall_s:.0f} s, seed {self.seed}"),
        ]

    def complaints(self) -> list[str]:
        """Return a sentence for everything that is not as promised."""
        verdict = self.verdict
        said = [f"audit: {finding}" for finding in verdict.findings[:_SHOWN]]
        if verdict.open:
            said.append(f"{verdict.open} prompts are open still")
        if verdict.absent:
            said.append(f"{verdict.absent} accepted prompts are not in the store")
        if verdict.unexplained:
            said.append(f"{verdict.unexplained} prompts ended as nothing in them explains")
        if not verdict.paired:
            said.append("not one prompt gave a pair, so the run has shown nothing")
        if verdict.duplicates:
            said.append(f"{verdict.duplicates} rows are stored twice")
        if verdict.unburied:
            said.append(f"{verdict.unburied} messages of garbage have no dead letter")
        if verdict.misburied:
            said.append(f"{verdict.misburied} records were dead-lettered for an outage")
        said += [f"nobody could be killed at {point}" for point in self.missed]
        if self.num_given_up:
            said.append(f"up ended by itself {self.num_given_up} times: look into up.log")
        if self.survivors:
            said.append(f"processes {', '.join(map(str, self.survivors))} were left running")
        return said


def _spread(values: Sequence[float]) -> str:
    return f"{percentile(values, 0.5):.1f} s / {percentile(values, 0.99):.1f} s"


def write_report(result: ChaosResult, folder: Path) -> None:
    """Write report.json, with every recovery, and report.md."""
    recoveries = [
        {"cause": one.cause, "process": one.victim.name, "seconds": round(one.took_s, 2)}
        for one in result.recoveries
        if one.is_over
    ]
    content = {**result.as_json(), "recoveries": recoveries}
    (folder / "report.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    (folder / "report.md").write_text(_markdown(result), encoding="utf-8")


def _markdown(result: ChaosResult) -> str:
    lines = ["# Chaos", "", "| what | figure |", "|---|---|"]
    lines += [f"| {name.strip()} | {value} |" for name, value in result.rows()]
    lines += ["", "## Kills and recovery, by process", "", *_HOW_RECOVERY_IS_MEASURED, ""]
    lines += ["| process | kills | recovery p50 | p99 | longest |", "|---|---|---|---|---|"]
    for name, took in sorted(result.took_by_cause().items()):
        figures = (percentile(took, 0.5), percentile(took, 0.99), max(took))
        lines.append(
            f"| {name} | {len(took)} | " + " | ".join(f"{x:.1f} s" for x in figures) + " |"
        )
    lines += ["", "## Kills at failpoints", "", "| failpoint | kills |", "|---|---|"]
    lines += [f"| {name} | {number} |" for name, number in sorted(result.held.items())]
    lines += ["", "## How long a kill was felt", "", *_histogram(result.took_s), ""]
    if complaints := result.complaints():
        lines += ["## Not as promised", "", *(f"- {said}" for said in complaints), ""]
    return "\n".join(lines)


def _histogram(values: Sequence[float]) -> list[str]:
    """Draw it with characters, as an indented block."""
    edges = (0, *_EDGES_S)
    counts = [sum(low <= value < high for value in values) for low, high in pairwise(edges)]
    counts.append(sum(value >= edges[-1] for value in values))
    labels = [f"{low:>3}–{high:<3} s" for low, high in pairwise(edges)]
    labels.append(f"over {edges[-1]} s")
    most = max(counts, default=0) or 1
    return [
        f"    {label:<10} {'█' * round(_BAR * count / most):<{_BAR}} {count}"
        for label, count in zip(labels, counts, strict=True)
    ]
