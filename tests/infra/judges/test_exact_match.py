from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltawheel.contracts.errors import ConfigError, InvalidRecordError
from deltawheel.contracts.ports import Assessment
from deltawheel.contracts.rubric import Rubric
from deltawheel.contracts.settings import JudgeKind, JudgeSettings, Settings
from deltawheel.infra.judges.exact_match import ExactMatchJudge
from tests.records import a_prompt, a_rubric, a_trace, an_assignment

FACTUALITY = Rubric(
    dimensions={"factuality": "Is the answer right?"}, order_by={"factuality": Decimal(1)}
)
LONG = 300_000


def a_judge(**settings: object) -> ExactMatchJudge:
    return ExactMatchJudge(JudgeSettings.model_validate({"kind": "exact-match", **settings}))


async def judged(
    answer: str, reference: str | None, *, reasoning: str = "", **settings: Any
) -> Assessment:
    prompt = a_prompt("What is it?", reference_answer=reference)
    trace = a_trace(an_assignment(prompt), answer=answer, reasoning=reasoning)
    return await a_judge(**settings).assess(prompt, trace, FACTUALITY)


async def is_right(answer: str, reference: str, **settings: Any) -> bool:
    is_right = (await judged(answer, reference, **settings)).is_correct
    assert is_right is not None
    return is_right


@pytest.mark.parametrize(("answer", "mean"), [("It is 12.", 5.0), ("It is 13.", 1.0)])
async def test_right_answers_get_5_and_wrong_ones_1(answer: str, mean: float) -> None:
    assessment = await judged(answer, "12")
    assert {name: score.mean for name, score in assessment.scores.items()} == {"factuality": mean}
    assert assessment.is_correct is (mean == 5.0)


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("12", "12.0"),
        ("0012", "12"),
        ("1.2e1", "12"),
        (".5", "0.50"),
        ("5e-1", ".5"),
        ("The sum is 12.", "12"),
        ("**12**", "12"),
        ("$ 12", "12 €"),
        ("`12 %`", "12"),
        ("It costs £1,234.50 in all.", "1234.5"),
        ("1234567", "1,234,567"),
        ("十 is ten, so ١٢", "12"),
        ("12\u00a0", "12"),
        ("So 12 it is.", "12\u00a0€"),
        ("So 12 it is.", "\u200912."),
    ],
)
async def test_numbers_are_the_same_however_they_are_written(answer: str, reference: str) -> None:
    assert await is_right(answer, reference)


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("", "12"),
        ("twelve", "12"),
        ("1.2", "12"),
        ("120", "12"),
        ("1,23,4", "1234"),
        ("12 is the answer, not 13", "12"),
    ],
)
async def test_other_numbers_and_no_number_are_wrong(answer: str, reference: str) -> None:
    assert not await is_right(answer, reference)


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("-3", "-3"),
        ("−3", "-3"),
        ("+3", "3"),
        ("it falls to -3", "-3"),
        ("(-3)", "-3"),
        ("x=-3", "-3"),
        ("10-3", "3"),
        ("x-3", "3"),
        ("(10)-3", "3"),
        ("2024-01-05", "5"),
    ],
)
async def test_a_sign_counts_unless_it_subtracts(answer: str, number: str) -> None:
    assert await is_right(answer, number)
    assert not await is_right(answer, str(-int(number)))


async def test_the_last_number_wins() -> None:
    assert await is_right("17+8=25, and 25*3=75", "75")
    assert not await is_right("75, no: 17+8=25", "75")


@pytest.mark.parametrize(
    ("answer", "reference", "tolerance", "is_near"),
    [
        ("3.1416", "3.14159265", 1e-4, True),
        ("3.1416", "3.14159265", 1e-9, False),
        ("101", "100", 0.01, True),
        ("101.1", "100", 0.01, False),
        ("-101", "-100", 0.01, True),
        ("-100", "100", 0.01, False),
        ("0.1", "0", 0.5, False),
        ("0.30000000000000000000001", "0.3", 0, False),
        ("0.300", "0.3", 0, True),
    ],
)
async def test_the_tolerance_is_relative_to_the_reference(
    answer: str, reference: str, tolerance: float, is_near: bool
) -> None:
    assert await is_right(answer, reference, numeric_tolerance=tolerance) is is_near


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        (r"\boxed{12}, for 3 times 4 is no 13", "12"),
        (r"\boxed{11} was wrong, so \boxed{12} and not 13", "12"),
        (r"\boxed{12} and then \boxed{13", "12"),
        (r"\boxed{x = 12}", "12"),
        (r"\boxed{\text{12}}", "12"),
        (r"\boxed{\frac{1}{2}} of it", r"\frac{1}{2}"),
        ("12", r"We get \boxed{12}."),
        (r"\boxed{Paris} it is", "Paris"),
        (r"} \boxed{12} }", "12"),
    ],
)
async def test_the_last_complete_box_is_the_answer(answer: str, reference: str) -> None:
    assert await is_right(answer, reference)


async def test_a_number_outside_the_box_is_no_answer() -> None:
    assert not await is_right(r"\boxed{13} or 12", "12")
    assert not await is_right(r"\boxed{} 12", "12")


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("Paris", "paris"),
        ("PARIS.", "Paris"),
        ("Let me think.\n\n  Paris  \n\n", "Paris"),
        ("**Paris**.", "Paris"),
        ("New \t York", "New York"),
        ("Cafe\u0301", "Caf\u00e9"),
        ("STRASSE", "Straße"),
        ("ΟΔΟΣ", "οδος"),
        ("Paris.\u2003", "Paris"),
        ("1/2", "1/2"),
        ("Here:\na = 1\n\nb = 2", "a = 1\nb = 2"),
    ],
)
async def test_text_is_the_same_whatever_its_case_and_spaces(answer: str, reference: str) -> None:
    assert await is_right(answer, reference)


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("", "Paris"),
        (" \n ", "Paris"),
        ("Paris\nor Rome", "Paris"),
        ("Not Paris", "Paris"),
        ("Par is", "Paris"),
        ("Cafe", "Caf\u00e9"),
        ("$", "*"),
        (".", "%"),
        ("b = 2", "a = 1\nb = 2"),
    ],
)
async def test_other_text_is_wrong(answer: str, reference: str) -> None:
    assert not await is_right(answer, reference)


async def test_only_the_answer_counts_and_not_the_reasoning() -> None:
    assert (await judged("12", "12", reasoning="perhaps 13")).is_correct
    assert not (await judged("no idea", "12", reasoning="12")).is_correct


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("A:75 and then 80", "75", True),
        ("A:15;A:75", "75", True),
        ("A:75;A:15", "75", False),
        ("75", "75", False),
        ("A:Paris", "Paris", True),
        ("Paris", "Paris", False),
        (r"A:75 \boxed{80}", "75", True),
    ],
)
async def test_a_pattern_takes_its_last_match_and_nothing_else(
    answer: str, reference: str, expected: bool
) -> None:
    assert await is_right(answer, reference, answer_pattern=r"A:(\w+)") is expected


async def test_a_number_is_found_within_what_the_pattern_gives() -> None:
    assert await is_right("Answer: about 12 apples\nof 30", "12", answer_pattern=r"Answer:(.*)")


async def test_a_group_that_took_no_part_is_no_answer() -> None:
    assert not await is_right("no 12", "12", answer_pattern=r"no|yes (\d+)")
    assert await is_right("yes 12", "12", answer_pattern=r"no|yes (\d+)")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("reference", ["12", "Paris"])
@pytest.mark.parametrize(
    "piece",
    [
        "9", ",9", "1,111", "1e", "1.", "-", "9 ", "\\boxed{", "{", "}", "\\boxed{1}", "\n",
        "é\0", "\u2028", "$", " .",
    ],
)  # fmt: skip
async def test_a_long_text_is_judged_as_readily_as_a_line(piece: str, reference: str) -> None:
    assert not await is_right(piece * (LONG // len(piece)), reference)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("reference", ["12", "1" * 1_200_000, "x" * 1_200_000])
async def test_more_digits_than_decimals_can_hold_are_wrong_and_no_crash(reference: str) -> None:
    assert not await is_right("9" * 1_200_000, reference)
    assert not await is_right(f"It is {'9' * 1_200_000}.", reference)


@pytest.mark.timeout(20)
async def test_a_slow_pattern_sees_the_end_of_a_text_only() -> None:
    assert await is_right("a" * LONG + " 12!", "12", answer_pattern=r"(\w+)!")
    assert await is_right("12!" + "a" * 9_997, "12", answer_pattern=r"(\d+)!")
    assert not await is_right("12!" + "a" * 9_998, "12", answer_pattern=r"(\d+)!")


async def test_a_number_of_many_digits_is_compared_to_the_last_of_them() -> None:
    digits = "1234567890" * 50
    assert await is_right(f"It is {digits}.", digits)
    assert not await is_right(f"It is {digits[:-1]}1.", digits, numeric_tolerance=0)


@pytest.mark.parametrize("reference", [None, "", " \n"])
async def test_a_prompt_without_reference_cannot_be_judged(reference: str | None) -> None:
    with pytest.raises(InvalidRecordError, match="no reference_answer"):
        await judged("12", reference)


@pytest.mark.parametrize(
    "rubric",
    [
        a_rubric(),
        Rubric(dimensions={"charm": "?"}, order_by={"charm": Decimal(1)}),
    ],
)
async def test_a_rubric_of_other_dimensions_is_refused(rubric: Rubric) -> None:
    with pytest.raises(ConfigError, match=r"rubric\.dimensions: .*factuality alone"):
        await a_judge().assess(a_prompt(), a_trace(), rubric)


async def test_the_rubric_that_settings_make_for_it_is_the_one_it_scores() -> None:
    rubric = Settings(judge=JudgeSettings(kind=JudgeKind.EXACT_MATCH)).make_rubric()
    assessment = await a_judge().assess(a_prompt(), a_trace(), rubric)
    assert assessment.scores.keys() == rubric.dimensions.keys()


async def test_planted_faults_change_the_score_and_not_what_is_right() -> None:
    assessment = await judged("12", "12", inverted=True)
    assert assessment.scores["factuality"].mean == 1.0
    assert assessment.is_correct is True


def test_the_revision_changes_with_every_rule() -> None:
    rules: list[dict[str, object]] = [
        {},
        {"answer_pattern": "A:(.*)"},
        {"answer_pattern": "B:(.*)"},
        {"numeric_tolerance": 0.01},
        {"numeric_tolerance": 0.02},
        {"answer_pattern": "A:(.*)", "numeric_tolerance": 0.01},
        {"inverted": True},
        {"noise": 0.5},
        {"noise": 0.5, "seed": 1},
        {"length_bias": 0.1},
    ]
    revisions = [a_judge(**rule).revision for rule in rules]
    assert len(set(revisions)) == len(rules)
    assert revisions == [a_judge(**rule).revision for rule in rules]


def test_the_revision_is_the_same_where_nothing_can_be_found_otherwise() -> None:
    assert a_judge(concurrency=1, seed=9, favourite="strong").revision == a_judge().revision


spaces = st.text(alphabet=" \t\r\n\u00a0\u2003\u2028", max_size=4)
marks = st.text(alphabet=" *`\"'$€%\u00a0", max_size=4)
numbers = st.one_of(
    st.integers(-(10**30), 10**30).map(str),
    st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**9), max_value=10**9).map(
        lambda value: format(value, "f")
    ),
    st.integers(0, 10**12).map(lambda value: f"{value:,}"),
)


written = st.text().map(str.strip).filter(lambda text: any(map(str.isalnum, text)))


@given(st.one_of(written, numbers), spaces, marks, marks, spaces)
async def test_a_reference_matches_itself_however_padded(
    reference: str, before: str, opening: str, closing: str, after: str
) -> None:
    assert await is_right(f"{before}{opening}{reference}{closing}{after}", reference)


@given(numbers, st.text(alphabet="abc :=\n()*$", max_size=30), marks, spaces)
async def test_a_number_matches_itself_after_any_words(
    number: str, words: str, closing: str, after: str
) -> None:
    assert await is_right(f"{words}: {number}{closing}{after}", number, numeric_tolerance=0)


@given(st.text(), st.text(min_size=1).filter(str.strip))
async def test_any_two_texts_are_compared(answer: str, reference: str) -> None:
    assessment = await judged(answer, reference)
    assert assessment.scores["factuality"].mean == (5.0 if assessment.is_correct else 1.0)
