"""Failpoints hold the first who comes, and nobody after."""

import asyncio
import os
import threading
from pathlib import Path

import pytest

from deltawheel.contracts.errors import ConfigError
from deltawheel.contracts.failpoints import Failpoint
from deltawheel.infra.failpoints import FileFailpoints
from tests.waiting import wait_for

POINT = Failpoint.GENERATION_ASSIGNED


def armed(folder: Path, names: str = "generation.assigned") -> FileFailpoints:
    return FileFailpoints({"DELTAWHEEL_FAILPOINTS": names, "DELTAWHEEL_FAILPOINT_DIR": str(folder)})


async def is_held(failpoints: FileFailpoints, subject: str = "a prompt") -> bool:
    task = asyncio.create_task(failpoints.reach(POINT, subject))
    done, _ = await asyncio.wait({task}, timeout=0.05)
    task.cancel()
    return not done


async def test_point_that_is_not_armed_lets_everybody_pass(tmp_path: Path) -> None:
    assert not await is_held(FileFailpoints({}))
    assert not await is_held(armed(tmp_path, "training.step"))
    assert list(tmp_path.iterdir()) == []


async def test_first_to_come_is_held_and_says_who_it_is(tmp_path: Path) -> None:
    assert await is_held(armed(tmp_path), subject="prompt-1")
    assert [path.name for path in tmp_path.iterdir()] == ["generation.assigned.reached"]
    text = (tmp_path / "generation.assigned.reached").read_text()
    assert text == f"{os.getpid()} prompt-1"


async def test_everybody_after_it_passes_in_this_process_and_in_the_next(tmp_path: Path) -> None:
    failpoints = armed(tmp_path)
    assert await is_held(failpoints, subject="prompt-1")
    assert not await is_held(failpoints)
    assert not await is_held(armed(tmp_path))
    assert (tmp_path / "generation.assigned.reached").read_text().endswith("prompt-1")


async def test_point_with_a_number_holds_from_that_time_on(tmp_path: Path) -> None:
    failpoints = armed(tmp_path, "generation.assigned:3,training.step")
    assert [await is_held(failpoints) for _ in range(5)] == [False, False, True, False, False]


async def test_only_the_task_is_held_not_the_loop(tmp_path: Path) -> None:
    failpoints = armed(tmp_path)
    held = asyncio.create_task(failpoints.reach(POINT, "first"))
    await asyncio.sleep(0)
    await failpoints.reach(POINT, "second")
    assert not held.done()
    held.cancel()


def test_blocking_point_holds_its_thread_alone(tmp_path: Path) -> None:
    failpoints = armed(tmp_path, "training.step")
    reach = failpoints.reach_blocking
    held = threading.Thread(target=reach, args=(Failpoint.TRAINING_STEP, "train"), daemon=True)
    held.start()
    wait_for((tmp_path / "training.step.reached").is_file, what="the thread is held")
    failpoints.reach_blocking(Failpoint.TRAINING_STEP, "again")
    assert held.is_alive()


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (
            "generation.asigned",
            r"unknown point 'generation\.asigned'; it has .*generation\.assigned",
        ),
        ("training.step:soon", "is not name or name:N"),
        ("training.step:0", "is not name or name:N"),
    ],
)
def test_wrong_name_or_number_is_a_config_error(tmp_path: Path, names: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        armed(tmp_path, names)


@pytest.mark.parametrize("folder", [None, "", "no/such/folder"])
def test_armed_point_needs_a_folder(folder: str | None) -> None:
    environment = {"DELTAWHEEL_FAILPOINTS": "training.step"}
    if folder is not None:
        environment["DELTAWHEEL_FAILPOINT_DIR"] = folder
    with pytest.raises(ConfigError, match="DELTAWHEEL_FAILPOINT_DIR must name a folder"):
        FileFailpoints(environment)


def order(folder: Path, text: str = "") -> None:
    (folder / f"{POINT}.armed").write_text(text)


def watching(folder: Path) -> FileFailpoints:
    return FileFailpoints({"DELTAWHEEL_FAILPOINT_DIR": str(folder)})


async def test_file_arms_a_point_of_a_running_process_as_often_as_it_is_put_there(
    tmp_path: Path,
) -> None:
    failpoints = watching(tmp_path)
    assert not await is_held(failpoints)
    for subject in ("prompt-1", "prompt-2"):
        order(tmp_path)
        assert await is_held(failpoints, subject=subject)
        assert not await is_held(failpoints)
        assert [path.name for path in tmp_path.iterdir()] == [f"{POINT}.reached"]
        assert (tmp_path / f"{POINT}.reached").read_text() == f"{os.getpid()} {subject}"


async def test_file_with_a_text_waits_for_a_subject_that_contains_it(tmp_path: Path) -> None:
    failpoints = watching(tmp_path)
    order(tmp_path, "judging ")
    assert not await is_held(failpoints, subject="curation test.judgements:0:1")
    assert await is_held(failpoints, subject="judging test.traces:0:1")


def test_of_many_who_come_at_once_a_file_holds_one(tmp_path: Path) -> None:
    failpoints = watching(tmp_path)
    order(tmp_path)
    passed = threading.Semaphore(0)

    def come() -> None:
        failpoints.reach_blocking(POINT, "somebody")
        passed.release()

    threads = [threading.Thread(target=come, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert all(passed.acquire(timeout=10) for _ in range(7))
    assert (tmp_path / f"{POINT}.reached").is_file()
    assert not passed.acquire(blocking=False)


def test_folder_that_is_missing_is_refused_though_nothing_is_armed_yet(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must name a folder"):
        watching(tmp_path / "missing")
