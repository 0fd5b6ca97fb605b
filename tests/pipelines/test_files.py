"""Files of a stage, and what a full disk makes of them. `/dev/full` really is full."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

from deltawheel.contracts.errors import CycleError, RetryLaterError
from deltawheel.pipelines.files import (
    flush_tree,
    folder_bytes,
    no_space_is_a_cycle_error,
    read_json,
    require_space,
    write_json,
    write_json_lines,
)


def fill_the_disk() -> None:
    with open("/dev/full", "w") as full:
        full.write("x")


def quota_exceeded() -> None:
    raise OSError(errno.EDQUOT, "Disk quota exceeded")


def torch_finds_it_full() -> None:
    raise RuntimeError("[enforce fail at inline_container.cc:664] No space left on device")


def safetensors_finds_it_full() -> None:
    raise SafetensorError('I/O error: IoError(Os { code: 28, message: "No space left on device" })')


def datasets_hides_that_it_is_full() -> None:
    class DatasetGenerationError(Exception):
        """As datasets raises it: the disk is named in its cause alone."""

    try:
        fill_the_disk()
    except OSError as error:
        raise DatasetGenerationError("An error occurred while generating the dataset") from error


@pytest.mark.parametrize(
    "write",
    [
        fill_the_disk,
        quota_exceeded,
        torch_finds_it_full,
        safetensors_finds_it_full,
        datasets_hides_that_it_is_full,
    ],
)
def test_a_full_disk_is_one_sentence_with_folder_and_bytes(
    tmp_path: Path, write: Callable[[], None]
) -> None:
    with (
        pytest.raises(CycleError) as caught,
        no_space_is_a_cycle_error(tmp_path, 34_500_000),
    ):
        write()
    said = str(caught.value)
    assert said.startswith(f"the disk is full: {tmp_path} has ")
    assert "MB free and this step needs about 34.5 MB" in said
    assert "\n" not in said


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(errno.EACCES, "Permission denied"),
        RuntimeError("shapes do not match"),
        RetryLaterError("server local does not answer"),
        KeyError("chosen"),
    ],
)
def test_every_other_error_travels_as_it_is(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)) as caught, no_space_is_a_cycle_error(tmp_path, 1):
        raise error
    assert caught.value is error


def test_space_is_asked_for_before_hours_are_spent(tmp_path: Path) -> None:
    require_space(tmp_path, 1)
    with pytest.raises(CycleError, match=r"the disk is full: .* needs about 1000000000000\.0 MB"):
        require_space(tmp_path, 10**18)


def test_the_same_content_is_the_same_bytes(tmp_path: Path) -> None:
    write_json(tmp_path / "one", {"b": [1, 2.5, None], "a": "é <b>"})
    write_json(tmp_path / "two", {"a": "é <b>", "b": [1, 2.5, None]})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert "é <b>" in (tmp_path / "one").read_text(encoding="utf-8")
    assert read_json(tmp_path / "one") == {"a": "é <b>", "b": [1, 2.5, None]}


@pytest.mark.parametrize("damage", [b"", b'{"a": ', b"\xff\xfe"])
def test_a_damaged_file_names_itself(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "result.json"
    path.write_bytes(damage)
    with pytest.raises(CycleError, match=r"result\.json cannot be read .*start a new cycle"):
        read_json(path)


def test_a_missing_file_names_itself(tmp_path: Path) -> None:
    with pytest.raises(CycleError, match=r"result\.json cannot be read .*No such file"):
        read_json(tmp_path / "result.json")


def test_lines_hold_one_object_each_whatever_their_text(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"text": "two\nlines \u2028 é"}, {"text": ""}, {"b": 1, "a": 2}]
    write_json_lines(tmp_path / "rows.jsonl", iter(rows))
    lines = (tmp_path / "rows.jsonl").read_text(encoding="utf-8").split("\n")
    assert lines.pop() == ""
    assert [json.loads(line) for line in lines] == rows


def test_a_folders_size_is_that_of_all_files_below_it(tmp_path: Path) -> None:
    (tmp_path / "inner" / "empty").mkdir(parents=True)
    (tmp_path / "a").write_bytes(b"x" * 10)
    (tmp_path / "inner" / "b").write_bytes(b"x" * 7)
    assert folder_bytes(tmp_path) == 17


def test_flushing_reaches_every_file_and_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "file").write_text("x")
    flushed: list[str] = []
    fsync = os.fsync

    def watch(descriptor: int) -> None:
        flushed.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    flush_tree(tmp_path)
    inner = tmp_path / "inner"
    assert sorted(flushed) == sorted(
        str(path.resolve()) for path in (tmp_path, inner, inner / "file")
    )
