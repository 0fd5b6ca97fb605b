"""What a chaos run does: all of it from one seed, and every failpoint in it."""

from collections import Counter

import pytest

from deltawheel.contracts.failpoints import Failpoint
from deltawheel.infra.clock import SystemRandom
from deltawheel.ops.bench.chaos.schedule import POINTS, SUPERVISOR, Blow, BlowKind, make_schedule
from deltawheel.ops.supervisor.plan import SERVICES


def scheduled(num_kills: int, seed: int = 0) -> list[Blow]:
    return make_schedule(SystemRandom(seed), num_kills=num_kills)


@pytest.mark.parametrize("num_kills", [1, 10, 25, 200])
def test_there_are_as_many_kills_as_were_asked_for(num_kills: int) -> None:
    assert sum(blow.is_kill for blow in scheduled(num_kills)) == num_kills


def test_seed_decides_everything() -> None:
    assert scheduled(50, seed=3) == scheduled(50, seed=3)
    assert scheduled(50, seed=3) != scheduled(50, seed=4)


def test_list_of_points_knows_every_failpoint() -> None:
    assert {at.point for at in POINTS} == set(Failpoint)


@pytest.mark.parametrize(("num_kills", "times"), [(25, 1), (200, 4)])
def test_somebody_is_killed_at_every_point(num_kills: int, times: int) -> None:
    held = Counter(blow.at for blow in scheduled(num_kills) if blow.at is not None)
    assert set(held) == set(POINTS)
    assert min(held.values()) >= times


def test_every_service_a_guard_and_the_supervisor_are_killed_at_random_moments() -> None:
    random = [blow for blow in scheduled(200) if blow.is_kill and blow.at is None]
    killed = Counter(blow.target for blow in random if blow.kind is BlowKind.PROCESS)
    assert set(killed) == {*SERVICES, SUPERVISOR}
    assert killed[SUPERVISOR] == 10
    assert any(blow.kind is BlowKind.GUARD for blow in random)


@pytest.mark.parametrize(("num_kills", "times"), [(10, 1), (25, 1), (200, 2)])
def test_outages_garbage_and_a_rebalance_storm_come_besides(num_kills: int, times: int) -> None:
    besides = Counter(blow.kind for blow in scheduled(num_kills) if not blow.is_kill)
    assert besides == dict.fromkeys(
        (BlowKind.BROKER, BlowKind.DATABASE, BlowKind.MODELS, BlowKind.GARBAGE, BlowKind.MEMBERS),
        times,
    )


def test_some_come_together_and_none_keeps_the_others_waiting_long() -> None:
    pauses = [blow.pause_s for blow in scheduled(200)]
    assert pauses.count(0.0) > 10
    assert max(pauses) <= 12
