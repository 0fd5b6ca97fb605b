"""Pairing: the better one is chosen, ties are no pairs, and a group has one outcome."""

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltawheel.contracts.judgement import Judgement, Score
from deltawheel.contracts.outcome import Outcome, UnpairedCause
from deltawheel.contracts.pair import PreferencePair
from deltawheel.contracts.rubric import PAPER_DIMENSIONS, Rubric
from deltawheel.contracts.store import Group, GroupEnd
from deltawheel.services.curation.pairing import form_pairs, group_end
from tests.records import (
    T0,
    a_generator,
    a_judgement,
    a_prompt,
    a_prompt_failure,
    a_rubric,
    a_slot_failure,
    a_trace,
    an_assignment,
    seconds,
    some_scores,
)
from tests.services.fakes import PANEL

Scores = Mapping[str, float]

GENERATORS = tuple(a_generator(name) for name in ("strong", "weak", "third"))
QUARTERS = st.integers(4, 20).map(lambda quarters: quarters / 4)
SCORES = st.fixed_dictionaries(dict.fromkeys(PAPER_DIMENSIONS, QUARTERS))
ORDERS = st.dictionaries(
    st.sampled_from(sorted(PAPER_DIMENSIONS)), st.integers(1, 3).map(Decimal), min_size=1
)
RUBRICS = st.builds(
    lambda order_by, tie: Rubric(order_by=order_by, tie_width=Decimal(tie) / 4),
    ORDERS,
    st.integers(0, 6),
)

unhurried = settings(deadline=None, max_examples=60)


def a_group(*scores: Scores | float | None, rubric: Rubric | None = None) -> Group:
    """Return a group whose slots have ended: judged so, or failed where there is None."""
    rubric = rubric or a_rubric()
    prompt = a_prompt()
    assignment = an_assignment(prompt, generators=GENERATORS[: len(scores)], rubric=rubric)
    traces = [a_trace(assignment, slot) for slot, score in enumerate(scores) if score is not None]
    return Group(
        prompt=prompt,
        opened_at=prompt.accepted_at,
        assignment=assignment,
        traces={trace.trace_id: trace for trace in traces},
        judgements=[
            a_judgement(
                trace,
                scores=in_full(scores[trace.slot]),
                judge_revision=PANEL,
                rubric=rubric,
            )
            for trace in traces
        ],
        slot_failures=[
            a_slot_failure(assignment, slot, reason=f"slot {slot} was cut off")
            for slot, score in enumerate(scores)
            if score is None
        ],
        ended_slots=frozenset(range(len(scores))),
    )


def in_full(scores: Scores | float | None) -> dict[str, Score]:
    if isinstance(scores, Mapping):
        return {name: Score(mean=mean) for name, mean in scores.items()}
    return some_scores(scores or 1.0)


def paired(group: Group, rubric: Rubric | None = None) -> list[PreferencePair]:
    return form_pairs(group, rubric or a_rubric(), at=seconds(9))


def ended(group: Group, failures: Mapping[str, tuple[str, ...]] | None = None) -> GroupEnd:
    return group_end(group, paired(group), failures or {}, rubric=a_rubric(), at=seconds(9))


def slots(pair: PreferencePair) -> tuple[int, int]:
    return pair.chosen.trace.slot, pair.rejected.trace.slot


def exact_lead(rubric: Rubric, first: Scores, second: Scores) -> Fraction:
    """Return by how much the first leads by `order_by`, without rounding."""
    weights = {name: Fraction(weight) for name, weight in rubric.order_by.items()}
    leads = (w * (Fraction(first[name]) - Fraction(second[name])) for name, w in weights.items())
    return sum(leads, Fraction(0)) / sum(weights.values(), Fraction(0))


@unhurried
@given(SCORES, SCORES, RUBRICS)
def test_better_by_order_by_is_chosen_unless_they_tie(
    first: Scores, second: Scores, rubric: Rubric
) -> None:
    lead = exact_lead(rubric, first, second)
    sides = [slots(pair) for pair in paired(a_group(first, second, rubric=rubric), rubric)]
    if abs(lead) <= Fraction(rubric.tie_width):
        assert sides == []
    else:
        assert sides == [(0, 1) if lead > 0 else (1, 0)]


@unhurried
@given(SCORES, SCORES, RUBRICS)
def test_pair_id_is_the_same_whichever_side_wins(
    first: Scores, second: Scores, rubric: Rubric
) -> None:
    one = paired(a_group(first, second, rubric=rubric), rubric)
    other = paired(a_group(second, first, rubric=rubric), rubric)
    assert [pair.pair_id for pair in one] == [pair.pair_id for pair in other]
    assert [slots(pair) for pair in one] == [slots(pair)[::-1] for pair in other]
    assert [pair.order_delta for pair in one] == [pair.order_delta for pair in other]


@unhurried
@given(SCORES, SCORES)
def test_deltas_are_chosen_minus_rejected_on_every_dimension(first: Scores, second: Scores) -> None:
    for pair in paired(a_group(first, second)):
        chosen, rejected = (first, second) if slots(pair) == (0, 1) else (second, first)
        leads = {name: chosen[name] - rejected[name] for name in PAPER_DIMENSIONS}
        assert {name: sample.delta for name, sample in pair.deltas.items()} == leads
        lead = exact_lead(a_rubric(), chosen, rejected)
        assert pair.order_delta == pytest.approx(float(lead))


@unhurried
@given(SCORES, SCORES)
def test_generator_deltas_sign_follows_the_chosen_side(first: Scores, second: Scores) -> None:
    group = a_group(first, second)
    assert group.assignment is not None
    believed = group.assignment.generator_delta
    assert believed.estimate == 1.0
    for pair in paired(group):
        estimate = 1.0 if pair.chosen.trace.generator == "strong" else -1.0
        assert pair.generator_delta == believed.model_copy(update={"estimate": estimate})


@unhurried
@given(st.lists(QUARTERS, min_size=3, max_size=3))
def test_every_two_judged_traces_that_differ_are_a_pair(levels: list[float]) -> None:
    pairs = paired(a_group(*levels))
    better = {pair for pair in permutations(range(3), 2) if levels[pair[0]] > levels[pair[1]]}
    assert {slots(pair) for pair in pairs} == better
    assert len({pair.pair_id for pair in pairs}) == len(pairs) == len(better)


def test_dimension_outside_order_by_decides_nothing() -> None:
    level = dict.fromkeys(PAPER_DIMENSIONS, 3.0)
    terse, right = {**level, "signal_to_noise": 5.0}, {**level, "factuality": 3.25}
    assert paired(a_group(terse, level)) == []
    [pair] = paired(a_group(terse, right))
    assert slots(pair) == (1, 0)
    assert pair.deltas["signal_to_noise"].delta == -2.0


def test_lead_of_the_tie_width_is_a_tie_and_a_little_more_is_not() -> None:
    rubric = Rubric(tie_width=Decimal("0.5"))
    assert paired(a_group(3.5, 3.0, rubric=rubric), rubric) == []
    [pair] = paired(a_group(3.5, 2.99, rubric=rubric), rubric)
    assert pair.order_delta == pytest.approx(0.51)


def test_pair_carries_prompt_times_and_rubric() -> None:
    group = a_group(4.0, 2.0)
    [pair] = paired(group)
    assert (pair.prompt, pair.rubric_digest) == (group.prompt, a_rubric().digest)
    assert (pair.accepted_at, pair.paired_at) == (group.prompt.accepted_at, seconds(9))
    assert [pair.chosen.judgement, pair.rejected.judgement] == group.judgements


@pytest.mark.parametrize("slot", [0, 1])
def test_failed_slot_never_enters_a_pair_though_a_judgement_came_late(slot: int) -> None:
    group = a_group(4.0, 2.0)
    assert len(paired(group)) == 1
    late = replace(group, slot_failures=[a_slot_failure(group.assignment, slot)])
    assert paired(late) == []
    assert ended(late).closing.outcome is Outcome.UNPAIRED


def with_judgement(group: Group, slot: int, judgement: Judgement) -> Group:
    judgements = list(group.judgements)
    judgements[slot] = judgement
    return replace(group, judgements=judgements)


@pytest.mark.parametrize("slot", [0, 1])
def test_judgement_under_another_rubric_never_enters_a_pair(slot: int) -> None:
    group = a_group(4.0, 2.0)
    foreign = group.judgements[slot].model_copy(update={"rubric_digest": Rubric(name="x").digest})
    assert paired(with_judgement(group, slot, foreign)) == []


@pytest.mark.parametrize("slot", [0, 1])
def test_judgement_of_another_judge_never_enters_a_pair(slot: int) -> None:
    group = a_group(4.0, 2.0)
    foreign = group.judgements[slot].model_copy(update={"judge_revision": "judge@2"})
    assert paired(with_judgement(group, slot, foreign)) == []


def test_group_of_another_rubric_than_the_settings_gives_no_pair() -> None:
    assert paired(a_group(4.0, 2.0, rubric=Rubric(name="older"))) == []


def test_judgement_without_its_trace_never_enters_a_pair() -> None:
    group = a_group(4.0, 2.0)
    [first, _] = group.traces
    assert paired(replace(group, traces={first: group.traces[first]})) == []


def test_group_that_nobody_was_asked_gives_no_pair() -> None:
    assert paired(replace(a_group(4.0, 2.0), assignment=None)) == []


def test_pair_that_passes_closes_its_group_as_paired() -> None:
    group = a_group(4.0, 2.0)
    end = ended(group)
    assert (end.closing.outcome, end.closing.reason) == (Outcome.PAIRED, "stored")
    assert (end.closing.key, end.closing.attempt) == (group.prompt.key, 1)
    assert end.closing.closed_at == seconds(9)
    assert (list(end.pairs), list(end.quarantined)) == (paired(group), [])


def test_one_pair_of_several_that_passes_makes_the_group_paired() -> None:
    group = a_group(5.0, 3.0, 1.0)
    failing, *passing = paired(group)
    end = ended(group, {failing.pair_id: ("texts-differ",)})
    assert end.closing.outcome is Outcome.PAIRED
    assert list(end.pairs) == passing
    assert [held.pair for held in end.quarantined] == [failing]


def test_group_whose_pairs_all_fail_is_quarantined_with_their_expectations() -> None:
    group = a_group(4.0, 2.0)
    [pair] = paired(group)
    end = ended(group, {pair.pair_id: ("texts-differ", "tokens-are-counted")})
    assert end.closing.outcome is Outcome.QUARANTINED
    assert list(end.pairs) == []
    [held] = end.quarantined
    assert (held.pair, held.quarantined_at) == (pair, seconds(9))
    assert held.expectations == ("texts-differ", "tokens-are-counted")


def test_failures_of_other_pairs_do_not_matter() -> None:
    assert ended(a_group(4.0, 2.0), {"pair_other": ("x",)}).closing.outcome is Outcome.PAIRED


def test_failing_pair_beside_a_failed_slot_is_quarantined_and_not_unpaired() -> None:
    group = a_group(4.0, 2.0, None)
    [pair] = paired(group)
    assert ended(group, {pair.pair_id: ("x",)}).closing.outcome is Outcome.QUARANTINED


@pytest.mark.parametrize(
    ("levels", "cause", "reason"),
    [
        ((3.0, 3.0), UnpairedCause.TIE, "tie"),
        ((3.0, None), UnpairedCause.SINGLE_SURVIVOR, "single survivor"),
        ((None, 3.0), UnpairedCause.SINGLE_SURVIVOR, "single survivor"),
        ((None, 3.0, 3.0), UnpairedCause.TIE, "tie"),
    ],
)
def test_judged_traces_without_a_pair_leave_the_group_unpaired(
    levels: tuple[float | None, ...], cause: UnpairedCause, reason: str
) -> None:
    closing = ended(a_group(*levels)).closing
    assert (closing.outcome, closing.cause) == (Outcome.UNPAIRED, cause)
    assert closing.reason == reason


def test_group_judged_under_another_rubric_than_the_settings_is_no_tie() -> None:
    closing = ended(a_group(4.0, 2.0, rubric=Rubric(name="older"))).closing
    assert (closing.outcome, closing.cause) == (Outcome.UNPAIRED, UnpairedCause.JUDGED_OTHERWISE)
    assert closing.reason.startswith("judged under another rubric or by another judge")


@pytest.mark.parametrize("level", [4.0, 2.0])
@pytest.mark.parametrize(
    "foreign", [{"judge_revision": "judge@2"}, {"rubric_digest": Rubric(name="x").digest}]
)
def test_two_survivors_of_which_one_was_judged_otherwise_are_no_tie(
    foreign: dict[str, str], level: float
) -> None:
    group = a_group(4.0, level)
    judged_otherwise = group.judgements[1].model_copy(update=foreign)
    closing = ended(with_judgement(group, 1, judged_otherwise)).closing
    assert (closing.outcome, closing.cause) == (Outcome.UNPAIRED, UnpairedCause.JUDGED_OTHERWISE)


def test_tie_of_two_is_a_tie_though_a_third_was_judged_otherwise() -> None:
    group = a_group(3.0, 3.0, 5.0)
    foreign = group.judgements[2].model_copy(update={"judge_revision": "judge@2"})
    assert ended(with_judgement(group, 2, foreign)).closing.cause is UnpairedCause.TIE


def test_survivor_is_single_whoever_judged_it() -> None:
    closing = ended(a_group(3.0, None, rubric=Rubric(name="older"))).closing
    assert closing.cause is UnpairedCause.SINGLE_SURVIVOR


def test_group_without_any_judged_trace_is_dead_lettered_with_its_reasons() -> None:
    closing = ended(a_group(None, None)).closing
    assert closing.outcome is Outcome.DEAD_LETTERED
    assert closing.reason == ("no slot gave a judged trace: slot 0 was cut off; slot 1 was cut off")


def test_prompt_that_nobody_was_asked_is_dead_lettered_with_its_reason() -> None:
    failure = a_prompt_failure(reason="the pool is empty")
    closing = ended(Group(prompt=a_prompt(), opened_at=T0, prompt_failure=failure)).closing
    assert (closing.outcome, closing.reason) == (Outcome.DEAD_LETTERED, "the pool is empty")


@unhurried
@given(st.lists(st.none() | QUARTERS, min_size=2, max_size=3), st.data())
def test_outcome_is_the_first_that_applies(levels: list[float | None], data: st.DataObject) -> None:
    group = a_group(*levels)
    ids = [pair.pair_id for pair in paired(group)]
    failing = data.draw(st.sets(st.sampled_from(ids)) if ids else st.just(set()))
    end = ended(group, dict.fromkeys(failing, ("x",)))
    if len(failing) < len(ids):
        expected = Outcome.PAIRED
    elif ids:
        expected = Outcome.QUARANTINED
    else:
        is_dead = all(level is None for level in levels)
        expected = Outcome.DEAD_LETTERED if is_dead else Outcome.UNPAIRED
    assert end.closing.outcome is expected
    assert {pair.pair_id for pair in end.pairs} == set(ids) - failing
    assert {held.pair.pair_id for held in end.quarantined} == failing
