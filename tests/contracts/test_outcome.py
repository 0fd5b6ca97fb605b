"""The end of an attempt: unpaired ones say why, the others have nothing of the kind."""

from typing import Any

import pytest
from pydantic import ValidationError

from deltawheel.contracts.outcome import Closing, Outcome, UnpairedCause
from tests.records import a_closing


def a_closing_with(**changes: Any) -> Closing:
    return Closing.model_validate({**a_closing().model_dump(), **changes})


@pytest.mark.parametrize("cause", UnpairedCause)
def test_unpaired_closing_names_its_cause(cause: UnpairedCause) -> None:
    closing = a_closing_with(outcome=Outcome.UNPAIRED, cause=cause)
    assert Closing.model_validate_json(closing.model_dump_json()).cause is cause


def test_unpaired_closing_without_a_cause_cannot_be_built() -> None:
    with pytest.raises(
        ValidationError, match=r"unpaired with cause None.*'tie', 'single-survivor'"
    ):
        a_closing_with(outcome=Outcome.UNPAIRED, cause=None)


@pytest.mark.parametrize("outcome", [it for it in Outcome if it is not Outcome.UNPAIRED])
def test_no_other_outcome_has_a_cause(outcome: Outcome) -> None:
    assert a_closing_with(outcome=outcome).cause is None
    with pytest.raises(ValidationError, match=f"{outcome.value} with cause tie"):
        a_closing_with(outcome=outcome, cause=UnpairedCause.TIE)
