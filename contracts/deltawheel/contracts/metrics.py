"""Every metric of a wheel, in one closed list: dashboards, rules and docs are made from it."""

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["METRICS", "WHEEL_LABEL", "Metric", "MetricKind"]

WHEEL_LABEL = "wheel"
"""On every sample beside the metric's own labels: several wheels may share one Prometheus."""


class MetricKind(StrEnum):
    """How Prometheus reads it."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: its name, kind, labels and meaning. Units stand in the name."""

    name: str
    kind: MetricKind
    labels: tuple[str, ...]
    meaning: str
    buckets: tuple[float, ...] | None = None


_C, _G, _H = MetricKind.COUNTER, MetricKind.GAUGE, MetricKind.HISTOGRAM
_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

METRICS: tuple[Metric, ...] = (
    # the loop of every streaming service
    Metric(
        "deltawheel_records_total",
        _C,
        ("topic", "result"),
        "Records ended, by what became of them: done, dead_letter, deferred.",
    ),
    Metric(
        "deltawheel_retries_total", _C, ("topic",), "Tries put off because the world was not ready."
    ),
    Metric(
        "deltawheel_effects_found_total",
        _C,
        ("effect",),
        "Effects that a redelivered record found in the store.",
    ),
    Metric(
        "deltawheel_events_published_total", _C, ("topic",), "Events acknowledged by the broker."
    ),
    Metric("deltawheel_in_flight_records", _G, (), "Records being worked on."),
    Metric(
        "deltawheel_paused_partitions",
        _G,
        (),
        "Partitions that nothing is fetched from: back-pressure, an outage or a halt holds them.",
    ),
    Metric(
        "deltawheel_halted_partitions",
        _G,
        (),
        "Partitions that wait for `deltawheel resume`, of those that this process holds.",
    ),
    Metric(
        "deltawheel_breaker_open",
        _G,
        ("dependency",),
        "1 while this process finds a dependency down, else 0.",
    ),
    Metric(
        "deltawheel_deferred_retries_total",
        _C,
        ("result",),
        "Tries of deferred records: done, dead_letter, put_off.",
    ),
    Metric(
        "deltawheel_lag_records",
        _G,
        ("topic", "partition"),
        "Records of a partition not polled yet.",
    ),
    Metric(
        "deltawheel_handling_seconds", _H, ("topic",), "Time from polled to published.", _SECONDS
    ),
    # models
    Metric(
        "deltawheel_model_requests_total",
        _C,
        ("generator", "result"),
        "Requests to model servers: ok, retry, refused.",
    ),
    Metric(
        "deltawheel_server_concurrency",
        _G,
        ("server",),
        "Most requests that a model server is given at the same time by this process, as found.",
    ),
    Metric("deltawheel_server_in_flight", _G, ("server",), "Requests at a model server now."),
    Metric(
        "deltawheel_adapter_loads_total",
        _C,
        ("generator",),
        "Adapters loaded into a server that did not know them.",
    ),
    Metric(
        "deltawheel_probe_items_total",
        _C,
        ("generator", "domain", "result"),
        "Held-out prompts that members of the pool answered: right, wrong.",
    ),
    Metric(
        "deltawheel_adapter_unloads_total",
        _C,
        ("generator",),
        "Adapters of retired generators that a server was told to forget.",
    ),
    Metric(
        "deltawheel_completion_tokens_total", _C, ("generator",), "Tokens written by generators."
    ),
    # the judge, where it is a model
    Metric("deltawheel_judge_tokens_total", _C, ("judge",), "Tokens read and written by judges."),
    Metric(
        "deltawheel_judge_low_coverage_total",
        _C,
        ("judge",),
        "Expected scores with too little probability on legal tokens, asked for again as votes.",
    ),
    Metric(
        "deltawheel_judge_drifted",
        _G,
        ("judge",),
        "1 while anchors score otherwise than they did, beyond the limit, and nobody has accepted "
        "it, else 0.",
    ),
    Metric(
        "deltawheel_anchor_shift",
        _G,
        ("judge", "dimension"),
        "How far the anchors' mean has moved since the baseline, points of the 1-5 scale.",
    ),
    Metric(
        "deltawheel_judge_cache_hits_total",
        _C,
        ("judge",),
        "Texts whose scores were known, so that the judge was not asked.",
    ),
    Metric(
        "deltawheel_judging",
        _G,
        ("state",),
        "Traces by what has become of them at the judge: pending, judged, retrying, dead.",
    ),
    Metric(
        "deltawheel_oldest_pending_judgement_seconds",
        _G,
        (),
        "Age of the oldest trace that is not judged, since it was written; 0 while there is none.",
    ),
    Metric(
        "deltawheel_judge_score_spread",
        _G,
        ("dimension",),
        "Standard deviation of the newest traces' scores, points of the 1-5 scale; not shown of "
        "fewer than 50.",
    ),
    Metric(
        "deltawheel_judge_agreement",
        _G,
        ("dimension",),
        "Krippendorff's alpha of the jury's newest traces; not shown of fewer than 50.",
    ),
    # owed events
    Metric(
        "deltawheel_owed_events_republished_total",
        _C,
        ("topic",),
        "Events published again because their effect was missing.",
    ),
    # what the rows say, kept by monitoring
    Metric(
        "deltawheel_prompts",
        _G,
        ("outcome",),
        "Accepted prompts by current outcome; open ones as open.",
    ),
    Metric(
        "deltawheel_unpaired_prompts",
        _G,
        ("cause",),
        "Unpaired prompts by cause: tie, single-survivor, judged-otherwise.",
    ),
    Metric(
        "deltawheel_tie_share",
        _G,
        (),
        "Share, 0 to 1, of closed prompts whose judged traces tied; 0 while none is closed.",
    ),
    Metric(
        "deltawheel_quarantine_share",
        _G,
        (),
        "Share, 0 to 1, of closed prompts that are quarantined; 0 while none is closed.",
    ),
    Metric(
        "deltawheel_dead_letter_share",
        _G,
        (),
        "Share, 0 to 1, of closed prompts that are dead-lettered; 0 while none is closed.",
    ),
    Metric("deltawheel_traces", _G, (), "Stored traces."),
    Metric("deltawheel_judgements", _G, (), "Stored judgements."),
    Metric("deltawheel_pairs", _G, ("chosen", "rejected"), "Stored pairs by generator pair."),
    Metric(
        "deltawheel_quarantined_pairs",
        _G,
        ("expectation",),
        "Quarantined pairs by failed expectation.",
    ),
    Metric("deltawheel_dead_letters", _G, (), "Stored dead letters."),
    Metric(
        "deltawheel_unmoved_dead_letters",
        _G,
        (),
        "Dead letters that nobody has replayed or dropped.",
    ),
    Metric(
        "deltawheel_deferred_records",
        _G,
        ("service",),
        "Records that wait in the store for their next try.",
    ),
    Metric(
        "deltawheel_sample_delta_mean",
        _G,
        ("chosen", "rejected", "dimension"),
        "Mean sample delta, points of the 1-5 scale.",
    ),
    Metric(
        "deltawheel_generator_delta_mean",
        _G,
        ("chosen", "rejected"),
        "Mean generator delta of stored pairs.",
    ),
    Metric(
        "deltawheel_member_standing",
        _G,
        ("generator",),
        "1 while prompts are dealt to the member of the pool, 0 while it has left or is gone.",
    ),
    Metric(
        "deltawheel_member_tokens",
        _G,
        ("generator", "direction"),
        "Tokens of a generator's stored traces: read, written.",
    ),
    Metric(
        "deltawheel_member_cost",
        _G,
        ("generator",),
        "What these tokens cost, at the generator's last price; the operator's money.",
    ),
    Metric(
        "deltawheel_tokens_per_pair",
        _G,
        (),
        "Tokens of all stored traces for each stored pair; 0 while there is none.",
    ),
    Metric(
        "deltawheel_cost_per_pair",
        _G,
        (),
        "Cost of all stored traces for each stored pair; 0 while there is none.",
    ),
    Metric(
        "deltawheel_tokens_per_delta_point",
        _G,
        ("delta",),
        "Tokens of all stored traces for each point of delta in stored pairs: sample, generator; 0 "
        "while these hold none.",
    ),
    Metric(
        "deltawheel_cost_per_delta_point",
        _G,
        ("delta",),
        "Cost of all stored traces for each point of delta in stored pairs: sample, generator; 0 "
        "while these hold none.",
    ),
    Metric(
        "deltawheel_oldest_open_prompt_seconds", _G, (), "Age of the oldest prompt without outcome."
    ),
    Metric("deltawheel_events_seen_total", _C, ("topic",), "Events that monitoring has read."),
)
