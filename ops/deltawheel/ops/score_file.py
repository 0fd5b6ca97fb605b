"""The file of scores: a line for each line that was judged, on disk before the next one is."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Self

from deltawheel.contracts.errors import DeltawheelError
from deltawheel.contracts.ids import digest_of

__all__ = ["ScoreFile"]


class ScoreFile:
    """Scores by line of what was judged; a run that was killed is gone on with.

    A kill loses what was in flight, and of what stands here at most half a line, which is cut off.
    """

    def __init__(self, file: IO[str], name: Path, marks: Mapping[str, str]) -> None:
        self._file = file
        self._name = name
        self._marks = marks
        self._found: dict[int, Mapping[str, Any]] = {}

    @classmethod
    @contextmanager
    def open(cls, path: Path, *, marks: Mapping[str, str]) -> Iterator[Self]:
        """Open the file, or begin it.

        Args:
            path: Where it is.
            marks: What every line has in common, as the judge's revision.

        Raises:
            DeltawheelError: it cannot be written, another process writes it, it holds something
                else, or it was begun with other marks.
        """
        with _held(path) as file:
            scores = cls(file, path, marks)
            scores._read()
            yield scores

    def has(self, number: int, line: str) -> bool:
        """Whether the line was judged before.

        Raises:
            DeltawheelError: another line was, under its number.
        """
        row = self._found.get(number)
        if row is not None and row["line_digest"] != digest_of(line):
            raise DeltawheelError(
                f"{self._name}: it was begun with another file, whose line {number} is not this "
                "one's; name another file for the scores"
            )
        return row is not None

    @property
    def faults(self) -> dict[int, str]:
        """Why lines have no scores, by their number."""
        return {number: row["fault"] for number, row in self._found.items() if "fault" in row}

    def __len__(self) -> int:
        """How many lines have their scores or their fault."""
        return len(self._found)

    def add(self, number: int, line: str, found: Mapping[str, Any]) -> None:
        """Write what was found of a line; it is on disk when this returns.

        Raises:
            DeltawheelError: it cannot be written.
        """
        row = {"line": number, "line_digest": digest_of(line), **self._marks, **found}
        try:
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise _unwritable(self._name, error) from error
        self._found[number] = row

    def _read(self) -> None:
        self._file.seek(0)
        whole = 0
        for text in iter(self._file.readline, ""):
            if not text.endswith("\n"):
                break
            row = self._row(text)
            self._found[row["line"]] = row
            whole = self._file.tell()
        self._file.truncate(whole)

    def _row(self, text: str) -> Mapping[str, Any]:
        try:
            row = json.loads(text)
            same = {mark: row[mark] for mark in ("line_digest", *self._marks)}
            same["line"] = int(row["line"])
        except (ValueError, KeyError, TypeError) as error:
            raise DeltawheelError(
                f"{self._name}: it holds something else than scores; name another file"
            ) from error
        for mark, value in self._marks.items():
            if same[mark] != value:
                raise DeltawheelError(
                    f"{self._name}: it was begun with {mark} {same[mark]}, which is {value} now; "
                    "name another file, so that scores of two kinds are not mixed"
                )
        return {**row, **same}


@contextmanager
def _held(path: Path) -> Iterator[IO[str]]:
    """Open a file that nobody else may write meanwhile, to be read and appended to."""
    try:
        file = path.open("a+", encoding="utf-8", errors="replace")
    except OSError as error:
        raise _unwritable(path, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DeltawheelError(
                f"{path}: another process writes it; name another file"
            ) from error
        yield file


def _unwritable(path: Path, error: OSError) -> DeltawheelError:
    return DeltawheelError(f"{path} cannot be written: {error.strerror}")
