"""`deltawheel ingest`."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import IO, Any

import click

from deltawheel.contracts.errors import DeltawheelError, ExitCode
from deltawheel.contracts.prompt import PromptSubmission
from deltawheel.contracts.settings import Settings
from deltawheel.ops.console import json_option, plain, print_json, settings_of

__all__ = ["command"]


@dataclass(slots=True)
class Refused:
    """A line that is no valid prompt, and why."""

    line: int
    reason: str


@dataclass(slots=True)
class Tally:
    """What became of a file's lines."""

    accepted: list[dict[str, Any]] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)


@click.command("ingest")
@click.argument("file", type=click.File("rb"))
@click.option(
    "--round", "round_", type=click.IntRange(min=0), help="Ask all of them in this round."
)
@json_option
@click.pass_context
def command(context: click.Context, file: IO[bytes], round_: int | None, as_json: bool) -> int:
    """Submit the prompts of FILE (JSON lines; - for standard input) through the gateway.

    Each line is an object such as {"text": "17+8*3=", "domain": "sums", "reference_answer": "75"},
    or has "messages" instead of "text". The same prompt twice is one prompt, unless --round is
    raised. Wrong lines are named and left out, the others accepted; then the exit code is 1.
    So it is when the gateway fails: what it accepted before is told, and the same file can be
    submitted again.
    """
    from deltawheel.infra import wiring
    from deltawheel.ops.feeding import submit_patiently
    from deltawheel.ops.running import require_running

    settings = settings_of(context)
    gateway = wiring.open_gateway(require_running(settings).gateway_url)
    clock = wiring.system_clock()
    tally = Tally()
    submissions = _submissions(file, settings, round_, tally)
    try:
        while batch := list(islice(submissions, settings.gateway.max_batch)):
            tally.accepted += submit_patiently(gateway, batch, clock=clock, say=_say)
            _say(f"{len(tally.accepted)} accepted")
    except DeltawheelError as error:
        _show(tally, as_json, failure=str(error))
        raise
    _show(tally, as_json, failure=None)
    return ExitCode.FAILURE if tally.refused else ExitCode.DONE


def _say(text: str) -> None:
    click.echo(plain(text), err=True)


def _show(tally: Tally, as_json: bool, *, failure: str | None) -> None:
    """Print what became of the lines; with a failure, of those that were read before it."""
    if as_json:
        refused = [{"line": refused.line, "reason": refused.reason} for refused in tally.refused]
        print_json({"accepted": tally.accepted, "refused": refused, "failure": failure})
        return
    for line in tally.refused:
        _say(f"line {line.line}: {line.reason}")
    click.echo(f"{len(tally.accepted)} prompts accepted, {len(tally.refused)} lines refused")


def _submissions(
    file: IO[bytes], settings: Settings, round_: int | None, tally: Tally
) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            body = json.loads(line)
            if round_ is not None and isinstance(body, dict):
                body["round"] = round_
            submission = PromptSubmission.parse(body, max_chars=settings.gateway.max_prompt_chars)
        except (ValueError, RecursionError) as error:
            tally.refused.append(Refused(number, f"not a valid prompt: {error}"))
        else:
            # Without what the gateway would ignore: a batch that it cannot read fails as a whole.
            yield submission.model_dump(mode="json", exclude_unset=True)
