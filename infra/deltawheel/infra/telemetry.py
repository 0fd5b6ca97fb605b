"""Prometheus metrics made from the closed list, and the endpoint that serves them with health."""

import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from deltawheel.contracts.metrics import METRICS, WHEEL_LABEL, Metric, MetricKind

__all__ = ["PrometheusTelemetry", "serve"]

M = TypeVar("M", Counter, Gauge, Histogram)


class _OfWheel(Collector):
    """What a registry holds, each sample with the wheel's name beside its own labels."""

    def __init__(self, registry: CollectorRegistry, wheel: str) -> None:
        self._registry = registry
        self._label = {WHEEL_LABEL: wheel}

    def collect(self) -> Iterable[Family]:
        for family in self._registry.collect():
            family.samples = [
                sample._replace(labels={**sample.labels, **self._label})
                for sample in family.samples
            ]
            yield family


class PrometheusTelemetry:
    """Every metric of `contracts.metrics`, in a registry of its own.

    The registry knows nothing of the wheel: its name is a constant of the process, and stands on
    every sample of the page.
    """

    def __init__(self, wheel: str = "default") -> None:
        self.registry = CollectorRegistry()
        self._of_wheel = _OfWheel(self.registry, wheel)
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._histograms: dict[str, Histogram] = {}
        self._children: dict[tuple[object, ...], Any] = {}
        for metric in METRICS:
            self._add(metric)

    def _add(self, metric: Metric) -> None:
        if metric.kind is MetricKind.COUNTER:
            self._counters[metric.name] = Counter(
                metric.name, metric.meaning, metric.labels, registry=self.registry
            )
        elif metric.kind is MetricKind.GAUGE:
            self._gauges[metric.name] = Gauge(
                metric.name, metric.meaning, metric.labels, registry=self.registry
            )
        else:
            self._histograms[metric.name] = Histogram(
                metric.name,
                metric.meaning,
                metric.labels,
                buckets=metric.buckets or Histogram.DEFAULT_BUCKETS,
                registry=self.registry,
            )

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter.

        Raises:
            KeyError: the closed list has no such counter.
        """
        self._labelled(self._counters, name, labels).inc(amount)

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge.

        Raises:
            KeyError: the closed list has no such gauge.
        """
        self._labelled(self._gauges, name, labels).set(value)

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add an observation to a histogram.

        Raises:
            KeyError: the closed list has no such histogram.
        """
        self._labelled(self._histograms, name, labels).observe(value)

    def _labelled(self, metrics: Mapping[str, M], name: str, labels: Mapping[str, str]) -> M:
        """Return the metric's child for these labels; the library takes 3 µs to look for one."""
        if not labels:
            return metrics[name]
        key = (name, *labels.items())
        if key not in self._children:
            self._children[key] = metrics[name].labels(**labels)
        child: M = self._children[key]
        return child

    def page(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        return generate_latest(self._of_wheel)


def serve(telemetry: PrometheusTelemetry, is_ready: Callable[[], bool]) -> int:
    """Serve /metrics, /healthz and /readyz on loopback in a thread; return the port."""

    class Endpoint(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            match self.path:
                case "/metrics":
                    self._answer(200, telemetry.page(), CONTENT_TYPE_LATEST)
                case "/healthz":
                    self._answer(200, b"ok\n")
                case "/readyz":
                    is_up = is_ready()
                    self._answer(200 if is_up else 503, b"ready\n" if is_up else b"not ready\n")
                case _:
                    self._answer(404, b"there is /metrics, /healthz and /readyz\n")

        def _answer(self, status: int, body: bytes, kind: str = "text/plain") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            with suppress(ConnectionError):  # who asked has hung up
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: probes come several times a second."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="telemetry", daemon=True).start()
    return int(server.server_address[1])
