"""The gate as a function of paired marks."""

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltawheel.contracts.evaluation import Evaluation, ItemResult, SuiteRole
from deltawheel.contracts.gate import GateThresholds, Verdict
from deltawheel.pipelines.evaluation import EVALUATION_FILE
from deltawheel.pipelines.gate import GATE_FILE, decide, replay

THRESHOLDS = GateThresholds(
    alpha=0.025, min_gain=0.02, max_harm=0.02, max_suite_harm=0.05, num_resamples=400, seed=7
)
ROLES = {
    "times": SuiteRole.OUT_OF_DOMAIN,
    "mixed": SuiteRole.OUT_OF_DOMAIN,
    "sums": SuiteRole.IN_DOMAIN,
    "max-min": SuiteRole.GUARD,
}
Marks = dict[str, list[tuple[bool, bool]]]


def evaluation_of(marks: Marks) -> Evaluation:
    items = tuple(
        ItemResult(
            suite=suite,
            role=ROLES[suite],
            item_id=f"{suite}-{number}",
            champion_correct=champion,
            candidate_correct=candidate,
        )
        for suite, pairs in marks.items()
        for number, (champion, candidate) in enumerate(pairs)
    )
    return Evaluation(
        cycle_id="c", champion="a", candidate="b", seed=1, temperature=0.0, items=items
    )


def counted(*, both: int, champion: int, candidate: int, neither: int) -> list[tuple[bool, bool]]:
    return [
        *[(True, True)] * both,
        *[(True, False)] * champion,
        *[(False, True)] * candidate,
        *[(False, False)] * neither,
    ]


SAME = counted(both=300, champion=4, candidate=4, neither=692)
BETTER = counted(both=300, champion=20, candidate=420, neither=260)
WORSE = [(candidate, champion) for champion, candidate in BETTER]

marks_of_all_suites = st.fixed_dictionaries(
    {
        suite: st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)
        for suite in ROLES
    }
)


def test_a_gain_that_transfers_without_harm_is_promoted() -> None:
    decision = decide(
        evaluation_of({"times": BETTER, "mixed": BETTER, "sums": BETTER, "max-min": SAME}),
        THRESHOLDS,
    )
    assert decision.verdict is Verdict.PROMOTE
    assert decision.overall(SuiteRole.OUT_OF_DOMAIN).lower > 0.3


def test_no_gain_on_many_items_is_rejected() -> None:
    decision = decide(
        evaluation_of({"times": SAME, "mixed": SAME, "sums": BETTER, "max-min": SAME}), THRESHOLDS
    )
    assert decision.verdict is Verdict.REJECT
    assert "below the 0.020 asked for" in decision.reasons[0]


def test_a_rejection_names_everything_that_speaks_against_the_candidate() -> None:
    decision = decide(evaluation_of({"times": SAME, "sums": WORSE, "max-min": SAME}), THRESHOLDS)
    assert decision.verdict is Verdict.REJECT
    *harms, gain = decision.reasons
    assert any("the in-domain suites surely fell" in harm for harm in harms)
    assert "below the 0.020 asked for" in gain


def test_a_gain_that_harms_a_guard_is_rejected() -> None:
    decision = decide(
        evaluation_of({"times": BETTER, "mixed": BETTER, "sums": BETTER, "max-min": WORSE}),
        THRESHOLDS,
    )
    assert decision.verdict is Verdict.REJECT
    assert any("the guard suites surely fell" in reason for reason in decision.reasons)


def test_one_suite_badly_down_is_rejected_though_its_role_gains() -> None:
    decision = decide(
        evaluation_of(
            {
                "times": counted(both=0, champion=0, candidate=900, neither=100),
                "mixed": counted(both=500, champion=150, candidate=0, neither=350),
                "sums": BETTER,
                "max-min": SAME,
            }
        ),
        THRESHOLDS,
    )
    assert decision.verdict is Verdict.REJECT
    assert any("suite mixed" in reason for reason in decision.reasons)


def test_too_few_items_are_inconclusive_and_say_what_they_could_have_seen() -> None:
    few = counted(both=30, champion=8, candidate=14, neither=28)
    decision = decide(
        evaluation_of({"times": few, "mixed": few, "sums": few, "max-min": SAME}), THRESHOLDS
    )
    assert decision.verdict is Verdict.INCONCLUSIVE
    assert decision.smallest_visible_gain > 0.05


@pytest.mark.parametrize(("num_wins", "is_certain"), [(5, False), (6, True)])
def test_wins_without_a_loss_are_certain_when_the_exact_test_says_so(
    num_wins: int, is_certain: bool
) -> None:
    """One-sided at 2.5 %: McNemar's exact test gives .031 for five to none, .016 for six."""
    lucky = counted(both=20, champion=0, candidate=num_wins, neither=30 - num_wins)
    finer = THRESHOLDS.model_copy(update={"num_resamples": 20_000})
    decision = decide(evaluation_of({"times": lucky, "sums": SAME, "max-min": SAME}), finer)
    assert (decision.overall(SuiteRole.OUT_OF_DOMAIN).lower > 0) is is_certain


def test_an_evaluation_without_out_of_domain_suites_cannot_be_decided() -> None:
    with pytest.raises(ValueError, match="no out-of-domain suite"):
        decide(evaluation_of({"sums": SAME}), THRESHOLDS)


@settings(deadline=None, max_examples=60)
@given(marks_of_all_suites)
def test_swapping_the_arms_negates_every_number(marks: Marks) -> None:
    forth = decide(evaluation_of(marks), THRESHOLDS)
    swapped = {suite: [(b, a) for a, b in pairs] for suite, pairs in marks.items()}
    back = decide(evaluation_of(swapped), THRESHOLDS)
    for one, other in zip(forth.comparisons, back.comparisons, strict=True):
        assert other.difference == pytest.approx(-one.difference)
        assert other.lower == pytest.approx(-one.upper)
        assert other.upper == pytest.approx(-one.lower)
    assert {forth.verdict, back.verdict} != {Verdict.PROMOTE}


@settings(deadline=None, max_examples=60)
@given(marks_of_all_suites)
def test_the_same_marks_in_both_arms_never_promote(marks: Marks) -> None:
    same = {suite: [(a, a) for a, _ in pairs] for suite, pairs in marks.items()}
    assert decide(evaluation_of(same), THRESHOLDS).verdict is not Verdict.PROMOTE


@settings(deadline=None, max_examples=60)
@given(marks_of_all_suites, st.sampled_from(sorted(ROLES)))
def test_one_more_right_answer_never_lowers_a_difference(marks: Marks, suite: str) -> None:
    better = dict(marks)
    number = next((n for n, (_, right) in enumerate(marks[suite]) if not right), None)
    if number is not None:
        better[suite] = [
            (a, True if place == number else b) for place, (a, b) in enumerate(marks[suite])
        ]
    before = decide(evaluation_of(marks), THRESHOLDS).overall(ROLES[suite])
    after = decide(evaluation_of(better), THRESHOLDS).overall(ROLES[suite])
    assert after.difference >= before.difference
    # Bounds are quantiles of a finite number of draws, hence the grain of one item.
    grain = 2 / len(marks[suite])
    assert after.lower >= before.lower - grain
    assert after.upper >= before.upper - grain


@settings(deadline=None, max_examples=20)
@given(marks_of_all_suites)
def test_the_same_evaluation_gives_the_same_bytes(marks: Marks) -> None:
    evaluation = evaluation_of(marks)
    first = decide(evaluation, THRESHOLDS).model_dump_json()
    assert decide(evaluation, THRESHOLDS).model_dump_json() == first


def test_a_verdict_replays_from_the_files_beside_it(tmp_path: Path) -> None:
    evaluation = evaluation_of({"times": BETTER, "sums": SAME, "max-min": SAME})
    decision = decide(evaluation, THRESHOLDS)
    (tmp_path / GATE_FILE).write_text(decision.model_dump_json(indent=2))
    (tmp_path / EVALUATION_FILE).write_text(evaluation.model_dump_json())
    assert replay(tmp_path) == decision


@pytest.mark.parametrize("num_items", [60, 400])
def test_a_candidate_no_better_than_the_champion_is_promoted_at_most_alpha_of_the_time(
    num_items: int,
) -> None:
    """600 A/A looks: at most 2.5 % promote, within three standard errors of that share (2.0 %).

    Only out-of-domain items, so that nothing but superiority stands in the way.
    """
    stream = random.Random(11)
    promoted = 0
    for _ in range(600):
        marks = {
            suite: [(stream.random() < 0.3, stream.random() < 0.3) for _ in range(num_items)]
            for suite in ("times", "mixed")
        }
        promoted += decide(evaluation_of(marks), THRESHOLDS).verdict is Verdict.PROMOTE
    assert promoted / 600 <= 0.025 + 0.02
