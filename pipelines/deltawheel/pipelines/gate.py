"""The gate: a pure function from paired results and thresholds to a verdict that can be replayed.

Candidate and champion answered the same items, so each item gives a difference of −1, 0 or +1.
Bounds are percentiles of a stratified paired bootstrap: items are drawn anew within each suite,
and suites of one role count alike. Drawing n items again with three possible values *is* a
multinomial draw, which makes 4,000 resamples of any size cost milliseconds.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

from deltawheel.contracts.cycle import StepName
from deltawheel.contracts.evaluation import Evaluation, ItemResult, SuiteRole
from deltawheel.contracts.gate import Comparison, GateDecision, GateThresholds, Verdict
from deltawheel.contracts.ids import digest_of, seed_of
from deltawheel.infra.numeric import generator
from deltawheel.pipelines.context import Result, StageContext
from deltawheel.pipelines.evaluation import EVALUATION_FILE

__all__ = ["GATE_FILE", "decide", "gate", "replay"]

_POWER: Final = 0.8
_PSEUDO_ITEMS: Final = 1
"""One item that the candidate won and one that it lost, added before drawing again.

Without them five wins and no loss would look certain, for a resample cannot lose what was never
lost; with them five to none is not enough at 2.5 % and six to none is, as in the exact test.
"""

GATE_FILE: Final = "gate.json"


@dataclass(frozen=True, slots=True)
class _Marks:
    """What is compared; `leaning` says which arm is ahead over all: 1 candidate, −1 champion."""

    evaluation: Evaluation
    thresholds: GateThresholds
    leaning: int


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A comparison and the resampled differences behind its bounds."""

    comparison: Comparison
    resamples: NDArray[np.float64]


def decide(evaluation: Evaluation, thresholds: GateThresholds) -> GateDecision:
    """Compare candidate and champion: promote, reject, or say that it cannot be told.

    Harm, or a gain that is surely too small, rejects; superiority with every non-inferiority shown
    promotes; what is left is inconclusive.

    Raises:
        ValueError: the evaluation has no out-of-domain suite.
    """
    marks = _Marks(evaluation, thresholds, _leaning(map(_difference, evaluation.items)))
    drawn = [row for role in SuiteRole for row in _compare_role(marks, role)]
    comparisons = [row.comparison for row in drawn]
    transfer = next(
        (row for row in drawn if _is_overall(row.comparison, SuiteRole.OUT_OF_DOMAIN)), None
    )
    if transfer is None:
        raise ValueError("the evaluation has no out-of-domain suite, so nothing can be decided")
    smallest = _smallest_visible_gain(transfer.resamples, thresholds.alpha)
    verdict, reasons = _judge(comparisons, transfer.comparison, thresholds, smallest)
    return GateDecision(
        cycle_id=evaluation.cycle_id,
        evaluation_digest=digest_of(evaluation.model_dump_json()),
        thresholds=thresholds,
        comparisons=tuple(comparisons),
        smallest_visible_gain=smallest,
        verdict=verdict,
        reasons=tuple(reasons),
    )


def gate(context: StageContext) -> Result:
    """Decide on the cycle's evaluation; write the verdict beside what it was made from."""
    evaluated = (context.done(StepName.EVALUATE) / EVALUATION_FILE).read_text(encoding="utf-8")
    evaluation = Evaluation.model_validate_json(evaluated)
    thresholds = context.settings.gate.thresholds(seed_of(f"gate {context.cycle_id}"))
    decision = decide(evaluation, thresholds)
    (context.folder / EVALUATION_FILE).write_text(evaluated, encoding="utf-8")
    text = decision.model_dump_json(indent=2)
    (context.folder / GATE_FILE).write_text(f"{text}\n", encoding="utf-8")
    context.progress(f"{decision.verdict.value}: {'; '.join(decision.reasons)}")
    return {"verdict": decision.verdict.value, "reasons": list(decision.reasons)}


def replay(folder: Path) -> GateDecision:
    """Decide again from the items and thresholds that lie beside a verdict.

    The same decision comes out, wherever the folder has travelled, or the items were changed.
    """
    decided = GateDecision.model_validate_json((folder / GATE_FILE).read_text(encoding="utf-8"))
    text = (folder / EVALUATION_FILE).read_text(encoding="utf-8")
    return decide(Evaluation.model_validate_json(text), decided.thresholds)


def _is_overall(comparison: Comparison, role: SuiteRole) -> bool:
    return comparison.suite is None and comparison.role is role


def _compare_role(marks: _Marks, role: SuiteRole) -> list[_Drawn]:
    suites = [
        _compare_suite(name, role, items, marks)
        for name, items in marks.evaluation.of_role(role).items()
    ]
    return [*suites, _macro_average(role, suites, marks.thresholds)] if suites else []


def _compare_suite(
    name: str, role: SuiteRole, items: Sequence[ItemResult], marks: _Marks
) -> _Drawn:
    differences = [_difference(item) for item in items]
    resamples = _resample(differences, marks, name)
    champion = sum(item.champion_correct for item in items) / len(items)
    candidate = sum(item.candidate_correct for item in items) / len(items)
    lower, upper = _bounds(resamples, marks.thresholds.alpha)
    comparison = Comparison(
        suite=name,
        role=role,
        num_items=len(items),
        champion_accuracy=champion,
        candidate_accuracy=candidate,
        difference=sum(differences) / len(items),
        lower=lower,
        upper=upper,
    )
    return _Drawn(comparison, resamples)


def _macro_average(role: SuiteRole, suites: Sequence[_Drawn], thresholds: GateThresholds) -> _Drawn:
    rows = [suite.comparison for suite in suites]
    resamples = np.mean([suite.resamples for suite in suites], axis=0)
    lower, upper = _bounds(resamples, thresholds.alpha)
    comparison = Comparison(
        suite=None,
        role=role,
        num_items=sum(row.num_items for row in rows),
        champion_accuracy=sum(row.champion_accuracy for row in rows) / len(rows),
        candidate_accuracy=sum(row.candidate_accuracy for row in rows) / len(rows),
        difference=sum(row.difference for row in rows) / len(rows),
        lower=lower,
        upper=upper,
    )
    return _Drawn(comparison, resamples)


def _difference(item: ItemResult) -> int:
    return int(item.candidate_correct) - int(item.champion_correct)


def _leaning(differences: Iterable[int]) -> int:
    """Return the sign of the sum, or of the first difference where it is 0; 0 if there is none."""
    seen = [value for value in differences if value]
    return int(np.sign(sum(seen))) or next(iter(seen), 0)


def _resample(differences: Sequence[int], marks: _Marks, suite: str) -> NDArray[np.float64]:
    """Draw the mean difference of a suite anew, many times.

    The side that is ahead is drawn first, whichever it is, so that swapping the arms negates each
    resample exactly. Where nothing differs at all, half of the resamples mirror the other half.
    """
    wins, losses = differences.count(1), differences.count(-1)
    leaning = _leaning(differences) or marks.leaning
    ahead, behind = (wins, losses) if leaning >= 0 else (losses, wins)
    num_items, num_resamples = len(differences), marks.thresholds.num_resamples
    weights = np.array(
        [ahead + _PSEUDO_ITEMS, behind + _PSEUDO_ITEMS, num_items - ahead - behind], dtype=float
    )
    stream = generator("gate", marks.thresholds.seed, suite)
    drawn = stream.multinomial(num_items, weights / weights.sum(), size=num_resamples)
    means: NDArray[np.float64] = (drawn[:, 0] - drawn[:, 1]) / num_items
    if leaning == 0:
        half = means[: (num_resamples + 1) // 2]
        return np.concatenate([half, -half])
    return means if leaning > 0 else -means


def _bounds(resamples: NDArray[np.float64], alpha: float) -> tuple[float, float]:
    lower, upper = np.quantile(resamples, [alpha, 1 - alpha])
    return float(lower), float(upper)


def _smallest_visible_gain(resamples: NDArray[np.float64], alpha: float) -> float:
    normal = NormalDist()
    return float((normal.inv_cdf(1 - alpha) + normal.inv_cdf(_POWER)) * resamples.std())


def _judge(
    comparisons: Sequence[Comparison],
    transfer: Comparison,
    thresholds: GateThresholds,
    smallest: float,
) -> tuple[Verdict, list[str]]:
    against = _harms(comparisons, thresholds)
    if transfer.upper < thresholds.min_gain:
        against.append(
            f"the out-of-domain gain is at most {transfer.upper:+.3f}, below the "
            f"{thresholds.min_gain:.3f} asked for"
        )
    if against:
        return Verdict.REJECT, against
    missing = _not_shown(comparisons, transfer, thresholds)
    if not missing:
        return Verdict.PROMOTE, [
            f"the out-of-domain gain is at least {transfer.lower:+.3f}, and no harm elsewhere"
        ]
    seen = f"this many items would have shown a gain of {smallest:.3f}"
    return Verdict.INCONCLUSIVE, [*missing, seen]


def _harms(comparisons: Sequence[Comparison], thresholds: GateThresholds) -> list[str]:
    harms = []
    for row in comparisons:
        margin = thresholds.max_harm if row.suite is None else thresholds.max_suite_harm
        if row.upper < -margin:
            where = f"the {row.role.value} suites" if row.suite is None else f"suite {row.suite}"
            harms.append(
                f"{where} surely fell by more than {margin:.3f} (at best {row.upper:+.3f})"
            )
    return harms


def _not_shown(
    comparisons: Sequence[Comparison], transfer: Comparison, thresholds: GateThresholds
) -> list[str]:
    missing = []
    if transfer.lower <= 0:
        missing.append(f"the out-of-domain gain may be {transfer.lower:+.3f}")
    for role in (SuiteRole.IN_DOMAIN, SuiteRole.GUARD):
        for row in comparisons:
            if _is_overall(row, role) and row.lower <= -thresholds.max_harm:
                missing.append(
                    f"the {role.value} suites may have fallen by {-row.lower:.3f}, more than the "
                    f"{thresholds.max_harm:.3f} allowed"
                )
    return missing
