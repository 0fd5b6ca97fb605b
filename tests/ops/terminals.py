"""Running the command line inside the test, as a script or as a person at a terminal sees it."""

import io
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deltawheel.ops.cli import main

STYLE = re.compile(r"\x1b\[[0-9;]*m")
"""What rich itself may send to a terminal: colours and weights, and no more."""

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


class Terminal(io.StringIO):
    """A stream that says that a person reads it, so that nothing is filtered out on the way."""

    def isatty(self) -> bool:
        return True


@dataclass(frozen=True, kw_only=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """Its one sentence of complaint: one line, no traceback, and nothing on standard output."""
        [line] = self.err.splitlines()
        assert line.startswith("deltawheel: ")
        assert self.out == ""
        return line.removeprefix("deltawheel: ")


@dataclass(frozen=True, kw_only=True)
class Shell:
    """Runs commands with the global options given."""

    patch: pytest.MonkeyPatch
    options: tuple[str, ...] = ()

    def on(self, config: Path) -> "Shell":
        """Return a shell whose commands read that settings file."""
        return Shell(patch=self.patch, options=("--config", str(config)))

    def run(self, *arguments: str, at_terminal: bool = False) -> Done:
        stream = Terminal if at_terminal else io.StringIO
        out, err = stream(), stream()
        with self.patch.context() as patch:
            patch.setenv("COLUMNS", "240")
            patch.setenv("TERM", "xterm-256color")
            patch.setattr(sys, "argv", ["deltawheel", *self.options, *arguments])
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            with pytest.raises(SystemExit) as ended:
                main()
        code: Any = ended.value.code
        return Done(code=int(code or 0), out=out.getvalue(), err=err.getvalue())
