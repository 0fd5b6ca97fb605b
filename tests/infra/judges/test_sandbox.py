import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltawheel.contracts.errors import ConfigError, InvalidRecordError
from deltawheel.contracts.ports import Assessment
from deltawheel.contracts.prompt import Message, Prompt
from deltawheel.contracts.rubric import Rubric
from deltawheel.contracts.settings import JudgeSettings, Settings
from deltawheel.infra.judges.sandbox import SandboxJudge
from deltawheel.infra.sandbox.verifier import DIMENSIONS
from tests.records import T0, WHEEL, a_prompt, a_rubric, a_trace, an_assignment

PROBLEM = "17+8*3="


async def judged(
    answer: str,
    *,
    reasoning: str = "",
    prompt: Prompt | None = None,
    rubric: Rubric | None = None,
    **settings: object,
) -> Assessment:
    prompt = prompt or a_prompt(PROBLEM)
    trace = a_trace(an_assignment(prompt), answer=answer, reasoning=reasoning)
    judge = SandboxJudge(JudgeSettings.model_validate(settings))
    return await judge.assess(prompt, trace, rubric or a_rubric())


def means(assessment: Assessment) -> tuple[float, ...]:
    """The scores in the order of `DIMENSIONS`."""
    assert assessment.scores.keys() == DIMENSIONS.keys()
    return tuple(assessment.scores[name].mean for name in DIMENSIONS)


# answer, strategy, steps, precision, signal
SOLUTIONS = [
    ("17+8=25;25*3=75;A:75", (5.0, 5.0, 5.0, 5.0, 5.0)),
    ("A:75", (5.0, 1.0, 1.0, 1.0, 5.0)),
    ("17+8=25;26*3=78;A:78", (1.0, 5.0, 3.0, 5.0, 5.0)),
    ("17+8=15;15*3=45;A:45", (1.0, 5.0, 5.0, 3.0, 5.0)),
    ("25*3=75;A:75", (5.0, 3.0, 1.0, 5.0, 5.0)),
    ("A:75;words", (5.0, 1.0, 1.0, 1.0, 3.0)),
    ("no idea", (1.0, 1.0, 1.0, 1.0, 1.0)),
    ("", (1.0, 1.0, 1.0, 1.0, 1.0)),
]


@pytest.mark.parametrize(("solution", "expected"), SOLUTIONS)
async def test_every_score_is_one_and_four_times_the_share(
    solution: str, expected: tuple[float, ...]
) -> None:
    assessment = await judged(solution)
    assert means(assessment) == expected
    assert assessment.is_correct is (expected[0] == 5.0)


@pytest.mark.parametrize(("solution", "expected"), SOLUTIONS)
async def test_an_inverted_judge_says_six_minus_each(
    solution: str, expected: tuple[float, ...]
) -> None:
    assessment = await judged(solution, inverted=True)
    assert means(assessment) == tuple(6 - mean for mean in expected)


@given(
    st.sampled_from(SOLUTIONS),
    st.booleans(),
    st.floats(0, 5),
    st.floats(-5, 5),
    st.floats(-5, 5),
)
async def test_the_verification_knows_nothing_of_planted_faults(
    solution: tuple[str, tuple[float, ...]],
    inverted: bool,
    noise: float,
    length_bias: float,
    self_preference: float,
) -> None:
    text, upright = solution
    assessment = await judged(
        text,
        inverted=inverted,
        noise=noise,
        length_bias=length_bias,
        self_preference=self_preference,
        favourite="strong",
    )
    assert assessment.is_correct is (upright[0] == 5.0)


async def test_planted_noise_falls_on_each_dimension_by_itself() -> None:
    scores = means(await judged("17+8=15;25*3=75;A:75;words and words", noise=0.05))
    clean = means(await judged("17+8=15;25*3=75;A:75;words and words"))
    shifts = {round(noisy - mean, 9) for noisy, mean in zip(scores, clean, strict=True)}
    assert len(shifts - {0.0}) >= 3


async def test_reasoning_is_judged_with_the_answer() -> None:
    assert means(await judged("A:75", reasoning="17+8=25;25*3=75;")) == (5.0,) * 5


async def test_the_last_user_message_is_the_problem() -> None:
    prompt = Prompt(
        wheel=WHEEL,
        domain="sums",
        messages=(
            Message(role="system", content="Calculate."),
            Message(role="user", content="1+1+1="),
            Message(role="assistant", content="A:3"),
            Message(role="user", content=PROBLEM),
        ),
        accepted_at=T0,
    )
    assert (await judged("A:75", prompt=prompt)).is_correct
    assert not (await judged("A:3", prompt=prompt)).is_correct


async def test_only_the_rubrics_dimensions_are_scored() -> None:
    own = {name: DIMENSIONS[name] for name in ("factuality", "signal_to_noise")}
    rubric = Rubric(dimensions=own, order_by={"factuality": 1})
    assert (await judged("A:75", rubric=rubric)).scores.keys() == own.keys()


async def test_a_dimension_that_it_cannot_score_is_named_with_those_it_can() -> None:
    rubric = Rubric(dimensions={"factuality": "?", "charm": "?"}, order_by={"charm": 1})
    with pytest.raises(ConfigError, match=r"cannot score \['charm'\]; it scores .*factuality"):
        await judged("A:75", rubric=rubric)


@pytest.mark.parametrize("text", ["What is 1+1?", "1+1=", " 17+8*3=", "17+8*3=\n", "9" * 10_000])
async def test_a_prompt_of_another_world_cannot_be_judged(text: str) -> None:
    with pytest.raises(InvalidRecordError, match=r"prompt_\w+ cannot be judged.*exact-match") as it:
        await judged("A:75", prompt=a_prompt(text))
    assert len(str(it.value)) < 400


async def test_a_prompt_without_a_users_word_cannot_be_judged() -> None:
    only_system = (Message(role="system", content=PROBLEM),)
    prompt = Prompt(wheel=WHEEL, domain="sums", messages=only_system, accepted_at=T0)
    with pytest.raises(InvalidRecordError, match="cannot be judged"):
        await judged("A:75", prompt=prompt)


async def test_the_rubric_of_default_settings_is_the_one_it_scores() -> None:
    assessment = await judged("A:75", rubric=Settings().make_rubric())
    assert assessment.scores.keys() == DIMENSIONS.keys()


def test_the_revision_names_what_is_planted() -> None:
    assert SandboxJudge(JudgeSettings()).revision == "sandbox-1"
    faulty = SandboxJudge(JudgeSettings(inverted=True)).revision
    assert faulty.startswith("sandbox-1+inverted#")
