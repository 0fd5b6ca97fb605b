"""The bench of serving, as a user runs it, on real servers and small."""

import json
from pathlib import Path

import pytest

from tests.components import require
from tests.smollm2 import smollm2_folder
from tests.wheels import run_cli

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


def test_bench_ends_with_one_json_object_of_ratios(tmp_path: Path) -> None:
    require("vllm")
    require("smollm2")
    parts = ["--part", "whole-sandbox", "--part", "prefix", "--part", "cpu"]
    sizes = ["--repeats", "1", "--prompts", "8", "--model", str(smollm2_folder())]
    done = run_cli(
        "bench", "serving", *parts, *sizes, "--home", str(tmp_path / "bench"), timeout_s=800
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["saturation_smollm2"] is None
    assert said["whole_wheel_sandbox"] > 0
    assert said["judge_requests_per_trace"] == 1
    assert 0.8 <= said["judge_prefix_hit_rate"] <= 1
    assert said["cpu_ms_per_request"] > 0
    assert list((tmp_path / "bench").iterdir()) == []
