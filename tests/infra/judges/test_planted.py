from itertools import combinations, product
from statistics import fmean, pstdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltawheel.contracts.settings import JudgeSettings
from deltawheel.contracts.trace import Trace
from deltawheel.infra.judges.planted import PlantedFaults
from deltawheel.infra.judges.sandbox import SandboxJudge
from tests.records import a_prompt, a_trace, an_assignment

DIMENSION = "factuality"
ANOTHER = "step_coherence"

scores = st.floats(1, 5)
faults_of_any_kind = st.builds(
    PlantedFaults,
    noise=st.floats(0, 10),
    length_bias=st.floats(-10, 10),
    self_preference=st.floats(-10, 10),
    favourite=st.sampled_from([None, "strong", "weak"]),
    inverted=st.booleans(),
    seed=st.integers(),
)
traces = st.builds(
    lambda slot, answer, reasoning: a_trace(slot=slot, answer=answer, reasoning=reasoning),
    st.integers(0, 1),
    st.text(max_size=300),
    st.text(max_size=50),
)


def a_trace_of(text: str) -> Trace:
    """A trace of a prompt of its own, so that its id is its own too."""
    return a_trace(an_assignment(a_prompt(text)))


@given(scores, traces, st.integers())
def test_no_fault_changes_nothing(score: float, trace: Trace, seed: int) -> None:
    assert PlantedFaults(seed=seed, favourite="strong").apply(score, DIMENSION, trace) == score


@pytest.mark.parametrize(
    ("answer", "reasoning", "bias", "expected"),
    [
        ("x" * 100, "", 0.5, 3.5),
        ("x" * 50, "y" * 150, 0.5, 4.0),
        ("x" * 100, "", -0.5, 2.5),
        ("", "", 0.5, 3.0),
    ],
)
def test_length_bias_pays_by_the_hundred_characters_of_the_whole_text(
    answer: str, reasoning: str, bias: float, expected: float
) -> None:
    trace = a_trace(answer=answer, reasoning=reasoning)
    assert PlantedFaults(length_bias=bias).apply(3.0, DIMENSION, trace) == expected


def test_self_preference_pays_the_favourite_alone() -> None:
    faults = PlantedFaults(self_preference=1.5, favourite="weak")
    strong, weak = a_trace(slot=0), a_trace(slot=1)
    assert (strong.generator, weak.generator) == ("strong", "weak")
    assert faults.apply(3.0, DIMENSION, strong) == 3.0
    assert faults.apply(3.0, DIMENSION, weak) == 4.5


@given(faults_of_any_kind, scores, traces)
def test_inversion_is_six_minus_what_the_other_faults_leave(
    faults: PlantedFaults, score: float, trace: Trace
) -> None:
    rest = {name: getattr(faults, name) for name in PlantedFaults.__slots__ if name != "inverted"}
    upright = PlantedFaults(**rest).apply(score, DIMENSION, trace)
    inverted = PlantedFaults(**rest, inverted=True).apply(score, DIMENSION, trace)
    assert inverted == 6 - upright


@given(faults_of_any_kind, scores, traces)
def test_scores_stay_on_the_scale_and_the_same_trace_gets_the_same(
    faults: PlantedFaults, score: float, trace: Trace
) -> None:
    faulty = faults.apply(score, DIMENSION, trace)
    assert 1 <= faulty <= 5
    assert faults.apply(score, DIMENSION, trace) == faulty


def test_scores_end_at_both_ends_of_the_scale() -> None:
    assert PlantedFaults(length_bias=100).apply(3.0, DIMENSION, a_trace()) == 5.0
    assert PlantedFaults(length_bias=-100).apply(3.0, DIMENSION, a_trace()) == 1.0


def test_noise_differs_by_trace_dimension_and_seed() -> None:
    first, second = a_trace_of("1+1="), a_trace_of("1+2=")
    faults, reseeded = PlantedFaults(noise=0.1), PlantedFaults(noise=0.1, seed=1)
    drawn = {
        faults.apply(3.0, DIMENSION, first),
        faults.apply(3.0, DIMENSION, second),
        faults.apply(3.0, ANOTHER, first),
        reseeded.apply(3.0, DIMENSION, first),
    }
    assert len(drawn) == 4


def test_noise_does_not_hang_on_the_text_that_was_sampled() -> None:
    faults = PlantedFaults(noise=0.1)
    once, again = a_trace(answer="1+1=2"), a_trace(answer="1+1=3")
    assert faults.apply(3.0, DIMENSION, once) == faults.apply(3.0, DIMENSION, again)


def test_noise_has_no_bias_and_the_spread_that_was_asked_for() -> None:
    faults = PlantedFaults(noise=0.2)
    drawn = [faults.apply(3.0, str(number), a_trace()) - 3.0 for number in range(2_000)]
    assert abs(fmean(drawn)) < 0.015
    assert pstdev(drawn) == pytest.approx(0.2, rel=0.06)


def test_the_settings_are_taken_key_by_key() -> None:
    settings = JudgeSettings(
        noise=0.5, length_bias=-0.1, self_preference=0.25, favourite="weak", inverted=True, seed=3
    )
    assert PlantedFaults.from_settings(settings) == PlantedFaults(
        noise=0.5, length_bias=-0.1, self_preference=0.25, favourite="weak", inverted=True, seed=3
    )
    assert PlantedFaults.from_settings(JudgeSettings()) == PlantedFaults()


def test_faults_are_named_as_they_are() -> None:
    faults = PlantedFaults(
        noise=0.5, length_bias=0.1, self_preference=1.0, favourite="weak", inverted=True, seed=3
    )
    named, _, digest = faults.name.partition("#")
    assert named == "noise=0.5,seed=3+length-bias=0.1+prefers-weak=1.0+inverted"
    assert len(digest) == 8


def test_no_fault_has_no_name() -> None:
    assert PlantedFaults().name == ""
    assert PlantedFaults(seed=7, favourite="weak").name == ""


def test_every_combination_has_a_name_and_a_revision_of_its_own() -> None:
    combinations_of_faults = [
        JudgeSettings(
            noise=noise,
            seed=seed,
            length_bias=bias,
            self_preference=preference,
            favourite=favourite,
            inverted=inverted,
        )
        for (noise, seed), bias, (preference, favourite), inverted in product(
            [(0.0, 0), (0.5, 0), (0.5, 1), (0.25, 0)],
            [0.0, 0.1, -0.1],
            [(0.0, None), (1.0, "strong"), (1.0, "weak"), (0.5, "weak")],
            [False, True],
        )
    ]
    names = {PlantedFaults.from_settings(settings).name for settings in combinations_of_faults}
    revisions = {SandboxJudge(settings).revision for settings in combinations_of_faults}
    assert len(names) == len(revisions) == len(combinations_of_faults) == 96


@given(st.lists(faults_of_any_kind, min_size=2, max_size=6))
def test_faults_of_one_name_give_the_same_scores(several: list[PlantedFaults]) -> None:
    for one, other in combinations(several, 2):
        if one.name == other.name:
            for slot in (0, 1):
                trace = a_trace(slot=slot)
                assert one.apply(3.0, DIMENSION, trace) == other.apply(3.0, DIMENSION, trace)
