import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltawheel.infra.sandbox.grammar import (
    MAX_SUITE_ITEMS,
    OPERATIONS,
    SUITES,
    Family,
    Problem,
    apply_carelessly,
    apply_operation,
    is_withheld,
    render_solution,
    sample_problem,
    seeded_rng,
    suite_problems,
)

operands = st.integers(0, 9)
problems = st.builds(
    Problem,
    st.integers(0, 99),
    st.lists(st.tuples(st.sampled_from(list(OPERATIONS)), operands), min_size=2, max_size=3).map(
        tuple
    ),
)
families = st.sampled_from(list(Family))


@given(problems)
def test_parsing_a_problem_undoes_its_text(problem: Problem) -> None:
    assert Problem.parse(problem.text) == problem


@pytest.mark.parametrize(
    "text",
    [
        "",
        "17+8=",
        "17+8*3",
        "07+8*3=",
        "100+8*3=",
        "17+18*3=",
        "17+8*3-1+2=",
        "17÷8*3=",
        "17+8*3= ",
        "١٧+8*3=",
        "1" * 100_000,
    ],
)
def test_anything_else_is_no_problem_and_the_message_shows_the_form(text: str) -> None:
    with pytest.raises(ValueError, match=r"17\+8\*3=") as raised:
        Problem.parse(text)
    assert len(str(raised.value)) < 200


def test_a_problem_that_no_prompt_can_say_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="first operand of 0-99"):
        Problem(100, (("+", 1), ("+", 1)))
    with pytest.raises(ValueError, match="2 or 3 operations"):
        Problem(10, (("+", 1),))


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("17+8*3=", 75),
        ("5-9+2=", 98),
        ("97+8*1=", 5),
        ("40M7m9=", 9),
        ("40m7M9=", 9),
        ("3*9*9=", 43),
    ],
)
def test_a_chain_is_worked_left_to_right_modulo_100(text: str, answer: int) -> None:
    assert Problem.parse(text).answer == answer


@pytest.mark.parametrize(
    ("left", "operation", "right", "flawed"),
    [(17, "+", 8, 15), (23, "-", 8, 25), (97, "+", 8, 95), (3, "-", 8, 5), (17, "*", 8, 86)],
)
def test_the_flaw_forgets_the_carry_or_borrow(
    left: int, operation: str, right: int, flawed: int
) -> None:
    assert apply_carelessly(left, operation, right) == flawed


@given(st.integers(0, 99), operands)
def test_the_flaw_changes_nothing_without_a_carry(left: int, right: int) -> None:
    for operation in OPERATIONS:
        carries = {
            "+": left % 10 + right > 9,
            "-": left % 10 < right,
            "*": left % 10 * right > 9,
        }
        if not carries.get(operation, False):
            exact = apply_operation(left, operation, right)
            assert apply_carelessly(left, operation, right) == exact


def test_an_unknown_operation_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown operation '/'"):
        apply_operation(1, "/", 1)


def test_solutions_are_written_stepwise_or_as_a_shortcut_with_or_without_slips() -> None:
    problem = Problem.parse("17+8*3=")
    slips = (True, False)
    assert render_solution(problem, is_stepwise=True) == "17+8=25;25*3=75;A:75"
    assert render_solution(problem, is_stepwise=False) == "A:75"
    assert render_solution(problem, is_stepwise=True, slips=slips) == "17+8=15;15*3=45;A:45"
    assert render_solution(problem, is_stepwise=False, slips=slips) == "A:45"


@given(st.integers(), families, st.booleans())
def test_sampling_keeps_to_the_family_and_to_its_side_of_the_withheld_split(
    seed: int, family: Family, withheld: bool
) -> None:
    problem = sample_problem(random.Random(seed), family, withheld=withheld)
    assert is_withheld(problem.text) is withheld
    assert family.has([operation for operation, _ in problem.steps])


def test_mixed_chains_have_a_product_and_something_else() -> None:
    assert Family.MIXED.has("*+")
    assert not Family.MIXED.has("**")
    assert not Family.MIXED.has("+-")
    assert not Family.MIXED.has("*M")


def test_about_one_problem_in_eight_is_withheld() -> None:
    texts = [f"{first}+{a}-{b}=" for first in range(100) for a in range(10) for b in range(10)]
    assert sum(map(is_withheld, texts)) / len(texts) == pytest.approx(1 / 8, abs=0.015)


@pytest.mark.parametrize("suite", SUITES)
def test_a_suite_has_a_thousand_distinct_withheld_items_that_depend_on_the_seed_only(
    suite: str,
) -> None:
    items = suite_problems(suite, 1000, seed=7)
    assert len(set(items)) == 1000
    assert all(is_withheld(item.text) for item in items)
    assert items == suite_problems(suite, 1000, seed=7)
    assert items[:10] == suite_problems(suite, 10, seed=7)
    assert items != suite_problems(suite, 1000, seed=8)


def test_the_smallest_suite_has_as_many_items_as_may_be_asked_for() -> None:
    assert len(suite_problems("out_of_domain_times", MAX_SUITE_ITEMS, seed=0)) == MAX_SUITE_ITEMS


def test_a_suite_that_cannot_be_made_is_refused_with_what_would_be_valid() -> None:
    with pytest.raises(ValueError, match="use one of in_domain, out_of_domain_times"):
        suite_problems("division", 10, seed=0)
    with pytest.raises(ValueError, match="use 0 to 10000"):
        suite_problems("guard", MAX_SUITE_ITEMS + 1, seed=0)


def test_streams_of_different_purposes_are_unrelated_and_replayable() -> None:
    assert seeded_rng("a", 1).random() == seeded_rng("a", 1).random()
    assert seeded_rng("a", 1).random() != seeded_rng("a", 2).random()
    assert seeded_rng("a", 11).random() != seeded_rng("a", 1, 1).random()
