"""Data-quality checks on micro-batches of pairs, by Great Expectations.

A suite's cost is nearly fixed (24 ms for 1 pair, 28 ms for 500, on one core), so pairs are checked
in batches. To be told which pairs fail would double it, so that is asked in a second look, of the
expectations that were not met. Importing the library takes 3–12 s, so it is imported late: by
`warm_up`, or by the first batch.
"""

import gc
import logging
import math
import os
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from deltawheel.contracts.pair import PreferencePair
from deltawheel.contracts.settings import CurationSettings

__all__ = ["EXPECTATIONS", "Expectation", "GreatExpectationsChecks", "expectations_of"]

EXPECTATIONS: Final[Mapping[str, str]] = {
    "pair-is-unique": "No two different pairs of a batch have the same id.",
    "texts-are-written": "Both sides have text.",
    "texts-differ": "Both sides are not the same text.",
    "texts-are-not-too-long": "Neither side has more than curation.max_text_chars characters.",
    "lengths-are-comparable": "Longer over shorter side is at most curation.max_length_ratio.",
    "generators-differ": "The sides come from different generators, revisions or slots.",
    "generator-delta-is-known": "The pair carries an estimate of its generator delta.",
    "tokens-are-counted": "Prompt and completion of both sides have at least one token.",
}
"""Every expectation by its name, which is what quarantine, metrics and reports call it.

What no `PreferencePair` can be is not among them: a chosen side that is no better, scores off the
scale or on other dimensions, a side that was cut off.
"""

_WITH_IDS: Final = {"result_format": "COMPLETE", "unexpected_index_column_names": ["pair_id"]}
_BETWEEN: Final = "ExpectColumnValuesToBeBetween"
_IN_SET: Final = "ExpectColumnValuesToBeInSet"
_NOT_NULL: Final = "ExpectColumnValuesToNotBeNull"
_UNIQUE: Final = "ExpectColumnValuesToBeUnique"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """One line of the suite: our name, the library's class, and the column it looks at."""

    name: str
    kind: str
    column: str
    bounds: Mapping[str, Any]


def expectations_of(settings: CurationSettings) -> tuple[Expectation, ...]:
    """Return the suite, in the order of `EXPECTATIONS`."""
    ratio, longest = settings.max_length_ratio, settings.max_text_chars
    is_true = {"value_set": [True]}
    lines: tuple[tuple[str, str, str, Mapping[str, Any]], ...] = (
        ("pair-is-unique", _UNIQUE, "pair_id", {}),
        ("texts-are-written", _BETWEEN, "fewest_letters", {"min_value": 1}),
        ("texts-differ", _IN_SET, "texts_differ", is_true),
        ("texts-are-not-too-long", _BETWEEN, "longer_chars", {"max_value": longest}),
        ("lengths-are-comparable", _BETWEEN, "length_ratio", {"max_value": ratio}),
        ("generators-differ", _IN_SET, "sources_differ", is_true),
        ("generator-delta-is-known", _NOT_NULL, "generator_delta", {}),
        ("tokens-are-counted", _BETWEEN, "fewest_tokens", {"min_value": 1}),
    )
    return tuple(
        Expectation(name=name, kind=kind, column=column, bounds=bounds)
        for name, kind, column, bounds in lines
    )


class GreatExpectationsChecks:
    """The suite of `EXPECTATIONS`; see `contracts.ports.PairChecks`.

    Args:
        settings: The limits.
        suite: Another suite, for trials; unset, `expectations_of(settings)`.
    """

    def __init__(
        self, settings: CurationSettings, *, suite: Sequence[Expectation] | None = None
    ) -> None:
        self._expectations = expectations_of(settings) if suite is None else tuple(suite)
        self._batches: Any = None
        self._suite: Any = None
        self._alone: dict[str, Any] = {}
        self._lock = threading.Lock()

    def warm_up(self) -> None:
        """Import the library and build the suite, so that the first pairs need not wait."""
        with self._lock:
            if self._suite is None:
                self._build()

    def failures(self, pairs: Sequence[PreferencePair]) -> Mapping[str, tuple[str, ...]]:
        """Return the names of the failed expectations by pair id; those that pass are absent.

        The same pair twice is one: two events of a group may bring it in the same batch.

        Raises:
            RuntimeError: an expectation crashed, which says nothing about the pairs.
        """
        if not pairs:
            return {}
        self.warm_up()
        import pandas as pd  # type: ignore[import-untyped, unused-ignore]

        frame = pd.DataFrame([_row(pair) for pair in _without_repeats(pairs)])
        with self._lock:
            batch = self._batches.get_batch(batch_parameters={"dataframe": frame})
            verdict = batch.validate(self._suite, result_format="BOOLEAN_ONLY")
            unmet = [name for name, result in _named(verdict.results) if not result.success]
            looks = [batch.validate(self._alone[name], result_format=_WITH_IDS) for name in unmet]
        failed: dict[str, list[str]] = {}
        for name, result in _named(looks):
            for pair_id in _failing_ids(result.result):
                failed.setdefault(pair_id, []).append(name)
        return {pair_id: tuple(names) for pair_id, names in failed.items()}

    def _build(self) -> None:
        gx = _great_expectations()
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = {"globally": False}
        source = context.data_sources.add_pandas("micro-batches")
        asset = source.add_dataframe_asset("pairs")
        self._batches = asset.add_batch_definition_whole_dataframe("all")
        suite = context.suites.add(gx.ExpectationSuite("preference-pairs"))
        for line in self._expectations:
            kind = getattr(gx.expectations, line.kind)
            meta = {"name": line.name}
            suite.add_expectation(kind(column=line.column, **line.bounds, meta=meta))
            self._alone[line.name] = kind(column=line.column, **line.bounds, meta=meta)
        self._suite = suite
        # A million objects that stay: to collect garbage among them is a sixth of curation's time.
        gc.freeze()


def _great_expectations() -> Any:  # noqa: ANN401  (the library has no types that we could name)
    """Import the library: quiet, and without its reports to its makers.

    It imports modules that Python has deprecated, and changes the process's warning filters while
    it does; neither concerns us, and the filters are as before afterwards.
    """
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        import great_expectations as gx
    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    return gx


def _without_repeats(pairs: Sequence[PreferencePair]) -> list[PreferencePair]:
    """Leave out pairs that stand in the batch already, alike in all but when they were made."""
    kept: dict[str, list[PreferencePair]] = {}
    for pair in pairs:
        others = kept.setdefault(pair.pair_id, [])
        if not any(pair.model_copy(update={"paired_at": it.paired_at}) == it for it in others):
            others.append(pair)
    return [pair for others in kept.values() for pair in others]


def _row(pair: PreferencePair) -> dict[str, Any]:
    """Return what the expectations look at. They skip empty cells, so only one column has any."""
    chosen, rejected = pair.chosen.trace, pair.rejected.trace
    sides = (chosen, rejected)
    shorter, longer = sorted(len(side.text) for side in sides)
    gap = pair.generator_delta.estimate
    return {
        "pair_id": pair.pair_id,
        "fewest_letters": min(len(side.text.strip()) for side in sides),
        "texts_differ": chosen.text_digest != rejected.text_digest,
        "longer_chars": longer,
        "length_ratio": max(longer, 1) / max(shorter, 1),
        "sources_differ": len({(it.generator, it.generator_revision, it.slot) for it in sides}) > 1,
        "generator_delta": gap if math.isfinite(gap) else None,
        "fewest_tokens": min(min(side.prompt_tokens, side.completion_tokens) for side in sides),
    }


def _named(results: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    """Yield each result with its expectation's name.

    Raises:
        RuntimeError: the expectation crashed.
    """
    for result in results:
        name = result.expectation_config.meta["name"]
        _raise_if_crashed(name, result.exception_info or {})
        yield name, result


def _raise_if_crashed(name: str, info: Mapping[str, Any]) -> None:
    """Stop at an expectation that crashed: it looks like one that failed.

    Raises:
        RuntimeError: it did; the information comes for the whole or per metric.
    """
    entries = [info] if "raised_exception" in info else info.values()
    for entry in entries:
        if entry.get("raised_exception"):
            raise RuntimeError(
                f"expectation {name} crashed, so the pairs are not checked: "
                f"{entry.get('exception_message')}"
            )


def _failing_ids(result: Mapping[str, Any]) -> list[str]:
    """Return the ids of the pairs that fail, each once, from either form that the library has."""
    listed = result.get("unexpected_index_list") or []
    ids = listed["pair_id"] if isinstance(listed, dict) else [row["pair_id"] for row in listed]
    return list(dict.fromkeys(map(str, ids)))
