"""Known scores: the first writer's stay, and only what is known is found."""

from deltawheel.contracts.known_scores import KnownScores, scores_id
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

    def named(answer: str = "2", reasoning: str = "", *, slot: int = 0, judge: str = JUDGE) -> str:
        trace = a_trace(assignment, slot, answer=answer, reasoning=reasoning)
        return scores_id(trace, judge_revision=judge, rubric_digest="rubric")

    plain = named()
    assert plain == named(slot=1)
    elsewhere = a_trace(an_assignment(a_prompt("2+0=")), answer="2")
    others = [
        named("3"),
        named("", "2"),
        named(judge="judge@2"),
        scores_id(elsewhere, judge_revision=JUDGE, rubric_digest="rubric"),
        scores_id(a_trace(assignment, answer="2"), judge_revision=JUDGE, rubric_digest="other"),
    ]
    assert len({plain, *others}) == 6
    again = a_trace(an_assignment(a_prompt(round=1)), answer="2")
    assert scores_id(again, judge_revision=JUDGE, rubric_digest="rubric") == plain
