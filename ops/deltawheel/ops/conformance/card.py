"""The conformance card: what is measured of a judge before anybody relies on it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from deltawheel.contracts.anchors import PARAPHRASE, SOLUTION, AnchorCase
from deltawheel.contracts.settings import JudgeKind, Settings
from deltawheel.infra import wiring
from deltawheel.ops.conformance.figures import (
    Discriminant,
    Ordering,
    Retest,
    Spread,
    discriminant_of,
    ordering_of,
    retest_of,
    spread_of,
)
from deltawheel.ops.conformance.measure import (
    Judged,
    Say,
    judge_anchors,
    length_slopes,
    order_shifts,
)
from deltawheel.ops.injections import Lift, measure_lifts

__all__ = ["Card", "DimensionCard", "draw_card", "judge_name"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DimensionCard:
    """What is known of a judge on one dimension; None is what was not measured."""

    ordering: Ordering
    discriminant: Discriminant | None
    identity: Spread | None
    paraphrase: Spread | None
    retest: Retest | None
    order_shift: float | None
    length_slope: float | None

    def told(self) -> dict[str, Any]:
        """Return it as plain data."""
        low, high = self.ordering.interval
        derived = {"accuracy": self.ordering.accuracy, "low": low, "high": high}
        retest = self.retest and {**asdict(self.retest), "stderr": self.retest.stderr}
        return {**asdict(self), "ordering": {**asdict(self.ordering), **derived}, "retest": retest}


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A judge at one revision, under one rubric, on a set of anchor cases."""

    judge: str
    judge_revision: str
    rubric: str
    rubric_digest: str
    num_cases: int
    repeats: int
    judged: Judged
    dimensions: Mapping[str, DimensionCard]
    lifts: Sequence[Lift]
    notes: Sequence[str]

    @property
    def ordering(self) -> Ordering:
        """Over all dimensions."""
        parts = [each.ordering for each in self.dimensions.values()]
        return Ordering(
            num_pairs=sum(part.num_pairs for part in parts),
            num_right=sum(part.num_right for part in parts),
            num_ties=sum(part.num_ties for part in parts),
        )

    def told(self) -> dict[str, Any]:
        """Return it as plain data."""
        judged, ordering = self.judged, self.ordering
        low, high = ordering.interval
        number = judged.num_asked or 1
        return {
            "judge": self.judge,
            "judge_revision": self.judge_revision,
            "rubric": self.rubric,
            "rubric_digest": self.rubric_digest,
            "cases": self.num_cases,
            "repeats": self.repeats,
            "parse_rate": judged.parse_rate,
            "faults": dict(judged.faults),
            "ordering": {"accuracy": ordering.accuracy, "low": low, "high": high},
            "dimensions": {name: each.told() for name, each in self.dimensions.items()},
            "injections": [{"family": lift.family, **lift.told()} for lift in self.lifts],
            "tokens_per_judgement": judged.tokens / number,
            "seconds_per_judgement": judged.seconds / number,
            "notes": list(self.notes),
        }


async def draw_card(
    cases: Sequence[AnchorCase],
    settings: Settings,
    *,
    repeats: int,
    attacks_per_family: int,
    say: Say,
) -> Card:
    """Judge the cases and all that goes with them, which takes some hundred judgements.

    Raises:
        ConfigError: the judge cannot be opened, or its rubric not be used.
        DeltawheelError: what the attacks are put behind is not judged.
    """
    rubric = settings.make_rubric()
    judged = await judge_anchors(cases, settings, repeats=repeats, say=say)
    shifts: Mapping[str, float] = {}
    slopes: Mapping[str, float] = {}
    lifts: Sequence[Lift] = ()
    if settings.judge.kind is JudgeKind.LLM:
        shifts = await order_shifts(cases, settings, judged.found, say=say)
    if settings.judge.kind is not JudgeKind.SANDBOX:
        slopes = await length_slopes(cases, settings, judged.found, say=say)
    if settings.judge.kind is not JudgeKind.SANDBOX and attacks_per_family:
        lifts = await measure_lifts(settings, per_family=attacks_per_family, say=say)
    return Card(
        judge=judge_name(settings),
        judge_revision=wiring.judge_revision(settings),
        rubric=rubric.name,
        rubric_digest=rubric.digest,
        num_cases=len(cases),
        repeats=repeats,
        judged=judged,
        dimensions={
            name: DimensionCard(
                ordering=ordering_of(judged.found, name),
                discriminant=discriminant_of(judged.found, name),
                identity=spread_of(judged.found, name, between=SOLUTION),
                paraphrase=spread_of(judged.found, name, between=PARAPHRASE),
                retest=retest_of(judged.found, name),
                order_shift=shifts.get(name),
                length_slope=slopes.get(name),
            )
            for name in rubric.dimensions
        },
        lifts=lifts,
        notes=_notes(cases, settings),
    )


def judge_name(settings: Settings) -> str:
    """Return what the judge of the settings is called, before it is opened."""
    names = [model.name for model in settings.judge.models.values()]
    return "+".join(names) or settings.judge.kind.value


def _notes(cases: Sequence[AnchorCase], settings: Settings) -> list[str]:
    """Say what the card leaves out, and why."""
    dimensions = settings.make_rubric().dimensions
    known = {name for case in cases for name in case.corrupted}
    notes = ["each trace is judged by itself, so there are no sides whose order could bias a score"]
    if silent := sorted(dimensions.keys() - known):
        notes.append(f"no anchor case speaks of {', '.join(silent)}: add some with anchors.file")
    if skipped := sorted(known - dimensions.keys()):
        notes.append(f"skipped, for the rubric has no such dimension: {', '.join(skipped)}")
    if settings.judge.kind is not JudgeKind.LLM:
        notes.append("the judge is a program: the order of dimensions cannot move it")
    if settings.judge.kind is JudgeKind.SANDBOX:
        notes.append(
            "the sandbox judge reads chained arithmetic alone: neither padding nor injected texts "
            "can be put to it"
        )
    return notes
