"""The Prometheus rules that ship: they ask for metrics that exist and name commands that do."""

import re
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from deltawheel.contracts.metrics import METRICS, WHEEL_LABEL
from deltawheel.ops.cli import cli
from tests.components import require

FILE = Path(__file__).parents[2] / "ops" / "alerts" / "deltawheel.rules.yaml"
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(FILE.read_text())["groups"] for rule in group["rules"]
]
every_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))


@every_rule
def test_rule_asks_for_a_metric_and_labels_that_exist(rule: dict[str, Any]) -> None:
    [name] = re.findall(r"deltawheel_\w+", rule["expr"])
    metric = next(metric for metric in METRICS if metric.name == name)
    [by] = re.findall(r"by \(([^)]*)\)", rule["expr"])
    labels = {label.strip() for label in by.split(",")}
    assert labels <= {WHEEL_LABEL, "instance", *metric.labels}
    told = " ".join(rule["annotations"].values())
    assert set(re.findall(r"\$labels\.(\w+)", told)) <= labels


@every_rule
def test_rule_says_how_bad_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert len(rule["annotations"]["description"].split()) > 10
    context = click.Context(cli)
    for command in re.findall(r"`deltawheel ([\w-]+)", rule["annotations"]["description"]):
        assert cli.get_command(context, command) is not None


@pytest.mark.integration
def test_prometheus_takes_the_rules() -> None:
    require("promtool")
    subprocess.run(["promtool", "check", "rules", FILE], check=True, capture_output=True)
