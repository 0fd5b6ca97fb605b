"""The bench's report: a table for people, one JSON object for machines."""

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

from deltawheel.ops.bench.stream.measures import Figures
from deltawheel.ops.bench.stream.rival import Judged
from deltawheel.ops.bench.stream.running import Batch
from deltawheel.ops.bench.stream.steady import Steady
from deltawheel.ops.console import print_table

__all__ = ["print_report", "summary"]

_CURVE_POINTS = 12


def summary(figures: Figures) -> dict[str, Any]:
    """Return the figures as plain values: medians, with the lowest and highest beside them."""
    rates = _rates(figures.stream)
    trace, prompt = (
        [run.pairs_per_s for run in figures.rival.get(judged, ())]
        for judged in (Judged.TRACE, Judged.PROMPT)
    )
    steady = figures.steady
    return {
        "pairs_per_s": _middle(rates),
        "pairs_per_s_range": _span(rates),
        "kafka_pairs_per_s": _middle(_rates(figures.on_kafka)),
        "distilabel_pairs_per_s": _middle(trace),
        "distilabel_pairs_per_s_range": _span(trace),
        "distilabel_ratio": _ratio(rates, trace),
        "distilabel_joint_pairs_per_s": _middle(prompt),
        "distilabel_joint_ratio": _ratio(rates, prompt),
        "http_pairs_per_s": _middle(_rates(figures.over_http)),
        "ingest_to_stored_p50_s": steady and round(median(steady.latency_s(0.5)), 3),
        "ingest_to_stored_p99_s": steady and round(median(steady.latency_s(0.99)), 3),
        "ingest_to_stored_p99_s_range": steady and _span(steady.latency_s(0.99), digits=3),
        "rss_mb": {name: round(mb, 1) for name, mb in sorted(figures.rss_mb.items())},
        "rss_growth_mb": steady and {n: round(mb, 1) for n, mb in steady.growth_mb().items()},
        "steady_s": steady and round(steady.curve[-1].at_s),
        "broker_restarts": steady and steady.num_broker_restarts,
        "cpu_us_per_pair": _cpu(figures.stream),
        "http_cpu_us_per_pair": _cpu(figures.over_http),
        "scaling": [
            {"partitions": it.partitions, "members": it.members, "pairs_per_s": it.pairs_per_s}
            for it in figures.scaling
        ],
    }


def _rates(batches: Sequence[Batch]) -> list[float]:
    return [batch.pairs_per_s for batch in batches]


def _middle(values: Sequence[float]) -> float | None:
    return round(median(values), 1) if values else None


def _span(values: Sequence[float], *, digits: int = 1) -> list[float] | None:
    return [round(min(values), digits), round(max(values), digits)] if values else None


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    return round(median(ours) / median(theirs), 1) if ours and theirs else None


def _cpu(batches: Sequence[Batch]) -> dict[str, int]:
    """Return the median of each process's processor time a pair, in microseconds."""
    names = batches[0].cpu_us_per_pair if batches else ()
    return {
        name: round(median(batch.cpu_us_per_pair.get(name, 0.0) for batch in batches))
        for name in names
    }


def print_report(figures: Figures) -> None:
    """Print what was measured as tables."""
    said = summary(figures)
    rows = [row for row in _rows(said) if row[1] is not None]
    print_table("stream", ("what", "median", "lowest to highest"), rows)
    for key, title in (
        ("cpu_us_per_pair", "processor time a pair, in process"),
        ("http_cpu_us_per_pair", "processor time a pair, over HTTP"),
    ):
        if said[key]:
            total = sum(said[key].values())
            rows_us = [*said[key].items(), ("all", total)]
            print_table(title, ("process", "µs"), rows_us)
    if figures.scaling:
        scaled = [(it.partitions, it.members, f"{it.pairs_per_s:.0f}") for it in figures.scaling]
        print_table("scaling", ("partitions", "processes of each", "pairs/s"), scaled)
    if figures.steady is not None:
        _print_curve(figures.steady)
    if figures.rss_mb:
        peaks = [(name, f"{mb:.0f}") for name, mb in sorted(figures.rss_mb.items())]
        print_table("most memory", ("process", "MB"), peaks)


def _rows(said: dict[str, Any]) -> Iterator[tuple[str, object, object]]:
    yield "pairs/s, models and judge in process", said["pairs_per_s"], said["pairs_per_s_range"]
    yield "pairs/s through Apache Kafka", said["kafka_pairs_per_s"], None
    yield (
        "distilabel pairs/s, judge asked by trace as ours is",
        said["distilabel_pairs_per_s"],
        said["distilabel_pairs_per_s_range"],
    )
    yield "times distilabel", said["distilabel_ratio"], None
    yield "distilabel pairs/s, judge asked by prompt", said["distilabel_joint_pairs_per_s"], None
    yield "times distilabel, judge asked by prompt", said["distilabel_joint_ratio"], None
    yield "pairs/s over HTTP", said["http_pairs_per_s"], None
    yield "ingest to stored, median, s", said["ingest_to_stored_p50_s"], None
    yield (
        "ingest to stored, p99, s",
        said["ingest_to_stored_p99_s"],
        said["ingest_to_stored_p99_s_range"],
    )
    yield "restarts of the broker at its size limit", said["broker_restarts"], None


def _print_curve(steady: Steady) -> None:
    step = max(1, len(steady.curve) // _CURVE_POINTS)
    names = sorted(steady.curve[-1].rss_mb)
    rows = [
        (f"{each.at_s / 60:.1f}", *(f"{each.rss_mb.get(name, 0.0):.0f}" for name in names))
        for each in steady.curve[::step]
    ]
    print_table(f"memory at {steady.rate:g} prompts/s, MB", ("minute", *names), rows)
