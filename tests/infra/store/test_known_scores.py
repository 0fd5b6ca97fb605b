"""Known scores: the first writer's stay, and only what is known is found."""

from deltawheel.contracts.known_scores import KnownScores, scores_id
from deltawheel.contracts.trace import Trace
from deltawheel.infra.store.store import SqlStore
from tests.records import JUDGE, a_prompt, a_trace, an_assignment, seconds, some_scores


def known(number: int = 0, level: float = 4.0) -> KnownScores:
    return KnownScores(
        scores_id=f"scores_{number}",
        judge="judge",
        judge_revision=JUDGE,
        scores=some_scores(level),
        scored_at=seconds(1),
    )


def test_first_writers_scores_stay_and_are_found_among_many(store: SqlStore) -> None:
    first = store.add_known_scores([known(number) for number in range(600)])
    assert store.add_known_scores([known(3, level=1.0), known(700)]) == [first[3], known(700)]
    ids = [f"scores_{number}" for number in (*range(600), 800)]
    assert store.known_scores(ids) == {each.scores_id: each for each in first}
    assert store.known_scores([]) == {}


def test_id_says_whose_text_it_is_under_what_and_not_who_wrote_it() -> None:
    assignment = an_assignment()

    def named(trace: Trace, **ways: str) -> str:
        as_usual = {"judge": "judge", "judge_revision": JUDGE, "rubric_digest": "rubric"}
        return scores_id(trace, **{**as_usual, **ways})

    one = a_trace(assignment, answer="2")
    others = [
        named(a_trace(assignment, answer="3")),
        named(a_trace(assignment, answer="", reasoning="2")),
        named(a_trace(an_assignment(a_prompt("2+0=")), answer="2")),
        named(one, judge="another"),
        named(one, judge_revision="judge@2"),
        named(one, rubric_digest="other"),
    ]
    assert len({named(one), *others}) == 7
    assert named(a_trace(assignment, 1, answer="2")) == named(one)
    again = a_trace(an_assignment(a_prompt(round=1)), answer="2")
    assert named(again) == named(one)
