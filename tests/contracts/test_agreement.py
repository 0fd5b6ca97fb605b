"""Agreement: what was scored together, panel by panel."""

from deltawheel.contracts.agreement import higher, panels
from deltawheel.contracts.judgement import Judgement, Opinion
from tests.records import a_judgement, a_prompt, a_rubric, a_trace, an_assignment, some_scores


def judged(number: int, *opinions: Opinion) -> Judgement:
    trace = a_trace(an_assignment(a_prompt(f"{number}+1=")))
    return a_judgement(trace).model_copy(update={"opinions": opinions})


def said(name: str, level: float | None, *, revision: str = "1") -> Opinion:
    scores = {} if level is None else some_scores(level)
    fault = "down" if level is None else None
    return Opinion(judge=name, judge_revision=f"{name}@{revision}", scores=scores, fault=fault)


def test_missing_opinions_are_counted_and_agreed_upon_by_the_others() -> None:
    rows = [
        judged(1, said("a", 4), said("b", 3), said("c", 2)),
        judged(2, said("a", 5), said("b", None), said("c", 1)),
    ]
    [panel] = panels(rows)
    assert panel.judges == ("a", "b", "c")
    assert panel.dimensions == list(a_rubric().dimensions)
    assert panel.num_missing == 1
    assert panel.scores("factuality") == [[4, 3, 2], [5, 1]]
    assert panel.pairs() == [(0, 1), (0, 2), (1, 2)]
    assert panel.both(0, 2, "factuality") == [[4, 2], [5, 1]]
    assert panel.both(0, 1, "factuality") == [[4, 3]]
    assert higher(panel.both(0, 2, "factuality")) == 3


def test_another_revision_or_rubric_is_another_panel_and_one_judge_is_none() -> None:
    rows = [
        judged(1, said("a", 4), said("b", 3)),
        judged(2, said("a", 4), said("b", 3, revision="2")),
        judged(3, said("a", 4), said("b", 3)).model_copy(update={"rubric_digest": "other"}),
        judged(4),
        judged(5, said("a", 4), said("b", 3)),
    ]
    found = panels(rows)
    assert [len(panel.opinions) for panel in found] == [2, 1, 1]
    assert [panel.revisions for panel in found] == [("a@1", "b@1"), ("a@1", "b@2"), ("a@1", "b@1")]
