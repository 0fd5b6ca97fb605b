"""The whole wheel under every fault there is: nothing lost, nothing twice, all replayable."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from deltawheel.contracts.store import Store
from deltawheel.infra.simulated.seeded_random import SeededRandom
from deltawheel.ops.bench.simulate.doors import READS
from deltawheel.ops.bench.simulate.fleet import Run, crash_runs
from deltawheel.ops.bench.simulate.plan import Fault, Plan
from deltawheel.ops.bench.simulate.run import Report, simulate
from tests.components import ROOT
from tests.wheels import run_cli

CHUNK = 10
"""Seeds of one test, so that workers can share them out."""

EFFECT_VERBS = {
    "accept",
    "acquire",
    "add",
    "begin",
    "bury",
    "claim",
    "close",
    "end",
    "finish",
    "move",
} | {*("note", "open", "postpone", "release", "renew", "replay", "resume", "watch")}
"""How methods of the store begin that change something."""

HAPPENED = {
    Fault.CRASH: r"DIES (before|after|at) ",
    Fault.STOP: r"is stopped$",
    Fault.BLACKOUT: r"DIES in a blackout$",
    Fault.ZOMBIE: r"DIES as a zombie$",
    Fault.FREEZE: r"freezes for",
    Fault.REBALANCE: r"(generation|judging|curation|monitoring)#([6-9]|\d\d+) +takes ",
    Fault.STORE_BUSY: r"store busy: ",
    Fault.STORE_OUTAGE: r"store down: ",
    Fault.BROKER_FLAKY: r"answer lost: (publishes|commits) ",
    Fault.BROKER_OUTAGE: r"put off: the broker in memory does not answer",
    Fault.BROKER_LOSS: r"refills the broker with [1-9]",
    Fault.UNFENCED: r"is no member, and its commit is taken$",
    Fault.REDELIVERY: r"delivers again ",
    Fault.GARBAGE: r"publishes garbage ",
    Fault.MODELS_FLAKY: r"answers with nothing$",
    Fault.MODELS_OUTAGE: r"(strong|mid|weak) is down$",
    Fault.JUDGE_FLAKY: r"the judge is flaky: ",
    Fault.REPLAY: r"operator#\d+ +(opened [1-9]|move_\w+|\w+ [0-9a-f]{8}$)",
    Fault.CLOCK_JUMP: r"has a clock that jumps by",
}
"""The line of the trace in which a fault has had its effect, rather than been meant to have it."""


def check(run: Run) -> Report:
    report = simulate(run.seed, plan=run.plan)
    again = f"see it again: deltawheel bench simulate {run.options}"
    assert report.is_clean, "\n".join((*report.violations, again))
    return report


@pytest.mark.parametrize("first", range(0, 20, CHUNK))
def test_nothing_is_lost_or_doubled_whatever_goes_wrong(first: int) -> None:
    for seed in range(first, first + CHUNK):
        check(Run(seed))


@pytest.mark.integration
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    "options",
    ["--from 1000 --seeds 2000", "--workload crashes --seeds 3"],
    ids=["faults", "crashes"],
)
def test_nothing_is_lost_or_doubled_in_thousands_of_worlds(options: str) -> None:
    done = run_cli("bench", "simulate", *options.split(), "--json", timeout_s=1_200)
    assert done.returncode == 0, f"{done.stdout[-5_000:]}\n{done.stderr[-2_000:]}"
    assert json.loads(done.stdout)["runs"] >= 500


@pytest.mark.parametrize("side", [0, 1], ids=["before", "after"])
def test_a_death_at_some_effects_costs_nothing(side: int) -> None:
    for run in crash_runs(0)[side::16]:
        check(run)


def test_a_calm_wheel_asks_every_model_once() -> None:
    report = simulate(0, plan=Plan.calm())
    assert report.is_clean, report.violations
    asked = [line.split("asks ")[1] for line in report.lines if " asks " in line]
    assert len(asked) == len(set(asked)) == 2 * report.plan.num_prompts
    assert report.num_redelivered == 0


def test_the_same_seed_goes_the_same_way_again() -> None:
    for seed in (3, 4):
        first, second = simulate(seed), simulate(seed)
        assert first.lines == second.lines


def test_another_seed_goes_another_way() -> None:
    assert simulate(3).digest != simulate(4).digest


@pytest.mark.parametrize("hash_seed", ["1", "4711"])
def test_a_seed_goes_the_same_way_in_another_process(hash_seed: str) -> None:
    deltawheel = str(Path(sys.executable).with_name("deltawheel"))
    done = subprocess.run(
        [deltawheel, "bench", "simulate", "--seed", "5", "--json"],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    told = json.loads(done.stdout)
    assert (told["digest"], told["trace"]) == (simulate(5).digest, list(simulate(5).lines))


def test_every_fault_is_drawn() -> None:
    drawn = {fault for seed in range(60) for fault in Plan.of(SeededRandom(seed)).faults}
    assert drawn == set(Fault)


@pytest.mark.parametrize("fault", Fault)
def test_every_fault_happens_and_costs_nothing(fault: Fault) -> None:
    """Each alone, but for the fence: only who is stopped after a freeze finds that it is gone."""
    company = {Fault.FREEZE, Fault.STOP} if fault is Fault.UNFENCED else set()
    plan = Plan(
        num_prompts=3,
        arrive_within_s=10.0,
        trouble_within_s=15.0,
        partitions=2,
        faults=frozenset({fault, *company}),
        crash_share=0.05 if fault is Fault.CRASH else 0.0,
        flaky_share=0.3,
        num_troubles=8 if company else 4,
    )
    for seed in range(10):
        report = simulate(seed, plan=plan)
        assert report.is_clean, (seed, report.violations)
        if any(re.search(HAPPENED[fault], line) for line in report.lines):
            return
    pytest.fail(f"10 seeds, and nothing of {fault.value} happened")


def test_each_method_of_the_store_is_known_to_read_or_is_at_risk() -> None:
    methods = {name for name in dir(Store) if not name.startswith("_")}
    unsorted = {name for name in methods - READS if name.partition("_")[0] not in EFFECT_VERBS}
    assert not unsorted, f"do {sorted(unsorted)} only read? Then READS in doors.py should have them"
    assert methods >= READS
