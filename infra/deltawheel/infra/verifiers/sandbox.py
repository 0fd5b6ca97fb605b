"""Verifies the sandbox's chained arithmetic by calculation; no reference answer is needed."""

from deltawheel.contracts.prompt import Prompt
from deltawheel.contracts.settings import JudgeSettings
from deltawheel.contracts.trace import Trace
from deltawheel.infra.sandbox.grammar import Problem
from deltawheel.infra.sandbox.verifier import verify

__all__ = ["SandboxVerifier"]


class SandboxVerifier:
    """Recomputes the problem; see `contracts.ports.Verifier`."""

    def __init__(self, settings: JudgeSettings) -> None:
        """Need no settings: the grammar is fixed."""

    def verify(self, prompt: Prompt, trace: Trace) -> bool | None:
        """Tell whether the answer is right; None for a prompt that is no problem of the sandbox."""
        try:
            problem = Problem.parse(prompt.messages[-1].content)
        except ValueError:
            return None
        return verify(problem.text, trace.text).is_correct
