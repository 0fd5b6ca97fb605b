import json

import pytest

from deltawheel.ops.bench.stream.measures import Figures
from deltawheel.ops.bench.stream.report import print_report, summary
from deltawheel.ops.bench.stream.rival import Judged, RivalRun
from deltawheel.ops.bench.stream.running import Batch
from deltawheel.ops.bench.stream.steady import Memory, Steady

ASKED_FOR = {
    "pairs_per_s",
    "distilabel_pairs_per_s",
    "distilabel_ratio",
    "http_pairs_per_s",
    "ingest_to_stored_p99_s",
    "rss_mb",
}


def a_batch(seconds: float, *, pairs: int = 1_000) -> Batch:
    return Batch(pairs=pairs, seconds=seconds, cpu_us_per_pair={"curation": 1e6 * seconds / pairs})


def a_rival_run(busy_s: float) -> RivalRun:
    return RivalRun(pairs=100, busy_s=busy_s, whole_s=busy_s + 3)


def a_steady(*, num_measures: int = 8, mb_a_measure: float = 0.0) -> Steady:
    return Steady(
        rate=200.0,
        latencies_s=[0.01 * number for number in range(1, 101)],
        curve=[
            Memory(at_s=5.0 * number, rss_mb={"judging": 100 + mb_a_measure * number})
            for number in range(num_measures)
        ],
        num_broker_restarts=2,
    )


def test_summary_has_what_is_asked_for_even_where_nothing_was_measured() -> None:
    said = summary(Figures())
    assert said.keys() >= ASKED_FOR
    assert said["pairs_per_s"] is None
    assert said["distilabel_ratio"] is None


def test_ratio_is_that_of_medians() -> None:
    figures = Figures(
        stream=[a_batch(seconds) for seconds in (1.0, 2.0, 100.0)],
        rival={Judged.TRACE: [a_rival_run(busy_s) for busy_s in (1.0, 10.0, 20.0)]},
    )
    said = summary(figures)
    assert said["pairs_per_s"] == 500.0
    assert said["pairs_per_s_range"] == [10.0, 1_000.0]
    assert said["distilabel_pairs_per_s"] == 10.0
    assert said["distilabel_ratio"] == 50.0


def test_rival_is_timed_from_its_first_question_on() -> None:
    assert a_rival_run(2.0).pairs_per_s == 50.0


def test_latency_at_a_share_is_one_that_was_measured_in_each_fifth_of_the_time() -> None:
    steady = a_steady()
    assert steady.latency_s(0.5) == pytest.approx([0.11, 0.31, 0.51, 0.71, 0.91])
    assert steady.latency_s(0.99) == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert steady.latency_s(1.0) == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    said = summary(Figures(steady=steady))
    assert said["ingest_to_stored_p99_s"] == 0.6
    assert said["ingest_to_stored_p99_s_range"] == [0.2, 1.0]


def test_growth_is_what_memory_gains_after_the_first_quarter() -> None:
    assert a_steady().growth_mb() == {"judging": 0.0}
    assert a_steady(mb_a_measure=1.0).growth_mb() == {"judging": 4.0}


@pytest.mark.parametrize("num_measures", [1, 2, 3])
def test_growth_is_known_of_the_shortest_curve(num_measures: int) -> None:
    assert a_steady(num_measures=num_measures).growth_mb() == {"judging": 0.0}


def test_most_memory_of_any_part_is_kept() -> None:
    figures = Figures()
    for rss_mb in ({"judging": 90.0}, {"judging": 120.0, "gateway": 70.0}, {"judging": 100.0}):
        figures.note_memory(rss_mb)
    assert summary(figures)["rss_mb"] == {"gateway": 70.0, "judging": 120.0}


def test_report_shows_memory_over_time_and_fits_machines(
    capsys: pytest.CaptureFixture[str],
) -> None:
    figures = Figures(stream=[a_batch(2.0)], steady=a_steady(mb_a_measure=1.0))
    print_report(figures)
    shown = capsys.readouterr().out
    assert "memory at 200 prompts/s" in shown
    assert "107" in shown
    assert json.loads(json.dumps(summary(figures)))["broker_restarts"] == 2
