"""Metrics of the closed list, and the endpoint that serves them."""

import socket
import struct
import threading
import urllib.error
import urllib.request
from collections.abc import Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families

from deltawheel.contracts.metrics import METRICS, WHEEL_LABEL, MetricKind
from deltawheel.contracts.settings import Settings
from deltawheel.infra import wiring
from deltawheel.infra.telemetry import PrometheusTelemetry, serve
from tests.waiting import wait_for
from tests.wheels import sum_metric


def get(port: int, path: str) -> tuple[int, str]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}{path}", timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def write_all(telemetry: PrometheusTelemetry) -> None:
    write: dict[MetricKind, Callable[..., None]] = {
        MetricKind.COUNTER: telemetry.count,
        MetricKind.GAUGE: telemetry.set,
        MetricKind.HISTOGRAM: telemetry.observe,
    }
    for metric in METRICS:
        write[metric.kind](metric.name, 1, **dict.fromkeys(metric.labels, "x"))


def test_every_metric_of_the_closed_list_can_be_written() -> None:
    telemetry = PrometheusTelemetry()
    write_all(telemetry)
    page = telemetry.page().decode()
    assert all(f"# HELP {metric.name} {metric.meaning}" in page for metric in METRICS)


def test_every_sample_carries_its_wheel_beside_its_own_labels() -> None:
    telemetry = PrometheusTelemetry("blue")
    write_all(telemetry)
    families = {
        family.name: family for family in text_string_to_metric_families(telemetry.page().decode())
    }
    assert families.keys() >= {metric.name.removesuffix("_total") for metric in METRICS}
    assert all(sample.labels["wheel"] == "blue" for f in families.values() for sample in f.samples)
    [pairs] = families["deltawheel_pairs"].samples
    assert pairs.labels == {"wheel": "blue", "chosen": "x", "rejected": "x"}


def test_no_metric_has_the_wheels_label_for_something_else() -> None:
    assert all(WHEEL_LABEL not in metric.labels for metric in METRICS)


def test_metrics_of_a_process_are_those_of_the_wheel_in_its_settings() -> None:
    telemetry = wiring.open_telemetry(Settings(wheel="green"))
    assert isinstance(telemetry, PrometheusTelemetry)
    telemetry.set("deltawheel_traces", 3)
    page = telemetry.page().decode()
    assert 'deltawheel_traces{wheel="green"} 3.0' in page
    assert sum_metric(page, "deltawheel_traces") == 3


def test_sum_over_a_page_counts_only_what_has_the_labels() -> None:
    telemetry = PrometheusTelemetry("blue")
    telemetry.count("deltawheel_retries_total", 2, topic="traces")
    telemetry.count("deltawheel_retries_total", 5, topic="prompts")
    page = telemetry.page().decode()
    assert sum_metric(page, "deltawheel_retries_total") == 7
    assert sum_metric(page, "deltawheel_retries_total", topic="prompts") == 5
    assert sum_metric(page, "deltawheel_retries_total", topic="prompts", wheel="red") == 0


def test_two_of_them_share_nothing() -> None:
    first, second = PrometheusTelemetry(), PrometheusTelemetry()
    first.set("deltawheel_pairs", 3, chosen="strong", rejected="weak")
    labels = {"chosen": "strong", "rejected": "weak"}
    assert second.registry.get_sample_value("deltawheel_pairs", labels) is None


def test_unknown_name_is_an_error_at_once() -> None:
    telemetry = PrometheusTelemetry()
    with pytest.raises(KeyError, match="deltawheel_no_such_total"):
        telemetry.count("deltawheel_no_such_total")
    with pytest.raises(KeyError, match="deltawheel_traces"):
        telemetry.count("deltawheel_traces")


def test_wrong_or_missing_labels_are_an_error_at_once() -> None:
    telemetry = PrometheusTelemetry()
    with pytest.raises(ValueError, match="label"):
        telemetry.count("deltawheel_retries_total", colour="red")
    with pytest.raises(ValueError, match="label"):
        telemetry.count("deltawheel_retries_total")
    with pytest.raises(ValueError, match="label"):
        telemetry.set("deltawheel_traces", 1, topic="traces")


def test_endpoint_serves_metrics_health_and_readiness() -> None:
    is_ready = False
    telemetry = PrometheusTelemetry("blue")
    telemetry.count("deltawheel_retries_total", 2, topic="traces")
    port = serve(telemetry, lambda: is_ready)
    status, page = get(port, "/metrics")
    assert status == 200
    assert 'deltawheel_retries_total{topic="traces",wheel="blue"} 2.0' in page
    assert get(port, "/healthz")[0] == 200
    assert get(port, "/readyz")[0] == 503
    is_ready = True
    assert get(port, "/readyz") == (200, "ready\n")
    assert get(port, "/elsewhere")[0] == 404


def test_who_hangs_up_before_the_answer_leaves_no_traceback(
    capfd: pytest.CaptureFixture[str],
) -> None:
    asked, gone = threading.Event(), threading.Event()

    def is_ready() -> bool:
        asked.set()
        return gone.wait(10)

    port = serve(PrometheusTelemetry("test"), is_ready)
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET /readyz HTTP/1.1\r\n\r\n")
        assert asked.wait(10)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    gone.set()
    wait_for(
        lambda: not any("process_request" in thread.name for thread in threading.enumerate()),
        what="the request is over",
    )
    assert capfd.readouterr().err == ""
