"""Own models and own prompts: two endpoints of the settings, a JSONL file, pairs in the store."""

import json
from pathlib import Path

import pytest

from tests.servers import endpoints
from tests.wheels import leftovers, run_cli, running_up

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


def test_own_prompts_through_two_endpoints_become_pairs(tmp_path: Path) -> None:
    lines = [
        json.dumps({"text": f"How much is {n} + {n}?", "reference_answer": str(2 * n)})
        for n in range(20)
    ]
    lines += ["{not json", json.dumps({"text": "x" * 40_000}), json.dumps({"domain": "sums"})]
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("\n".join(lines))
    with endpoints() as settings:
        home = tmp_path / "home"
        with running_up(home, settings) as wheel:
            done = run_cli("--config", str(wheel.config), "ingest", str(prompts), "--json")
            assert done.returncode == 1, "three lines are wrong"
            answer = json.loads(done.stdout)
            assert len(answer["accepted"]) == 20
            assert [refused["line"] for refused in answer["refused"]] == [21, 22, 23]
            again = run_cli("--config", str(wheel.config), "ingest", str(prompts), "--json")
            assert json.loads(again.stdout)["accepted"] == answer["accepted"]
            wheel.drained()
            pairs = wheel.cli("pairs", "list", "--limit", "100")
            assert len(pairs) == 20
            assert {pair["chosen"]["trace"]["generator"] for pair in pairs} == {"right"}
            assert wheel.cli("audit")["outcomes"] == {"paired": 20}

            asked_again = run_cli(
                "--config", str(wheel.config), "ingest", "-", "--round", "1", stdin=lines[0]
            )
            assert asked_again.returncode == 0, asked_again.stderr
            wheel.drained()
            assert wheel.cli("audit")["prompts"] == 21
        assert wheel.cli("pairs", "list", "--limit", "100")
    assert leftovers(home) == []
