"""A judge with a program beside it, whose verdict stands beside the scores and changes none."""

from dataclasses import dataclass, replace

from deltawheel.contracts.ports import Assessment, Judge, Verifier
from deltawheel.contracts.prompt import Prompt
from deltawheel.contracts.rubric import Rubric
from deltawheel.contracts.trace import Trace

__all__ = ["VerifiedJudge"]


@dataclass(frozen=True, slots=True)
class VerifiedJudge:
    """A judge that also tells what a verifier says of the answer."""

    inner: Judge
    verifier: Verifier

    @property
    def name(self) -> str:
        """What metrics and tables call the judge."""
        return self.inner.name

    @property
    def revision(self) -> str:
        """The judge's: no verdict changes a score."""
        return self.inner.revision

    async def assess(self, prompt: Prompt, trace: Trace, rubric: Rubric) -> Assessment:
        """Score the trace and verify its answer; errors as the judge's."""
        found = await self.inner.assess(prompt, trace, rubric)
        return replace(found, is_correct=self.verifier.verify(prompt, trace))
