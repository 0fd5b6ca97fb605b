import math
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deltawheel.contracts.generator import Generator
from deltawheel.contracts.ladder import Contest, Ladder, LadderEvidence, ProbeCount, UpdateBy
from tests.records import a_generator

MEMBERS = [
    a_generator("strong", capability=1.5, capability_stderr=0.7),
    a_generator("mid", capability=1.0, capability_stderr=0.4),
    a_generator("weak", capability=-0.5, capability_stderr=1.0),
]
STRONG, MID, WEAK = MEMBERS


def probed(member: Generator, num_right: int, num_items: int, domain: str = "sums") -> ProbeCount:
    return ProbeCount(
        reference=member.reference, domain=domain, num_items=num_items, num_right=num_right
    )


def contest(first: Generator, second: Generator, wins: int, losses: int, ties: int = 0) -> Contest:
    return Contest(
        first=first.reference,
        second=second.reference,
        domain="sums",
        wins=wins,
        losses=losses,
        ties=ties,
    )


def a_ladder(
    *evidence: ProbeCount | Contest,
    members: list[Generator] = MEMBERS,
    update_by: UpdateBy = UpdateBy.PROBE,
    domain: str = "sums",
) -> Ladder:
    return Ladder.of(
        members,
        domain=domain,
        evidence=LadderEvidence(
            probes=[it for it in evidence if isinstance(it, ProbeCount)],
            contests=[it for it in evidence if isinstance(it, Contest)],
        ),
        update_by=update_by,
        pool_revision="pool_1",
    )


@pytest.mark.parametrize("update_by", UpdateBy)
def test_no_evidence_gives_the_prior_back(update_by: UpdateBy) -> None:
    ladder = a_ladder(update_by=update_by)
    for member in MEMBERS:
        rating = ladder.ratings[member.reference]
        assert (rating.estimate, rating.stderr) == rating.prior
        assert rating.probe is None
        assert rating.judged is None
    delta = ladder.delta(STRONG, WEAK)
    assert delta.estimate == pytest.approx(2.0)
    assert delta.stderr == pytest.approx(math.hypot(0.7, 1.0))
    assert (delta.scale, delta.ladder_revision) == ("declared-prior", "pool_1")


@given(
    items=st.integers(1, 60).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n - 1))),
    others=st.lists(st.integers(0, 40), min_size=2, max_size=2),
)
def test_more_right_answers_never_lower_the_estimate(
    items: tuple[int, int], others: list[int]
) -> None:
    num_items, right = items
    rest = [probed(MID, others[0], 40), probed(WEAK, others[1], 40)]
    fewer = a_ladder(probed(STRONG, right, num_items), *rest)
    more = a_ladder(probed(STRONG, right + 1, num_items), *rest)
    reference = STRONG.reference
    assert more.ratings[reference].estimate >= fewer.ratings[reference].estimate - 1e-6


@given(num_items=st.integers(4, 200), share=st.sampled_from([0.25, 0.5, 0.75]))
def test_errors_shrink_with_items(num_items: int, share: float) -> None:
    def stderr(number: int) -> float:
        right = round(number * share)
        return a_ladder(*(probed(it, right, number) for it in MEMBERS)).delta(STRONG, WEAK).stderr

    assert stderr(4 * num_items) < stderr(num_items) < a_ladder().delta(STRONG, WEAK).stderr


@example(offset=4.0, right=[0, 1, 0])
@given(offset=st.floats(-5, 5), right=st.lists(st.integers(0, 30), min_size=3, max_size=3))
def test_a_common_offset_of_the_priors_cancels(offset: float, right: list[int]) -> None:
    moved = [it.model_copy(update={"capability": it.capability + offset}) for it in MEMBERS]
    counts = [probed(it, number, 30) for it, number in zip(MEMBERS, right, strict=True)]
    here, there = a_ladder(*counts), a_ladder(*counts, members=moved)
    one, other = here.delta(STRONG, WEAK), there.delta(moved[0], moved[2])
    assert other.estimate == pytest.approx(one.estimate, abs=1e-6)
    assert other.stderr == pytest.approx(one.stderr, abs=1e-6)


def test_an_easy_domain_makes_nobody_more_capable() -> None:
    def moved(right: int) -> float:
        ladder = a_ladder(*(probed(it, right, 50) for it in (STRONG, WEAK)))
        return sum(ladder.ratings[it.reference].estimate for it in (STRONG, WEAK))

    easy, hard = moved(45), moved(5)
    assert easy == pytest.approx(hard, abs=0.3)


def test_one_who_is_probed_alone_shows_nothing_of_the_others() -> None:
    rating = a_ladder(probed(STRONG, 50, 50)).ratings[STRONG.reference]
    assert rating.estimate == pytest.approx(1.5, abs=1e-6)
    assert rating.stderr == pytest.approx(0.7, abs=1e-6)


def test_a_probe_overturns_a_wrong_prior() -> None:
    ladder = a_ladder(probed(WEAK, 190, 200), probed(STRONG, 40, 200))
    assert ladder.ranked([STRONG, WEAK]) == [WEAK, STRONG]
    assert ladder.delta(WEAK, STRONG).scale == "declared-prior+probe"
    assert ladder.delta(WEAK, STRONG).ladder_revision != "pool_1"


def test_evidence_of_another_domain_or_revision_says_nothing() -> None:
    other = a_generator("strong", revision="r2")
    ladder = a_ladder(probed(STRONG, 1, 50, domain="products"), probed(other, 1, 50))
    assert ladder.ratings == a_ladder().ratings


def test_judged_work_is_shown_and_changes_no_estimate_unless_told_to() -> None:
    wins = contest(WEAK, STRONG, wins=80, losses=5)
    shown = a_ladder(wins)
    judged = [shown.ratings[it.reference].judged for it in (WEAK, STRONG)]
    assert judged[0] is not None
    assert judged[1] is not None
    assert judged[0].mean > judged[1].mean
    assert shown.delta(STRONG, WEAK) == a_ladder().delta(STRONG, WEAK)
    updated = a_ladder(wins, update_by=UpdateBy.JUDGED)
    assert updated.ranked([STRONG, WEAK]) == [WEAK, STRONG]
    assert updated.scale == "declared-prior+judged"


ROWS = st.lists(
    st.tuples(st.permutations(MEMBERS), st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)),
    max_size=6,
)


@given(rows=ROWS, order=st.randoms())
def test_judged_work_has_no_order(
    rows: list[tuple[list[Generator], int, int, int]], order: random.Random
) -> None:
    contests = [contest(it[0], it[1], wins, losses, ties) for it, wins, losses, ties in rows]
    turned = [contest(it[1], it[0], losses, wins, ties) for it, wins, losses, ties in rows]
    order.shuffle(turned)
    assert a_ladder(*contests, update_by=UpdateBy.JUDGED) == a_ladder(
        *turned, update_by=UpdateBy.JUDGED
    )


def test_who_only_ties_are_equals() -> None:
    rating = a_ladder(contest(STRONG, WEAK, 0, 0, ties=60)).ratings
    strong, weak = rating[STRONG.reference].judged, rating[WEAK.reference].judged
    assert strong is not None
    assert weak is not None
    assert strong.mean == pytest.approx(weak.mean)


def test_the_revision_follows_the_evidence_that_counts() -> None:
    first, same = a_ladder(probed(MID, 3, 9)), a_ladder(probed(MID, 2, 4), probed(MID, 1, 5))
    assert first.revision == same.revision
    assert a_ladder(probed(MID, 4, 9)).revision != first.revision
    assert a_ladder(probed(MID, 3, 9), contest(MID, WEAK, 1, 0)).revision == first.revision
    assert a_ladder(probed(MID, 3, 9), update_by=UpdateBy.NONE).revision == "pool_1"


def a_world(seed: int) -> tuple[list[Generator], dict[str, float], list[Contest]]:
    """Members whose capabilities are drawn around equal priors, and their judged work."""
    draw = random.Random(seed)
    members = [a_generator(f"m{n}", capability=0.0, capability_stderr=1.0) for n in range(5)]
    truth = {it.reference: draw.gauss(0.0, 1.0) for it in members}
    contests = []
    for n, first in enumerate(members):
        for second in members[n + 1 :]:
            odds = truth[first.reference] - truth[second.reference]
            wins = sum(draw.random() < 1 / (1 + math.exp(-odds)) for _ in range(40))
            contests.append(contest(first, second, wins, 40 - wins))
    return members, truth, contests


def test_judged_work_recovers_a_simulated_world_and_its_errors_are_honest() -> None:
    covered = total = 0
    for seed in range(40):
        members, truth, contests = a_world(seed)
        ladder = a_ladder(*contests, members=members, update_by=UpdateBy.JUDGED)
        for n, first in enumerate(members):
            for second in members[n + 1 :]:
                delta = ladder.delta(first, second)
                gap = truth[first.reference] - truth[second.reference]
                total += 1
                covered += abs(delta.estimate - gap) <= 1.96 * delta.stderr
                if abs(gap) > 1.5:
                    assert (delta.estimate > 0) == (gap > 0)
    assert 0.91 <= covered / total <= 0.99


def test_probes_recover_a_simulated_world_and_their_errors_are_honest() -> None:
    covered = total = 0
    for seed in range(60):
        members, truth, _ = a_world(seed)
        draw, ease = random.Random(-seed), random.Random(-seed).gauss(0.0, 1.0)
        counts = [
            probed(
                it,
                sum(
                    draw.random() < 1 / (1 + math.exp(-truth[it.reference] - ease))
                    for _ in range(50)
                ),
                50,
            )
            for it in members
        ]
        ladder = a_ladder(*counts, members=members)
        for second in members[1:]:
            delta = ladder.delta(members[0], second)
            gap = truth[members[0].reference] - truth[second.reference]
            total += 1
            covered += abs(delta.estimate - gap) <= 1.96 * delta.stderr
    assert 0.90 <= covered / total <= 0.99


@settings(max_examples=30)
@given(size=st.integers(2, 8), right=st.integers(0, 1_000))
def test_any_counts_give_finite_ratings(size: int, right: int) -> None:
    members = [a_generator(f"m{n}", capability_stderr=0.0 if n else 3.0) for n in range(size)]
    ladder = a_ladder(*(probed(it, right, 1_000) for it in members), members=members)
    assert all(math.isfinite(it.estimate + it.stderr) for it in ladder.ratings.values())
