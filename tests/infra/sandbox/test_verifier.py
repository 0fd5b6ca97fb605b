import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltawheel.infra.sandbox.grammar import OPERATIONS, Problem, render_solution
from deltawheel.infra.sandbox.verifier import DIMENSIONS, Verification, verify

PROMPT = "17+8*3="

problems = st.builds(
    Problem,
    st.integers(0, 99),
    st.lists(
        st.tuples(st.sampled_from(list(OPERATIONS)), st.integers(0, 9)), min_size=2, max_size=3
    ).map(tuple),
)
# Half of the garbage is made of the world's own characters, which reach deeper into the reader.
garbage = st.one_of(st.text(), st.text(alphabet=f"0123456789{''.join(OPERATIONS)}=;A: \n"))


@given(problems)
def test_a_flawless_stepwise_solution_gets_every_share(problem: Problem) -> None:
    verification = verify(problem.text, render_solution(problem, is_stepwise=True))
    assert verification.shares == dict.fromkeys(DIMENSIONS, 1.0)
    assert verification.answer == problem.answer
    assert verification.is_correct


@given(problems)
def test_a_right_shortcut_is_factual_and_shows_nothing_else(problem: Problem) -> None:
    verification = verify(problem.text, render_solution(problem, is_stepwise=False))
    assert verification.is_correct
    assert verification.signal_to_noise == 1.0
    assert verification.strategy_coherence == 0.0
    assert verification.step_coherence == 0.0
    assert verification.computational_precision == 0.0


@given(problems, st.lists(st.booleans(), min_size=3, max_size=3))
def test_slips_cost_precision_but_neither_kind_of_coherence(
    problem: Problem, slips: list[bool]
) -> None:
    verification = verify(problem.text, render_solution(problem, is_stepwise=True, slips=slips))
    flawless = render_solution(problem, is_stepwise=True)
    is_flawless = render_solution(problem, is_stepwise=True, slips=slips) == flawless
    assert verification.strategy_coherence == verification.step_coherence == 1.0
    assert (verification.computational_precision == 1.0) is is_flawless


@given(garbage, garbage)
def test_any_text_gets_a_verification_of_shares(problem_text: str, solution_text: str) -> None:
    for prompt in (problem_text, PROMPT):
        verification = verify(prompt, solution_text)
        assert all(0.0 <= share <= 1.0 for share in verification.shares.values())
        assert verification.is_correct is (verification.factuality == 1.0)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("piece", ["9", "A:", ";", "1+1=2;", "A:75;", "17+8=", "é\0", " "])
def test_a_megabyte_is_judged_as_readily_as_a_line(piece: str) -> None:
    verification = verify(PROMPT, piece * (1_000_000 // len(piece)))
    assert verification.step_coherence < 0.001


@pytest.mark.parametrize(
    ("solution", "expected"),
    [
        # all steps in order, the second not going on from the first
        ("17+8=25;26*3=78;A:78", (0.0, 1.0, 0.5, 1.0, 1.0)),
        # the first step left out
        ("25*3=75;A:75", (1.0, 0.5, 0.0, 1.0, 1.0)),
        # the steps exchanged
        ("17*3=51;51+8=59;A:59", (0.0, 0.5, 0.0, 1.0, 1.0)),
        # a carry forgotten, then carried on
        ("17+8=15;15*3=45;A:45", (0.0, 1.0, 1.0, 0.5, 1.0)),
        # no answer
        ("17+8=25;25*3=75;", (0.0, 1.0, 1.0, 1.0, 1.0)),
        # half of the characters are words
        ("A:75;words", (1.0, 0.0, 0.0, 0.0, 0.5)),
        ("", (0.0, 0.0, 0.0, 0.0, 0.0)),
    ],
)
def test_each_dimension_sees_its_own_fault(solution: str, expected: tuple[float, ...]) -> None:
    assert tuple(verify(PROMPT, solution).shares.values()) == expected


def test_surplus_steps_cost_coherence_and_are_noise() -> None:
    verification = verify(PROMPT, "17+8=25;25*3=75;1+1=2;1+1=2;A:75")
    assert verification.strategy_coherence == verification.step_coherence == 0.5
    assert verification.signal_to_noise < 1.0


def test_the_last_answer_counts_and_the_others_are_noise() -> None:
    verification = verify(PROMPT, "A:75;A:15")
    assert verification.answer == 15
    assert not verification.is_correct
    assert verification.signal_to_noise < 1.0


def test_a_prompt_of_another_world_has_no_right_answer() -> None:
    verification = verify("What is the capital of France?", "A:75")
    assert verification.answer == 75
    assert not verification.is_correct


def test_the_dimensions_are_the_verifications_fields_in_order() -> None:
    fields = [field.name for field in dataclasses.fields(Verification)]
    assert [*DIMENSIONS, "answer"] == fields
