"""vLLM's own benchmark client, the other side of each comparison.

It sends given prompts with given lengths as fast as the server takes them, and does nothing with
what comes back. Source: vllm/benchmarks/serve.py of 0.32; its command is not on the path of the
CPU distribution, so the module is run.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from deltawheel.contracts.errors import DeltawheelError
from deltawheel.infra.vllm_server import ENVIRONMENT
from deltawheel.ops.bench.serving.pinning import pinned
from deltawheel.ops.supervisor.plan import service_environment

__all__ = ["Asked", "Pace", "pace_of", "run_client"]

_MAIN: Final = """
from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser

parser = FlexibleArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
"""


class Asked(NamedTuple):
    """One request: the user's message, and how many tokens are written back."""

    prompt: str
    output_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How many tokens were written in how many seconds."""

    output_tokens: int
    seconds: float

    @property
    def tokens_per_s(self) -> float:
        """The rate."""
        return self.output_tokens / self.seconds


def run_client(
    asked: Sequence[Asked],
    *,
    url: str,
    model: str,
    tokenizer: Path,
    concurrency: int,
    temperature: float,
    core: int | None = None,
) -> Pace:
    """Send all of these, so many at a time, and return the pace.

    Raises:
        DeltawheelError: it failed, or a request did.
    """
    with tempfile.TemporaryDirectory(prefix="vllm-client-") as folder:
        requests, result = Path(folder, "requests.jsonl"), Path(folder, "result.json")
        requests.write_text("".join(json.dumps(it._asdict()) + "\n" for it in asked))
        options: Mapping[str, object] = {
            "--backend": "openai-chat",
            "--base-url": url.removesuffix("/v1"),
            "--endpoint": "/v1/chat/completions",
            "--model": model,
            "--tokenizer": tokenizer,
            "--dataset-name": "custom",
            "--dataset-path": requests,
            "--custom-output-len": -1,
            "--num-prompts": len(asked),
            "--max-concurrency": concurrency,
            "--temperature": temperature,
            "--result-dir": folder,
            "--result-filename": result.name,
        }
        flags = ("--skip-chat-template", "--ignore-eos", "--disable-tqdm", "--save-result")
        words = [str(word) for pair in options.items() for word in pair]
        done = subprocess.run(
            pinned((sys.executable, "-P", "-c", _MAIN, *words, *flags), core),
            env={**service_environment(), **ENVIRONMENT},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode or not result.is_file():
            raise DeltawheelError(f"vLLM's benchmark client failed: {done.stderr.strip()[-500:]}")
        return pace_of(json.loads(result.read_text()), len(asked))


def pace_of(said: Mapping[str, Any], wanted: int) -> Pace:
    """Read the client's result.

    Raises:
        DeltawheelError: it is of fewer requests than were wanted.
    """
    if said["completed"] != wanted:
        raise DeltawheelError(
            f"vLLM's benchmark client completed {said['completed']} of {wanted} requests: no "
            "figure means anything then"
        )
    return Pace(output_tokens=said["total_output_tokens"], seconds=said["duration"])
