"""Counts, and evidence from which the audit derives each outcome."""

from deltawheel.contracts.audit import derive_outcome, examine
from deltawheel.contracts.outcome import Outcome, UnpairedCause
from deltawheel.contracts.store import GroupEnd, Store
from tests.infra.store.stored import add_asked, add_judged, open_next
from tests.records import (
    T0,
    a_closing,
    a_pair,
    a_paired_end,
    a_prompt,
    a_prompt_failure,
    a_quarantined_end,
    a_quarantined_pair,
    a_slot_failure,
    a_trace,
    an_assignment,
    seconds,
)


def test_progress_of_an_empty_wheel_is_nothing_and_drained(store: Store) -> None:
    progress = store.progress()
    assert (progress.prompts, progress.completion_tokens, progress.outcomes) == (0, 0, {})
    assert progress.is_drained


def test_progress_counts_what_is_there(store: Store) -> None:
    add_judged(store)
    waiting = add_asked(store, a_prompt("2+2=", accepted_at=seconds(50)))
    store.add_slot_failures([a_slot_failure(an_assignment(waiting))])
    store.close_groups([a_paired_end()])
    progress = store.progress()
    assert (progress.prompts, progress.assigned, progress.traces) == (2, 2, 2)
    assert (progress.judgements, progress.slot_failures, progress.closed) == (2, 1, 1)
    assert progress.completion_tokens == 2 * len("1+1=2")
    assert progress.oldest_open_at == seconds(50)
    assert not progress.is_drained


def test_evidence_derives_the_outcome_that_is_stored(store: Store) -> None:
    paired, dead, odd, waiting = (
        add_judged(store, a_prompt("paired")),
        a_prompt("dead"),
        add_judged(store, a_prompt("odd")),
        add_asked(store, a_prompt("waiting")),
    )
    store.add_prompts([dead])
    store.add_prompt_failures([a_prompt_failure(dead)])
    store.close_groups(
        [
            a_paired_end(a_pair(paired)),
            a_quarantined_end(a_quarantined_pair(a_pair(odd))),
            GroupEnd(closing=a_closing(dead, outcome=Outcome.DEAD_LETTERED)),
        ]
    )
    rows = {row.key: row for row in store.evidence()}
    derived = {key: derive_outcome(row) for key, row in rows.items()}
    assert derived == {
        paired.key: Outcome.PAIRED,
        dead.key: Outcome.DEAD_LETTERED,
        odd.key: Outcome.QUARANTINED,
        waiting.key: None,
    }
    audit = examine(rows.values())
    assert audit.is_clean
    assert audit.in_flight == 1
    row = rows[paired.key]
    assert (row.num_slots, row.traces, row.judgements) == (2, 2, 2)
    assert (row.ended_slots, row.judged_slots) == (2, 2)
    assert (row.opened_at, rows[waiting.key].opened_at) == (None, T0)


def test_evidence_may_be_left_half_read(store: Store) -> None:
    for number in range(5):
        add_asked(store, a_prompt(f"{number}+1="))
    rows = store.evidence()
    next(rows)
    rows.close()  # type: ignore[attr-defined]
    assert len(list(store.evidence())) == 5


def test_current_attempt_is_what_counts(store: Store) -> None:
    prompt = add_judged(store)
    store.close_groups([GroupEnd(closing=a_closing(prompt, outcome=Outcome.UNPAIRED))])
    open_next(store, prompt)
    (row,) = store.evidence()
    assert (row.outcome, store.progress().outcomes) == (None, {})
    store.close_groups([GroupEnd(closing=a_closing(prompt, attempt=2), pairs=(a_pair(prompt),))])
    (row,) = store.evidence()
    assert row.outcome == Outcome.PAIRED.value
    assert store.progress().outcomes == {Outcome.PAIRED: 1}


def test_progress_tells_unpaired_prompts_apart_by_cause(store: Store) -> None:
    for number, cause in enumerate([UnpairedCause.TIE, UnpairedCause.TIE, *UnpairedCause]):
        prompt = add_judged(store, a_prompt(f"{number}+1="))
        end = a_closing(prompt, outcome=Outcome.UNPAIRED, cause=cause)
        store.close_groups([GroupEnd(closing=end)])
    add_judged(store, a_prompt("open"))
    progress = store.progress()
    assert progress.unpaired == {
        UnpairedCause.TIE: 3,
        UnpairedCause.SINGLE_SURVIVOR: 1,
        UnpairedCause.JUDGED_OTHERWISE: 1,
    }
    assert progress.outcomes == {Outcome.UNPAIRED: 5}
    assert (progress.closed, progress.is_drained) == (5, False)


def test_unpaired_attempt_that_was_superseded_counts_under_no_cause(store: Store) -> None:
    prompt = add_judged(store)
    store.close_groups([GroupEnd(closing=a_closing(prompt, outcome=Outcome.UNPAIRED))])
    assert store.progress().tie_share == 1
    open_next(store, prompt)
    single = a_closing(
        prompt, outcome=Outcome.UNPAIRED, cause=UnpairedCause.SINGLE_SURVIVOR, attempt=2
    )
    store.close_groups([GroupEnd(closing=single)])
    progress = store.progress()
    assert progress.unpaired == {UnpairedCause.SINGLE_SURVIVOR: 1}
    assert progress.tie_share == 0


def test_shares_are_of_closed_prompts_and_nothing_while_none_is(store: Store) -> None:
    assert (store.progress().share(Outcome.PAIRED), store.progress().tie_share) == (0, 0)
    add_asked(store, a_prompt("open"))
    assert store.progress().share(Outcome.PAIRED) == 0
    for text in ("one", "two", "three"):
        store.close_groups([a_paired_end(a_pair(add_judged(store, a_prompt(text))))])
    odd = a_quarantined_pair(a_pair(add_judged(store, a_prompt("odd"))))
    store.close_groups([a_quarantined_end(odd)])
    progress = store.progress()
    assert (progress.share(Outcome.PAIRED), progress.share(Outcome.QUARANTINED)) == (0.75, 0.25)
    assert progress.share(Outcome.DEAD_LETTERED) == 0


def test_tokens_are_counted_by_generator_and_from_a_time_on(store: Store) -> None:
    early, late = add_asked(store), add_asked(store, a_prompt("2+2="))
    store.add_traces(
        [
            a_trace(an_assignment(early), 0, completion_tokens=10, generated_at=seconds(2)),
            a_trace(an_assignment(early), 1, completion_tokens=7, generated_at=seconds(2)),
            a_trace(an_assignment(late), 0, completion_tokens=5, generated_at=seconds(9)),
        ]
    )
    strong, weak = store.member_tokens()
    assert (strong.generator, strong.num_traces, strong.completion_tokens) == ("strong", 2, 15)
    assert (weak.generator, weak.prompt_tokens, weak.tokens) == ("weak", 4, 11)
    [since] = store.member_tokens(since=seconds(9))
    assert (since.generator, since.tokens) == ("strong", 9)
    assert store.member_tokens(since=seconds(10)) == []
