"""The gauges that monitoring keeps equal to the rows: as a store and as a page have them."""

from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

from deltawheel.contracts.metrics import WHEEL_LABEL
from deltawheel.contracts.outcome import Outcome, UnpairedCause
from deltawheel.contracts.slices import ORDER_BY
from deltawheel.contracts.store import Store

Gauges = Mapping[str, Mapping[tuple[str, ...], float]]
"""Per metric its value by the values of its labels, these in the order of the labels' names."""


def gauges_of_rows(store: Store) -> Gauges:
    """Return what monitoring must show of a store; the age of the oldest open prompt apart."""
    progress, deltas = store.progress(), store.delta_stats()
    outcomes: dict[tuple[str, ...], float] = {
        (outcome.value,): progress.outcomes.get(outcome, 0) for outcome in Outcome
    }
    closed = sum(outcomes.values())
    ties = progress.unpaired.get(UnpairedCause.TIE, 0)
    numbers = {
        "traces": progress.traces,
        "judgements": progress.judgements,
        "dead_letters": progress.dead_letters,
        "unmoved_dead_letters": progress.unmoved_letters,
        "tie_share": ties / (closed or 1),
        "quarantine_share": outcomes["quarantined",] / (closed or 1),
        "dead_letter_share": outcomes["dead-lettered",] / (closed or 1),
    }
    sides = [(row, (row.chosen_generator, row.rejected_generator)) for row in deltas]
    whole = [(row, pair) for row, pair in sides if row.dimension == ORDER_BY]
    labelled: dict[str, dict[tuple[str, ...], float]] = {
        "prompts": {**outcomes, ("open",): progress.prompts - closed},
        "unpaired_prompts": {
            (cause.value,): progress.unpaired.get(cause, 0) for cause in UnpairedCause
        },
        "quarantined_pairs": {(name,): count for name, count in progress.quarantined.items()},
        "pairs": {pair: row.num_pairs for row, pair in whole},
        "sample_delta_mean": {
            (chosen, row.dimension, rejected): row.mean_delta for row, (chosen, rejected) in sides
        },
        "generator_delta_mean": {pair: row.mean_generator_delta for row, pair in whole},
    }
    single: dict[str, dict[tuple[str, ...], float]] = {
        name: {(): number} for name, number in numbers.items()
    }
    return {f"deltawheel_{name}": values for name, values in (labelled | single).items()}


def gauges_on_page(page: str, names: Mapping[str, object]) -> Gauges:
    """Return what a metrics page shows under these names, the wheel's label left out."""
    shown: dict[str, dict[tuple[str, ...], float]] = {name: {} for name in names}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if sample.name in shown:
                labels = sorted(sample.labels.keys() - {WHEEL_LABEL})
                shown[sample.name][tuple(sample.labels[label] for label in labels)] = sample.value
    return shown
