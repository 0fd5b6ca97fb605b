"""The prompts that are kept for probes: those of a file, or withheld problems of the sandbox."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from deltawheel.contracts.errors import ConfigError
from deltawheel.contracts.ids import digest_of
from deltawheel.contracts.probe import HeldOut, ProbeItems
from deltawheel.contracts.prompt import Prompt, PromptSubmission
from deltawheel.contracts.settings import SANDBOX, Settings

__all__ = ["HeldOutPrompts", "open_held_out"]

_NEVER_ACCEPTED: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""Held-out prompts enter no wheel; their records need a time all the same."""
_NUM_SANDBOX_PROBLEMS: Final = 1_000
_COMPARING: Final = ("answer", "choice")
_SANDBOX_SEED: Final = 20_260
"""Apart from the seeds of evaluations, which are drawn anew each cycle."""


def open_held_out(settings: Settings) -> HeldOut | None:
    """Return the prompts that `probe.file` names, or None where nobody is to be probed.

    Raises:
        ConfigError: the file cannot be used; the message names the line.
    """
    match settings.probe.file:
        case None:
            return None
        case str() as file if file == SANDBOX:
            return SandboxHeldOut(settings)
        case file:
            path = Path(file).expanduser()
            return HeldOutPrompts(_prompts(path, settings), size=settings.probe.num_items)


class HeldOutPrompts:
    """Prompts that are all there is; see `contracts.probe.HeldOut`."""

    def __init__(self, prompts: Sequence[Prompt], *, size: int) -> None:
        """Cut each domain's prompts into sets of this size, in their order."""
        self.sets = _sets(prompts, size)
        self._digests = {_question(prompt) for prompt in prompts}

    def holds(self, prompt: Prompt) -> bool:
        """Tell whether the last message is one of theirs, whatever stands before it."""
        return _question(prompt) in self._digests


class SandboxHeldOut:
    """Problems that the sandbox withholds from all generation: one in eight, by their hash.

    They are fixed: every member is asked the same ones, in the same order.
    """

    def __init__(self, settings: Settings) -> None:
        """Draw them with a seed of their own; evaluations draw others of those withheld."""
        from deltawheel.infra.sandbox.grammar import Family, suite_problems

        probe = settings.probe
        problems = suite_problems(Family.IN_DOMAIN, _NUM_SANDBOX_PROBLEMS, seed=_SANDBOX_SEED)
        self.sets = _sets(
            [
                PromptSubmission(
                    domain=probe.domain, text=it.text, reference_answer=str(it.answer)
                ).accept(wheel=settings.wheel, accepted_at=_NEVER_ACCEPTED)
                for it in problems
            ],
            probe.num_items,
        )

    def holds(self, prompt: Prompt) -> bool:
        """Tell whether the sandbox withholds the prompt, in a probe or not."""
        from deltawheel.infra.sandbox.grammar import is_withheld

        return is_withheld(prompt.messages[-1].content)


def _sets(prompts: Iterable[Prompt], size: int) -> list[ProbeItems]:
    domains: defaultdict[str, list[Prompt]] = defaultdict(list)
    for prompt in prompts:
        domains[prompt.domain].append(prompt)
    return [
        ProbeItems(domain=domain, prompts=tuple(asked[start : start + size]))
        for domain, asked in sorted(domains.items())
        for start in range(0, len(asked), size)
    ]


def _question(prompt: Prompt) -> str:
    return digest_of(" ".join(prompt.messages[-1].content.split()))


def _prompts(path: Path, settings: Settings) -> list[Prompt]:
    try:
        # Not splitlines: JSON may hold U+2028 and its like unescaped, and they end no line here.
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"probe.file: {path} cannot be read ({error}); give a JSONL file, or {SANDBOX}"
        ) from error
    prompts = list(_parsed(lines, path, settings))
    if not prompts:
        raise ConfigError(f"probe.file: {path} holds no prompts")
    return list({prompt.prompt_id: prompt for prompt in prompts}.values())


def _parsed(lines: Iterable[str], path: Path, settings: Settings) -> Iterator[Prompt]:
    verifier = settings.judge.verifier
    needs_reference = verifier in _COMPARING
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            body = {"domain": settings.probe.domain, **json.loads(line)}
            submission = PromptSubmission.parse(body, max_chars=settings.gateway.max_prompt_chars)
        except (ValueError, TypeError, RecursionError) as error:
            raise ConfigError(
                f"probe.file: line {number} of {path} is no prompt with its right answer ({error})"
            ) from error
        if needs_reference and not (submission.reference_answer or "").strip():
            raise ConfigError(
                f"probe.file: line {number} of {path} has no reference_answer, which "
                f"judge.verifier {verifier} compares with"
            )
        yield submission.accept(wheel=settings.wheel, accepted_at=_NEVER_ACCEPTED)
