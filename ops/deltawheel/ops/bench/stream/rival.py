"""distilabel beside us: installed into an environment of its own, run on the same prompts."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from deltawheel.contracts.errors import DeltawheelError
from deltawheel.ops.bench.stream.instant import TEXTS
from deltawheel.ops.bench.stream.world import prompt_text

__all__ = ["RIVAL", "Judged", "Rival", "RivalRun"]

RIVAL: Final = "distilabel==1.5.3"
_REQUIREMENTS: Final = (RIVAL, "requests")
"""It imports requests, and does not say that it needs it."""

_PIPELINE: Final = Path(__file__).with_name("rival_pipeline.py")
_TIMEOUT_S: Final = 1_800


class Judged(StrEnum):
    """About what its judge is asked at once."""

    TRACE = "trace"
    PROMPT = "prompt"


@dataclass(frozen=True, slots=True, kw_only=True)
class RivalRun:
    """One run: pairs in its dataset, and seconds with and without the start of its processes."""

    pairs: int
    busy_s: float
    whole_s: float

    @property
    def pairs_per_s(self) -> float:
        """The rate once it works, which is the one that is kinder to it."""
        return self.pairs / self.busy_s


class Rival:
    """distilabel in its own environment, so that neither decides the other's dependencies."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._python = folder / "bin" / "python"

    def install(self, *, say: Callable[[str], None]) -> None:
        """Make the environment, unless it is there.

        Raises:
            DeltawheelError: it cannot be installed.
        """
        if self._has_it():
            return
        say(f"installing {RIVAL} into {self._folder}")
        _run([sys.executable, "-m", "venv", str(self._folder)], what="make the environment")
        pip = [str(self._python), "-m", "pip", "install", "--quiet", *_REQUIREMENTS]
        _run(pip, what=f"install {RIVAL}")

    def _has_it(self) -> bool:
        if not self._python.exists():
            return False
        asked = (
            "import importlib.metadata as m, requests; assert m.version('distilabel') == '1.5.3'"
        )
        return subprocess.run([self._python, "-c", asked], capture_output=True).returncode == 0

    def run(self, num_prompts: int, judged: Judged) -> RivalRun:
        """Run it once.

        Raises:
            DeltawheelError: it failed, or made another number of pairs than prompts.
        """
        with tempfile.TemporaryDirectory(prefix="deltawheel-rival-") as name:
            folder = Path(name)
            prompts = folder / "prompts.json"
            texts = [prompt_text(number) for number in range(num_prompts)]
            prompts.write_text(json.dumps({"prompts": texts, "texts": dict(TEXTS)}))
            argv = [str(self._python), str(_PIPELINE), str(prompts), name, judged.value]
            said = _run(argv, what="run", cwd=folder)
        run = RivalRun(**json.loads(said.strip().splitlines()[-1]))
        if run.pairs != num_prompts:
            raise DeltawheelError(f"distilabel made {run.pairs} pairs of {num_prompts} prompts")
        return run


def _run(argv: list[str], *, what: str, cwd: Path | None = None) -> str:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=_TIMEOUT_S, cwd=cwd, env=env, check=True
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DeltawheelError(f"distilabel: cannot {what}: {error}") from error
    except subprocess.CalledProcessError as error:
        last = (error.stderr or error.stdout)[-800:]
        raise DeltawheelError(f"distilabel: cannot {what}: {last}") from error
    return done.stdout
