"""The bench end to end, small: what it counts must be right; how fast it was is not asked here."""

import json
from pathlib import Path

import pytest

from deltawheel.contracts.errors import DeltawheelError
from deltawheel.ops.bench.stream.measures import Figures, Plan, measure
from deltawheel.ops.bench.stream.report import summary
from tests.wheels import leftovers, run_cli

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


def test_bench_ends_with_one_json_object_and_leaves_nothing(tmp_path: Path) -> None:
    home = tmp_path / "bench"
    arguments = ["--part", "throughput", "--no-rival", "--pairs", "60", "--repeats", "1"]
    done = run_cli("bench", "stream", *arguments, "--home", str(home))
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["pairs_per_s"] > 0
    assert said["http_pairs_per_s"] is None
    assert said["rss_mb"].keys() == {"broker", "gateway", "generation", "judging", "curation"}
    assert said["cpu_us_per_pair"].keys() == {*said["rss_mb"], "client"}
    assert list(home.iterdir()) == []
    assert leftovers(home) == []


def a_plan(home: Path, *parts: str) -> Plan:
    return Plan(
        parts=parts,
        home=home,
        rival_folder=home / "nowhere",
        num_pairs=80,
        num_rival_pairs=1,
        repeats=1,
        rate=20.0,
        steady_s=3.0,
        with_kafka=False,
        with_rival=False,
    )


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Figures:
    said: list[str] = []
    plan = a_plan(tmp_path_factory.mktemp("bench"), "http", "steady")
    return measure(plan, say=said.append)


def test_steady_stream_stores_every_prompt_that_was_due(figures: Figures) -> None:
    assert figures.steady is not None
    assert len(figures.steady.latencies_s) == 60
    assert min(figures.steady.latencies_s) > 0
    said = summary(figures)
    assert said["ingest_to_stored_p99_s"] >= said["ingest_to_stored_p50_s"]


def test_judge_is_asked_over_http_by_processes_that_are_watched(figures: Figures) -> None:
    [batch] = figures.over_http
    assert batch.pairs == 40
    assert "models" in batch.cpu_us_per_pair


def test_figures_that_rest_on_lost_prompts_are_refused(tmp_path: Path) -> None:
    from deltawheel.ops.bench.stream.running import running_stream
    from deltawheel.ops.bench.stream.world import World

    with running_stream(World(home=tmp_path / "wheel"), say=lambda text: None) as stream:
        stream.run(10)
        stream.check()
        stream.fed(1)  # one more than there are
        with pytest.raises(DeltawheelError, match="11 prompts fed, 10 stored"):
            stream.check()
