from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from deltawheel.contracts.judgement import Score
from deltawheel.contracts.pair import SampleDelta
from deltawheel.contracts.rubric import PAPER_DIMENSIONS, Rubric
from tests.records import a_judgement, a_rubric, some_scores

SMALL: dict[str, Any] = {
    "name": "small",
    "dimensions": {"right": "Is it right?", "short": "Is it short?"},
    "order_by": {"right": Decimal(1)},
    "tie_width": Decimal("0.5"),
}
marks = st.builds(Score, mean=st.floats(1, 5), variance=st.floats(0, 10))
sheets = st.fixed_dictionaries({name: marks for name in PAPER_DIMENSIONS})


def a_small_rubric(**changes: Any) -> Rubric:
    return Rubric(**{**SMALL, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "other"},
        {"dimensions": {"right": "Is it correct?", "short": "Is it short?"}},
        {"dimensions": {"right": "Is it right?"}},
        {"dimensions": {**SMALL["dimensions"], "kind": "Is it kind?"}},
        {"order_by": {"short": Decimal(1)}},
        {"order_by": {"right": Decimal(1), "short": Decimal(1)}},
        {"order_by": {"right": Decimal(2)}},
        {"tie_width": Decimal("0.6")},
    ],
)
def test_whatever_could_change_a_score_or_a_side_changes_the_digest(
    changes: dict[str, Any],
) -> None:
    assert a_small_rubric(**changes).digest != a_small_rubric().digest


@pytest.mark.parametrize(
    "same",
    [
        {"dimensions": dict(reversed(SMALL["dimensions"].items()))},
        {"tie_width": Decimal("0.50")},
        {"order_by": {"right": Decimal("1.0")}},
        {"comment": "a key of a later version"},
    ],
)
def test_what_means_the_same_has_the_same_digest(same: dict[str, Any]) -> None:
    assert a_small_rubric(**same).digest == a_small_rubric().digest


def test_order_of_dimensions_counts_only_where_a_model_is_asked_in_it() -> None:
    names = {"a": "Is it?", "b": "Does it?"}
    turned = dict(reversed(names.items()))
    means = {name: dict.fromkeys("12345", "so") for name in names}
    weights = {"a": 1}

    def digest(**fields: object) -> str:
        return Rubric.model_validate({"order_by": weights, **fields}).digest

    assert digest(dimensions=names) == digest(dimensions=turned)
    assert digest(dimensions=names, anchors=means) != digest(dimensions=turned, anchors=means)


def test_digest_survives_the_wire() -> None:
    rubric = a_small_rubric()
    assert Rubric.model_validate_json(rubric.model_dump_json()).digest == rubric.digest


@given(sheets, sheets)
def test_deltas_are_antisymmetric(first: dict[str, Score], second: dict[str, Score]) -> None:
    rubric = a_rubric()
    one, other = a_judgement(scores=first), a_judgement(scores=second)
    forth, back = rubric.deltas(one, other), rubric.deltas(other, one)
    assert forth.keys() == set(PAPER_DIMENSIONS)
    for name, delta in forth.items():
        assert delta.delta == -back[name].delta
        assert delta.variance == back[name].variance
    assert rubric.order_delta(forth) == -rubric.order_delta(back)
    assert rubric.is_tie(rubric.order_delta(forth)) == rubric.is_tie(rubric.order_delta(back))


weights = st.decimals("0.001", 10, places=3)


@given(
    st.dictionaries(st.sampled_from(sorted(PAPER_DIMENSIONS)), weights, min_size=1),
    st.sampled_from([4.0, -4.0]),
)
@example({"factuality": Decimal("0.1"), "step_coherence": Decimal("0.2")}, 4.0)
@example({"factuality": Decimal("0.2"), "step_coherence": Decimal("0.4")}, -4.0)
def test_no_rounding_makes_an_order_delta_larger_than_a_delta_can_be(
    order_by: dict[str, Decimal], most: float
) -> None:
    deltas = {name: SampleDelta(delta=most) for name in PAPER_DIMENSIONS}
    order_delta = Rubric(order_by=order_by).order_delta(deltas)
    assert abs(order_delta) <= 4
    assert order_delta == pytest.approx(most)


@given(sheets)
def test_trace_is_no_better_than_itself(sheet: dict[str, Score]) -> None:
    rubric = a_rubric()
    deltas = rubric.deltas(a_judgement(scores=sheet), a_judgement(scores=sheet))
    assert {delta.delta for delta in deltas.values()} == {0.0}
    assert rubric.is_tie(rubric.order_delta(deltas))


def test_delta_is_first_minus_second_and_variances_add() -> None:
    first = some_scores(4.0) | {"factuality": Score(mean=4.5, variance=0.25)}
    second = some_scores(3.0) | {"factuality": Score(mean=2.0, variance=0.5)}
    deltas = a_rubric().deltas(a_judgement(scores=first), a_judgement(scores=second))
    assert (deltas["factuality"].delta, deltas["factuality"].variance) == (2.5, 0.75)
    assert (deltas["strategy_coherence"].delta, deltas["strategy_coherence"].variance) == (1.0, 0.0)


def test_order_delta_is_the_weighted_mean_of_the_named_dimensions_only() -> None:
    rubric = a_small_rubric(order_by={"right": Decimal(3), "short": Decimal(1)})
    first = a_judgement(rubric=rubric, scores=some_scores(4, rubric=rubric, short=1))
    second = a_judgement(rubric=rubric, scores=some_scores(2, rubric=rubric, short=5))
    assert rubric.order_delta(rubric.deltas(first, second)) == pytest.approx((3 * 2 - 4) / 4)
    only_right = a_small_rubric()
    assert only_right.order_delta(only_right.deltas(first, second)) == pytest.approx(2)


@pytest.mark.parametrize(
    ("order_delta", "is_tie"),
    [(0.0, True), (0.5, True), (-0.5, True), (0.5 + 1e-10, True), (0.51, False), (-0.51, False)],
)
def test_difference_within_the_tie_width_is_a_tie(order_delta: float, is_tie: bool) -> None:
    assert a_small_rubric().is_tie(order_delta) is is_tie


def test_without_tie_width_only_rounding_is_forgiven() -> None:
    rubric = a_small_rubric(tie_width=0)
    assert rubric.is_tie(1e-10)
    assert not rubric.is_tie(1e-6)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"order_by": {"charm": 1}}, r"order_by names \['charm'\], but the dimensions are"),
        ({"order_by": {"right": 0}}, "every weight in order_by must be above 0"),
        ({"order_by": {"right": -1}}, "every weight in order_by must be above 0"),
        ({"order_by": {"right": "NaN"}}, "finite number"),
        ({"order_by": {}}, "at least 1 item"),
        ({"dimensions": {}}, "at least 1 item"),
        ({"tie_width": -1}, "greater than or equal to 0"),
        ({"tie_width": 5}, "less than or equal to 4"),
    ],
)
def test_rubric_that_could_not_decide_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        a_small_rubric(**changes)
