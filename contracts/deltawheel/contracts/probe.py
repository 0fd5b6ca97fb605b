"""Probes: held-out prompts that a program verifies, by which the pool's members are rated."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from pydantic import Field, model_validator

from deltawheel.contracts.ids import content_id
from deltawheel.contracts.ladder import Contest, ProbeCount
from deltawheel.contracts.prompt import Prompt
from deltawheel.contracts.record import Count, Domain, Record, UtcTime

__all__ = ["HeldOut", "LadderRows", "Probe", "ProbeItems", "counted"]


class Probe(Record):
    """What one generator, at one revision, made of some held-out prompts of one domain."""

    generator: str
    revision: str
    domain: Domain
    items_id: str = Field(description="Which prompts these were; asked again, the newest counts.")
    num_items: int = Field(ge=1, description="Those of which a program could tell right or wrong.")
    num_right: Count
    prompt_tokens: Count
    completion_tokens: Count
    probed_at: UtcTime

    @model_validator(mode="after")
    def _no_more_right_than_asked(self) -> Self:
        if self.num_right > self.num_items:
            raise ValueError(f"{self.num_right} right answers to {self.num_items} prompts")
        return self

    @property
    def reference(self) -> str:
        """Name and revision in one text, as `Generator.reference`."""
        return f"{self.generator}@{self.revision}"

    @property
    def probe_id(self) -> str:
        """Whose it is, of which prompts, and when."""
        return content_id(
            "probe",
            1,
            self.generator,
            self.revision,
            self.domain,
            self.items_id,
            self.probed_at.isoformat(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeItems:
    """Held-out prompts of one domain that are asked in one probe."""

    domain: str
    prompts: Sequence[Prompt]

    @property
    def items_id(self) -> str:
        """Which prompts these are, whatever the wheel."""
        asked = [
            [[[it.role, it.content] for it in prompt.messages], prompt.reference_answer]
            for prompt in self.prompts
        ]
        return content_id("probe-items", 1, self.domain, asked)


class HeldOut(Protocol):
    """The prompts that are kept for probes."""

    @property
    def sets(self) -> Sequence[ProbeItems]:
        """All of them, cut into sets that are asked one after another."""
        ...

    def holds(self, prompt: Prompt) -> bool:
        """Tell whether the prompt is one of those kept, so that no pair may be made of it."""
        ...


class LadderRows(Protocol):
    """What the ladder is made of, as the store has it."""

    def add_probes(self, probes: Sequence[Probe]) -> list[Probe]:
        """Store probes; return what the store holds under their ids."""
        ...

    def probes(self) -> list[Probe]:
        """Return all probes, oldest first."""
        ...

    def judged_work(self) -> list[Contest]:
        """Return who was chosen over whom, and who tied, by exact revision and domain.

        It reads every stored pair: some seconds for a million.
        """
        ...


def counted(probes: Sequence[Probe]) -> list[ProbeCount]:
    """Return what probes say: of the same prompts asked again, the newest answers alone."""
    newest = {
        (it.reference, it.domain, it.items_id): it
        for it in sorted(probes, key=lambda it: it.probed_at)
    }
    return [
        ProbeCount(
            reference=it.reference,
            domain=it.domain,
            num_items=it.num_items,
            num_right=it.num_right,
        )
        for it in newest.values()
    ]
