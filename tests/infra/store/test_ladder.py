"""Probes, and judged work read from pairs and ties."""

from deltawheel.contracts.ladder import Contest
from deltawheel.contracts.outcome import Outcome
from deltawheel.contracts.probe import Probe, counted
from deltawheel.contracts.store import GroupEnd
from deltawheel.infra.store.store import SqlStore
from tests.infra.store.stored import add_judged, open_next
from tests.records import a_closing, a_pair, a_paired_end, a_probe, a_prompt, seconds

STRONG, WEAK = "strong@r1", "weak@r1"


def test_probes_come_back_oldest_first(store: SqlStore) -> None:
    late, early = a_probe(at=seconds(20)), a_probe(at=seconds(10), num_right=3)
    assert store.add_probes([late, early]) == [late, early]
    assert store.probes() == [early, late]


def test_first_writer_of_a_probe_wins(store: SqlStore) -> None:
    first = a_probe(num_right=3)
    store.add_probes([first])
    assert store.add_probes([a_probe(num_right=9)]) == [first]
    assert store.add_probes([]) == []


def test_another_wheels_probes_are_its_own(store: SqlStore, url: str) -> None:
    store.add_probes([a_probe()])
    other = SqlStore(url, wheel="other")
    assert other.probes() == []
    assert other.add_probes([a_probe(num_right=1)])[0].num_right == 1
    other.close()


def test_of_the_same_prompts_the_newest_answers_count(store: SqlStore) -> None:
    again: list[Probe] = [a_probe(at=seconds(30), num_right=9), a_probe(at=seconds(10))]
    store.add_probes([*again, a_probe(items_id="others", num_right=2)])
    assert sorted(it.num_right for it in counted(store.probes())) == [2, 9]


def test_judged_work_is_of_exact_revisions_and_domains(store: SqlStore) -> None:
    for text, domain in (("1+1=", "sums"), ("2+2=", "sums"), ("2*2=", "products")):
        prompt = add_judged(store, a_prompt(text, domain=domain))
        store.close_groups([a_paired_end(a_pair(prompt))])
    assert store.judged_work() == [
        Contest(first=STRONG, second=WEAK, domain="products", wins=1, losses=0),
        Contest(first=STRONG, second=WEAK, domain="sums", wins=2, losses=0),
    ]


def test_ties_are_judged_work_until_they_are_tried_again(store: SqlStore) -> None:
    tied, replayed = add_judged(store), add_judged(store, a_prompt("2+2="))
    store.close_groups(
        [GroupEnd(closing=a_closing(it, outcome=Outcome.UNPAIRED)) for it in (tied, replayed)]
    )
    assert [it.ties for it in store.judged_work()] == [2]
    open_next(store, replayed)
    assert [it.ties for it in store.judged_work()] == [1]
