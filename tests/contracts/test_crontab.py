"""Crontab lines: what they allow, and what is wrong with those that are none."""

import pytest

from deltawheel.contracts.crontab import Crontab


def test_stars_allow_everything() -> None:
    always = Crontab.parse("* * * * *")
    assert always.minutes == tuple(range(60))
    assert always.hours == tuple(range(24))
    assert always.days == tuple(range(1, 32))
    assert always.months == tuple(range(1, 13))
    assert always.weekdays == tuple(range(7))


@pytest.mark.parametrize(
    ("field", "minutes"),
    [
        ("7", (7,)),
        ("07", (7,)),
        ("1,3,2,3", (1, 2, 3)),
        ("58-59", (58, 59)),
        ("*/20", (0, 20, 40)),
        ("10-50/20", (10, 30, 50)),
        ("5/20", (5, 25, 45)),
        ("59,*/30", (0, 30, 59)),
    ],
)
def test_field_is_a_list_of_numbers_ranges_and_steps(field: str, minutes: tuple[int, ...]) -> None:
    assert Crontab.parse(f"{field} * * * *").minutes == minutes


def test_months_and_weekdays_have_names_in_any_case() -> None:
    named = Crontab.parse("0 3 * Jan,oct-DEC mon-fri")
    assert named.months == (1, 10, 11, 12)
    assert named.weekdays == (1, 2, 3, 4, 5)


@pytest.mark.parametrize("field", ["7", "0", "sun"])
def test_sunday_begins_a_week_and_ends_it(field: str) -> None:
    assert Crontab.parse(f"* * * * {field}").weekdays == (0,)
    assert Crontab.parse("* * * * fri-sun").weekdays == (0, 5, 6)
    assert Crontab.parse("* * * * sun-mon").weekdays == (0, 1)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "five fields, minute hour day month weekday, not 0; valid is for example"),
        ("@daily", "five fields, minute hour day month weekday, not 1"),
        ("0 3 * *", "five fields, minute hour day month weekday, not 4"),
        ("0 3 * * * *", "five fields, minute hour day month weekday, not 6"),
        ("60 3 * * *", "'60' is no minute: valid are 0 to 59, ranges such as 0-2, "),
        ("* 24 * * *", "'24' is no hour: valid are 0 to 23"),
        ("* * 0 * *", "'0' is no day: valid are 1 to 31, ranges such as 1-3"),
        ("* * * 13 *", "'13' is no month: valid are 1 to 12 or jan, feb, "),
        ("* * * mon *", "'mon' is no month"),
        ("* * * * 8", "'8' is no weekday: valid are 0 to 7 or sun, mon, "),
        ("* * * * jan", "'jan' is no weekday"),
        ("jan * * * *", "'jan' is no minute"),
        ("*/0 * * * *", "'*/0' is no minute"),
        ("5-1 * * * *", "'5-1' is no minute"),
        ("1,,2 * * * *", "'' is no minute"),
        ("-1 * * * *", "'-1' is no minute"),
        ("1- * * * *", "'1-' is no minute"),
        ("² * * * *", "'²' is no minute"),
        ("0 0 31 2,4 *", "no month 2,4 has a day 31: it would never be due"),
        ("0 0 30 feb *", "no month feb has a day 30"),
    ],
)
def test_line_that_is_none_is_told_what_would_be_valid(line: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"valid|never") as caught:
        Crontab.parse(line)
    assert said in str(caught.value)


def test_day_that_comes_in_leap_years_only_is_due_at_last() -> None:
    assert Crontab.parse("0 0 29 2 *").days == (29,)
