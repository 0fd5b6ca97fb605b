from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from deltawheel.contracts.generator import Sampling
from deltawheel.contracts.record import MAX_COUNT, Count, Name, UtcTime
from deltawheel.contracts.rubric import Rubric
from tests.records import T0, a_prompt

utc_time: TypeAdapter[datetime] = TypeAdapter(UtcTime)
name: TypeAdapter[str] = TypeAdapter(Name)
count: TypeAdapter[int] = TypeAdapter(Count)

far_and_wide = st.datetimes(
    datetime(2, 1, 1),
    datetime(9998, 12, 31),
    timezones=st.builds(timezone, st.timedeltas(timedelta(hours=-23), timedelta(hours=23))),
)


@given(far_and_wide)
def test_time_of_any_zone_becomes_the_same_moment_in_utc(moment: datetime) -> None:
    read = utc_time.validate_python(moment)
    assert read == moment
    assert read.tzinfo is UTC


@pytest.mark.parametrize(
    ("moment", "hours"), [(datetime.max, -1), (datetime.min, 1), (datetime.max, -23)]
)
def test_time_that_utc_cannot_say_is_refused(moment: datetime, hours: int) -> None:
    there = moment.replace(tzinfo=timezone(timedelta(hours=hours)))
    with pytest.raises(ValidationError, match="outside of the years 1 to 9999 in UTC"):
        utc_time.validate_python(there)


def test_time_without_zone_is_refused() -> None:
    with pytest.raises(ValidationError, match="should have timezone"):
        utc_time.validate_python(datetime(2026, 1, 1))


@pytest.mark.parametrize("good", ["a", "0", "sums", "out-of-domain", "v1.2_3", "a" * 64])
def test_name_is_safe_in_topics_labels_addresses_and_files(good: str) -> None:
    assert name.validate_python(good) == good


@pytest.mark.parametrize(
    "bad", ["", "A", "a ", " a", "a\n", "a/b", "..", "-a", "a-", "a" * 65, "ä", "a\x00b", "a{}"]
)
def test_name_that_is_not_safe_is_refused(bad: str) -> None:
    with pytest.raises(ValidationError):
        name.validate_python(bad)


@pytest.mark.parametrize("number", [-1, MAX_COUNT + 1, 10**30])
def test_count_that_no_column_holds_is_refused(number: int) -> None:
    assert count.validate_python(0) == 0
    assert count.validate_python(MAX_COUNT) == MAX_COUNT
    with pytest.raises(ValidationError):
        count.validate_python(number)


@pytest.mark.parametrize(
    ("number", "text"), [("0.70", "0.7"), ("1E+0", "1"), ("0.00", "0"), ("1.50", "1.5")]
)
def test_decimal_has_one_text_on_the_wire(number: str, text: str) -> None:
    written = Sampling(temperature=Decimal(number)).model_dump(mode="json")
    assert written["temperature"] == text


@pytest.mark.parametrize("number", ["1e-999999999", "1e-401", "0." + "1" * 401])
def test_decimal_too_long_to_write_out_is_refused(number: str) -> None:
    with pytest.raises(ValidationError, match=r"temperature\n.* no more than (400|800) d"):
        Sampling.model_validate({"temperature": number})


def test_weight_too_long_to_write_out_is_refused() -> None:
    with pytest.raises(ValidationError, match="no more than 800 digits in total"):
        Rubric.model_validate({"order_by": {"factuality": "1e999999999"}})


def test_record_cannot_be_changed() -> None:
    prompt: Any = a_prompt()
    with pytest.raises(ValidationError, match="frozen"):
        prompt.accepted_at = T0


def test_changed_copy_has_its_own_id() -> None:
    prompt = a_prompt("one")
    first_id = prompt.prompt_id
    changed = prompt.model_copy(update={"domain": "other"})
    assert changed.prompt_id != first_id
    assert (
        changed.prompt_id == type(prompt).model_validate_json(changed.model_dump_json()).prompt_id
    )
