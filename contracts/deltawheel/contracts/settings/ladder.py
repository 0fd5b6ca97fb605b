"""Settings of the capability ladder, and of the probe that it is updated by."""

from typing import Annotated, Final

from pydantic import AfterValidator, Field

from deltawheel.contracts.ladder import UpdateBy
from deltawheel.contracts.record import Domain
from deltawheel.contracts.settings.section import Section
from deltawheel.contracts.settings.values import SANDBOX

__all__ = ["LadderSettings", "ProbeSettings"]

_EXAMPLE: Final = "probe.jsonl"


def _checked_prompts(prompts: str) -> str:
    if prompts != SANDBOX and not prompts.endswith(".jsonl"):
        raise ValueError(
            f"neither {SANDBOX} nor the path of a file that ends in .jsonl, such as {_EXAMPLE}"
        )
    return prompts


class LadderSettings(Section):
    """How capable generators are taken to be."""

    update_by: UpdateBy = Field(
        default=UpdateBy.PROBE,
        description=(
            "What updates the declared capabilities. probe: right answers to the probe's prompts; "
            "judged: who was chosen over whom, which makes the generator delta the judge's own "
            "opinion again; none: nothing."
        ),
    )


class ProbeSettings(Section):
    """Held-out prompts that members of the pool are asked, to see how capable they are."""

    file: Annotated[str, AfterValidator(_checked_prompts)] | None = Field(
        default=None,
        description=(
            "JSONL file, each line with text or messages, reference_answer and domain; or sandbox, "
            "for withheld problems of it; unset, nobody is probed. They are never generated from."
        ),
    )
    domain: Domain = Field(
        default="general", description="Domain of lines that name none, and of the sandbox's."
    )
    num_items: int = Field(
        default=25,
        ge=1,
        description=(
            "Prompts of each domain in one probe; each probe asks the next ones. With 25 and 50 "
            "the difference of two members is known within about 1.2 and 0.8 logits (95 %)."
        ),
    )
    interval_s: float = Field(
        default=21_600,
        ge=0,
        description="Each member is probed at this interval, and when it joins; 0: only then.",
    )
    concurrency: int = Field(
        default=2, ge=1, description="Prompts of a probe that are asked at the same time."
    )
