"""Generation: who is asked is stored first, and a redelivered prompt asks only for the rest."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from deltawheel.contracts.assignment import Assignment
from deltawheel.contracts.errors import ForeignModelError, InvalidRecordError, RetryLaterError
from deltawheel.contracts.failpoints import Failpoint
from deltawheel.contracts.generator import Generator, PoolEvent, PoolEventKind
from deltawheel.contracts.ids import seed_of
from deltawheel.contracts.judgement import PromptFailed, SlotFailed
from deltawheel.contracts.pool import Pool
from deltawheel.contracts.ports import Completion
from deltawheel.contracts.promotion import Promotion
from deltawheel.contracts.prompt import Prompt
from deltawheel.contracts.record import Record
from deltawheel.contracts.settings import GenerationSettings, Settings
from deltawheel.contracts.store import PAUSE_LEASE, Store
from deltawheel.contracts.trace import Trace
from deltawheel.infra.store.store import SqlStore
from deltawheel.infra.telemetry import PrometheusTelemetry
from deltawheel.services.generation.handler import Generation
from tests.records import (
    WHEEL,
    a_generator,
    a_pool_event,
    a_probe,
    a_promotion,
    a_prompt,
    a_prompt_failure,
    a_slot_failure,
    a_trace,
    an_assignment,
    seconds,
)
from tests.services.fakes import (
    PANEL,
    FakeClock,
    FakeFailpoints,
    FakeModels,
    KilledError,
    a_completion,
    add_asked,
    die,
    held,
    metric,
)

SETTINGS = Settings(wheel=WHEEL, generation=GenerationSettings(expire_after_s=600))


class Stage:
    """Generation over a store whose pool has a strong and a weak member."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.models = FakeModels()
        self.clock = FakeClock()
        self.telemetry = PrometheusTelemetry()
        self.failpoints = FakeFailpoints()
        self.dealt: list[set[str]] = []
        self.store.add_pool_events([a_pool_event(a_generator(name)) for name in ("strong", "weak")])
        self.handler = self.another()

    def another(self, store: Store | None = None) -> Generation:
        """Return a member of the same service; it has read nothing yet."""
        return Generation(
            settings=SETTINGS,
            store=store or self.store,
            models=self.models,
            judge_revision=PANEL,
            clock=self.clock,
            telemetry=self.telemetry,
            failpoints=self.failpoints,
            on_dealt=lambda generators: self.dealt.append({each.name for each in generators}),
        )

    def accept(self, prompt: Prompt | None = None) -> Prompt:
        [stored] = self.store.add_prompts([prompt or a_prompt()])
        return stored

    def promote(self) -> Promotion:
        """Decide on a promotion, as a cycle does before it announces it."""
        return self.store.add_promotion(a_promotion())

    def drain(self, name: str) -> None:
        event = a_pool_event(a_generator(name), kind=PoolEventKind.DRAINED, cause="an operator")
        self.store.add_pool_events([event])

    def assignment(self, prompt: Prompt) -> Assignment:
        assignment = held(self.store, prompt).assignment
        assert assignment is not None
        return assignment

    def num_found(self, effect: str) -> float | None:
        return metric(self.telemetry, "deltawheel_effects_found_total", effect=effect)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'store.db'}"


@pytest.fixture
def stage(url: str) -> Iterator[Stage]:
    with closing(SqlStore(url, wheel=WHEEL)) as store:
        yield Stage(store)


def refusing(name: str, error: Exception) -> FakeModels:
    """Return models that all answer but one."""

    def answer(generator: Generator) -> Completion:
        if generator.name == name:
            raise error
        return a_completion()

    return FakeModels(answer)


def slots_of(records: Sequence[Record]) -> list[tuple[int, str]]:
    traces = [record for record in records if isinstance(record, Trace)]
    assert len(traces) == len(records)
    return [(trace.slot, trace.generator) for trace in traces]


async def test_prompt_is_answered_by_two_and_their_traces_returned_as_stored(stage: Stage) -> None:
    prompt = stage.accept()
    events = await stage.handler.handle(prompt)
    assert slots_of(events) == [(0, "strong"), (1, "weak")]
    assert list(held(stage.store, prompt).traces.values()) == events
    assert stage.models.messages == [prompt.messages, prompt.messages]


async def test_who_is_dealt_to_is_told_of_before_anybody_is_asked_and_when_that_changes(
    stage: Stage,
) -> None:
    dealt, late = stage.accept(), stage.accept(a_prompt("2+2="))
    stage.store.add_assignments([an_assignment(dealt)])
    stage.models = refusing("strong", RetryLaterError("busy"))
    member = stage.another()
    with pytest.raises(RetryLaterError):
        await member.handle(dealt)
    assert stage.dealt == [{"strong", "weak"}]
    stage.drain("weak")
    stage.clock.wait(2)
    with pytest.raises(RetryLaterError, match="no two generators"):
        await member.handle(late)
    assert stage.dealt[1:] == [set()]


async def test_assignment_is_stored_before_the_first_model_call(stage: Stage) -> None:
    prompt, assigned = stage.accept(), []

    def answer(generator: Generator) -> Completion:
        assigned.append(stage.assignment(prompt))
        return a_completion()

    stage.models.answer = answer
    await stage.handler.handle(prompt)
    assert assigned == [stage.assignment(prompt)] * 2


async def test_assignment_fixes_all_that_decides_the_outcome(stage: Stage) -> None:
    prompt = stage.accept()
    await stage.handler.handle(prompt)
    plan = stage.assignment(prompt)
    assert [slot.generator for slot in plan.slots] == [a_generator("strong"), a_generator("weak")]
    assert plan.judge_revisions == (PANEL,)
    assert plan.rubric_digest == SETTINGS.make_rubric().digest
    assert plan.generator_delta.estimate == 1.0
    assert plan.generator_delta.ladder_revision == Pool.from_log(stage.store.pool_log()).revision
    assert (plan.policy, plan.accepted_at) == ("round-robin", prompt.accepted_at)
    assert plan.assigned_at == stage.clock.at
    assert plan.expires_at == stage.clock.at + timedelta(seconds=600)


async def test_killed_after_assigning_it_asks_the_same_two_when_the_prompt_comes_again(
    stage: Stage,
) -> None:
    prompt = stage.accept()
    stage.failpoints.act = die
    with pytest.raises(KilledError):
        await stage.handler.handle(prompt)
    assert stage.failpoints.reached == [(Failpoint.GENERATION_ASSIGNED, prompt.prompt_id)]
    assert stage.models.asked == []
    plan = stage.assignment(prompt)
    stage.drain("weak")
    assert slots_of(await stage.another().handle(prompt)) == [(0, "strong"), (1, "weak")]
    assert stage.assignment(prompt) == plan


async def test_redelivered_prompt_reads_its_assignment_though_the_pool_has_changed(
    stage: Stage,
) -> None:
    prompt = add_asked(stage.store)
    stage.drain("strong")
    stage.drain("weak")
    stage.store.add_pool_events([a_pool_event(a_generator(name)) for name in ("new", "newer")])
    await stage.handler.handle(prompt)
    assert stage.models.names_asked == ["strong", "weak"]
    assert stage.assignment(prompt) == an_assignment(prompt)


async def test_redelivered_prompt_asks_only_for_the_missing_slot(stage: Stage) -> None:
    prompt = add_asked(stage.store)
    trace = stage.store.add_traces([a_trace()])[0]
    first, second = await stage.handler.handle(prompt)
    assert first == trace
    assert slots_of([second]) == [(1, "weak")]
    assert stage.models.names_asked == ["weak"]
    assert stage.num_found("trace") == 1


async def test_answered_prompt_asks_nobody_again_and_counts_no_token_twice(stage: Stage) -> None:
    prompt = stage.accept()
    events = await stage.handler.handle(prompt)
    assert await stage.another().handle(prompt) == events
    assert stage.models.names_asked == ["strong", "weak"]
    assert stage.num_found("trace") == 2
    tokens = metric(stage.telemetry, "deltawheel_completion_tokens_total", generator="weak")
    assert tokens == a_completion().completion_tokens


async def test_slot_that_has_failed_is_not_asked_again(stage: Stage) -> None:
    prompt = add_asked(stage.store)
    failure = stage.store.add_slot_failures([a_slot_failure(slot=1)])[0]
    first, second = await stage.handler.handle(prompt)
    assert slots_of([first]) == [(0, "strong")]
    assert second == failure
    assert stage.models.names_asked == ["strong"]
    assert stage.num_found("slot_failure") == 1


async def test_trace_that_another_member_stored_first_is_the_one_returned(stage: Stage) -> None:
    prompt = add_asked(stage.store)
    earlier = [a_trace(slot=slot, answer="earlier") for slot in (0, 1)]

    def answer(generator: Generator) -> Completion:
        for trace in earlier:
            stage.store.add_traces([trace])
        return a_completion("later")

    stage.models.answer = answer
    assert await stage.handler.handle(prompt) == earlier


class RacedStore(SqlStore):
    """A store in which another member assigns the prompt while this one still looks at the pool."""

    def pool_log(self) -> list[PoolEvent]:
        self.add_assignments([an_assignment(generators=(a_generator("fast"), a_generator("weak")))])
        return super().pool_log()


async def test_assignment_that_another_member_stored_first_is_followed(
    stage: Stage, url: str
) -> None:
    prompt = stage.accept()
    with closing(RacedStore(url, wheel=WHEEL)) as raced:
        events = await stage.another(raced).handle(prompt)
    assert slots_of(events) == [(0, "fast"), (1, "weak")]


async def test_refused_slot_ends_failed_and_leaves_the_other(stage: Stage) -> None:
    prompt = stage.accept()
    stage.models = refusing("strong", InvalidRecordError("strong@r1 is no longer served"))
    failure, trace = await stage.another().handle(prompt)
    assert failure == SlotFailed(
        prompt_id=prompt.prompt_id,
        round=0,
        slot=0,
        reason="strong@r1 is no longer served",
        accepted_at=prompt.accepted_at,
        failed_at=stage.clock.at,
    )
    group = held(stage.store, prompt)
    assert list(group.slot_failures) == [failure]
    assert list(group.traces.values()) == [trace]
    assert group.ended_slots == {0}


@pytest.mark.parametrize(("busy", "other"), [("strong", "weak"), ("weak", "strong")])
async def test_slot_that_must_wait_does_not_keep_the_other_from_being_stored(
    stage: Stage, busy: str, other: str
) -> None:
    prompt = stage.accept()
    stage.models = refusing(busy, RetryLaterError("server is busy", retry_after_s=7))
    with pytest.raises(RetryLaterError, match="server is busy") as caught:
        await stage.another().handle(prompt)
    assert caught.value.retry_after_s == 7
    group = held(stage.store, prompt)
    assert [trace.generator for trace in group.traces.values()] == [other]
    assert group.ended_slots == set()
    stage.models = FakeModels()
    assert slots_of(await stage.another().handle(prompt)) == [(0, "strong"), (1, "weak")]
    assert stage.models.names_asked == [busy]


async def test_unknown_error_of_a_model_is_raised_as_it_is(stage: Stage) -> None:
    prompt = stage.accept()
    stage.models = refusing("weak", ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError, match="a bug"):
        await stage.another().handle(prompt)
    assert held(stage.store, prompt).ended_slots == set()


async def test_unknown_error_of_one_slot_is_not_hidden_by_the_others_wait(stage: Stage) -> None:
    def answer(generator: Generator) -> Completion:
        raise RetryLaterError("busy") if generator.name == "strong" else ZeroDivisionError("a bug")

    prompt = stage.accept()
    stage.models.answer = answer
    with pytest.raises(ZeroDivisionError, match="a bug"):
        await stage.handler.handle(prompt)


def pause(stage: Stage, *, for_s: float) -> None:
    now = stage.clock.at
    assert stage.store.acquire_lease(
        PAUSE_LEASE, token="a cycle", at=now, until=now + timedelta(seconds=for_s)
    )


async def test_paused_generation_assigns_nothing_until_the_lease_ends(stage: Stage) -> None:
    prompt = stage.accept()
    pause(stage, for_s=30)
    with pytest.raises(RetryLaterError, match="paused while a cycle trains"):
        await stage.handler.handle(prompt)
    assert held(stage.store, prompt).assignment is None
    assert stage.models.asked == []
    stage.clock.move(31)
    assert len(await stage.handler.handle(prompt)) == 2


async def test_prompt_that_was_assigned_before_the_pause_is_still_answered(stage: Stage) -> None:
    prompt = add_asked(stage.store)
    pause(stage, for_s=30)
    assert len(await stage.handler.handle(prompt)) == 2


async def test_pool_is_looked_at_again_after_a_second_and_not_before(stage: Stage) -> None:
    prompt = stage.accept()
    stage.drain("weak")
    with pytest.raises(RetryLaterError, match="no two generators"):
        await stage.handler.handle(prompt)
    stage.store.add_pool_events([a_pool_event(a_generator("new"))])
    stage.clock.move(0.9)
    with pytest.raises(RetryLaterError, match="no two generators"):
        await stage.handler.handle(prompt)
    stage.clock.move(0.2)
    assert slots_of(await stage.handler.handle(prompt)) == [(0, "strong"), (1, "new")]


async def test_prompt_that_the_store_does_not_hold_is_invalid(stage: Stage) -> None:
    prompt = stage.accept()
    with pytest.raises(InvalidRecordError, match=r"holds no prompt .* of round 1: submit it"):
        await stage.handler.handle(prompt.model_copy(update={"round": 1}))
    assert stage.models.asked == []


async def test_prompt_of_another_wheel_in_the_same_database_is_invalid(
    stage: Stage, url: str
) -> None:
    foreign = a_prompt().model_copy(update={"wheel": "other"})
    with closing(SqlStore(url, wheel="other")) as store:
        store.add_prompts([foreign])
    with pytest.raises(InvalidRecordError, match="holds no prompt"):
        await stage.handler.handle(foreign)


async def test_prompt_that_has_failed_is_not_asked(stage: Stage) -> None:
    prompt = stage.accept()
    failure = stage.store.add_prompt_failures([a_prompt_failure(prompt)])[0]
    assert await stage.handler.handle(prompt) == [failure]
    assert stage.models.asked == []


async def test_seed_of_a_request_derives_from_the_trace_id(stage: Stage) -> None:
    prompt = stage.accept()
    await stage.handler.handle(prompt)
    plan = stage.assignment(prompt)
    ids = [plan.trace_id(slot) for slot in (0, 1)]
    assert stage.models.asked == [("strong", seed_of(ids[0])), ("weak", seed_of(ids[1]))]
    assert [trace.seed for trace in held(stage.store, prompt).traces.values()] == [
        seed_of(trace_id) for trace_id in ids
    ]


async def test_trace_carries_its_provenance(stage: Stage) -> None:
    prompt = stage.accept()
    stage.models.answer = lambda generator: a_completion(
        "2", reasoning="one and one", served_model=f"{generator.model}-served"
    )
    trace, _ = await stage.handler.handle(prompt)
    assert trace == a_trace(
        stage.assignment(prompt),
        answer="2",
        reasoning="one and one",
        completion_tokens=a_completion().completion_tokens,
        generated_at=stage.clock.at,
    ).model_copy(update={"served_model": "strong-r1-served"})


async def test_promoted_generator_is_loaded_then_logged(stage: Stage) -> None:
    promotion, before = stage.promote(), stage.store.pool_log()
    logs_at_load: list[list[PoolEvent]] = []
    stage.models.loading = lambda generator: logs_at_load.append(stage.store.pool_log())
    assert await stage.handler.handle(promotion) == []
    assert stage.models.loaded == [promotion.generator]
    assert logs_at_load == [before]
    *_, event = stage.store.pool_log()
    assert (event.kind, event.generator) == (PoolEventKind.PROMOTED, promotion.generator)
    assert (event.cause, event.at) == (promotion.promotion_id, stage.clock.at)
    assert event.reason == "version 1 of deltawheel-test was promoted"


async def test_promotion_that_comes_again_is_loaded_but_logged_once(stage: Stage) -> None:
    promotion = stage.promote()
    await stage.handler.handle(promotion)
    log = stage.store.pool_log()
    stage.clock.move(5)
    await stage.another().handle(promotion)
    assert stage.models.loaded == [promotion.generator] * 2
    assert stage.store.pool_log() == log


async def test_generator_that_cannot_be_loaded_yet_does_not_enter_the_pool(stage: Stage) -> None:
    def refuse(generator: Generator) -> None:
        raise RetryLaterError("server main does not answer")

    log, stage.models.loading = stage.store.pool_log(), refuse
    with pytest.raises(RetryLaterError, match="does not answer"):
        await stage.handler.handle(stage.promote())
    assert stage.store.pool_log() == log


async def test_promotion_that_nobody_decided_on_is_invalid(stage: Stage) -> None:
    log = stage.store.pool_log()
    with pytest.raises(InvalidRecordError, match="no decision to promote version 1"):
        await stage.handler.handle(a_promotion())
    assert stage.models.loaded == []
    assert stage.store.pool_log() == log


async def test_what_was_decided_is_taken_in_whatever_the_event_says(stage: Stage) -> None:
    decided = stage.promote()
    stranger = a_generator("stranger", revision="v9")
    await stage.handler.handle(decided.model_copy(update={"generator": stranger}))
    assert stage.models.loaded == [decided.generator]


async def test_promoted_generator_is_dealt_to_at_once(stage: Stage) -> None:
    prompt, promotion = stage.accept(), stage.promote()
    stage.drain("weak")
    with pytest.raises(RetryLaterError, match="no two generators"):
        await stage.handler.handle(prompt)
    await stage.handler.handle(promotion)
    events = await stage.handler.handle(prompt)
    assert slots_of(events) == [(0, "strong"), (1, promotion.generator.name)]
    _, trace = events
    assert isinstance(trace, Trace)
    assert trace.lineage_depth == promotion.generator.lineage_depth == 1


async def test_other_records_are_invalid(stage: Stage) -> None:
    with pytest.raises(InvalidRecordError, match="no use for a Trace"):
        await stage.handler.handle(a_trace())


async def test_prompt_that_is_given_up_ends_the_slots_that_nobody_has_filled(stage: Stage) -> None:
    stage.models = refusing("weak", RetryLaterError("busy"))
    prompt = stage.accept()
    with pytest.raises(RetryLaterError, match="busy"):
        await stage.another().handle(prompt)
    [end] = stage.handler.slot_ends(prompt, "given up", seconds(50))
    assert (end.slot, end.attempt, end.reason) == (1, 1, "given up")
    stage.store.add_slot_failures([end])
    assert stage.handler.slot_ends(prompt, "given up", seconds(50)) == []


@pytest.mark.parametrize("record", [a_prompt(), a_promotion()])
def test_refusing_a_record_of_which_nobody_was_asked_ends_no_slot(
    stage: Stage, record: Prompt | Promotion
) -> None:
    assert stage.handler.slot_ends(record, "refused", seconds(1)) == ()


async def test_prompt_that_nobody_can_be_asked_fails_once_it_has_expired(stage: Stage) -> None:
    prompt = stage.accept()
    stage.drain("weak")
    stage.clock.at = prompt.accepted_at + timedelta(seconds=SETTINGS.generation.expire_after_s)
    with pytest.raises(RetryLaterError, match="no two generators"):
        await stage.handler.handle(prompt)
    stage.clock.move(1)
    [failure] = await stage.handler.handle(prompt)
    assert isinstance(failure, PromptFailed)
    assert (failure.key, failure.failed_at) == (prompt.key, stage.clock.at)
    assert held(stage.store, prompt).prompt_failure == failure
    assert await stage.another().handle(prompt) == [failure]


async def test_prompt_does_not_expire_by_what_the_wheel_stood_still(stage: Stage) -> None:
    prompt = stage.accept()
    stage.drain("weak")
    gap = timedelta(seconds=30)
    for at in (prompt.accepted_at, prompt.accepted_at + timedelta(days=3)):
        stage.store.watch(at=at, longest_gap=gap, is_paused=False)
    stage.clock.at = prompt.accepted_at + timedelta(days=3)
    with pytest.raises(RetryLaterError, match="no two generators"):
        await stage.handler.handle(prompt)


async def test_trace_that_is_too_large_for_the_broker_ends_its_slot_and_is_not_stored(
    stage: Stage,
) -> None:
    answer = "x" * (SETTINGS.broker.max_message_bytes // 2)
    stage.models.answer = lambda one: a_completion(answer if one.name == "strong" else "2")
    prompt = stage.accept()
    failure, trace = await stage.handler.handle(prompt)
    assert isinstance(failure, SlotFailed)
    assert isinstance(trace, Trace)
    assert "broker.max_message_bytes (4000000) leaves" in failure.reason
    assert list(held(stage.store, prompt).traces.values()) == [trace]


def test_stored_trace_that_has_become_too_large_for_the_broker_keeps_no_slot_open(
    stage: Stage,
) -> None:
    prompt = add_asked(stage.store, a_prompt())
    for slot, size in enumerate((2_000_000, 10)):
        stage.store.add_traces([a_trace(an_assignment(prompt), slot, answer="x" * size)])
    assert [end.slot for end in stage.handler.slot_ends(prompt, "too large", seconds(9))] == [0]


async def test_prompt_waits_while_too_few_stand_however_long(stage: Stage) -> None:
    prompt = stage.accept()
    left = a_pool_event(a_generator("weak"), kind=PoolEventKind.LEFT, cause="health 1")
    stage.store.add_pool_events([left])
    stage.clock.move(10_000)
    with pytest.raises(RetryLaterError, match=r"weak has left \(a test said so\)"):
        await stage.handler.handle(prompt)
    back = a_pool_event(a_generator("weak"), kind=PoolEventKind.RETURNED, cause="health 2")
    stage.store.add_pool_events([back])
    stage.handler.forget_pool()
    assert slots_of(await stage.handler.handle(prompt)) == [(0, "strong"), (1, "weak")]


async def test_prompt_of_a_domain_that_nobody_serves_expires_also_while_somebody_is_away(
    stage: Stage,
) -> None:
    prompt = stage.accept()
    stage.store.add_pool_events(
        [
            a_pool_event(
                a_generator(name, domains=("code",)), kind=PoolEventKind.ADDED, cause=f"api {name}"
            )
            for name in ("strong", "weak", "guest")
        ]
    )
    left = a_generator("guest", domains=("code",))
    stage.store.add_pool_events([a_pool_event(left, kind=PoolEventKind.LEFT, cause="health 1")])
    stage.handler.forget_pool()
    with pytest.raises(RetryLaterError, match="no two generators"):
        await stage.handler.handle(prompt)
    stage.clock.move(SETTINGS.generation.expire_after_s + 1)
    [failure] = await stage.handler.handle(prompt)
    assert isinstance(failure, PromptFailed)


async def test_who_has_answered_is_told_and_for_whom_another_model_did(stage: Stage) -> None:
    told: list[tuple[str, bool]] = []
    stage.handler.on_answer = lambda generator, error: told.append((generator.name, error is None))
    stage.models.answer = refusing("weak", ForeignModelError("another answered")).answer
    with pytest.raises(ForeignModelError):
        await stage.handler.handle(stage.accept())
    assert sorted(told) == [("strong", True), ("weak", False)]


async def test_prompt_that_is_held_out_for_probes_is_dealt_to_nobody(stage: Stage) -> None:
    class HoldsAll:
        sets = ()

        def holds(self, prompt: Prompt) -> bool:
            return True

    stage.handler.held_out = HoldsAll()
    [failure] = await stage.handler.handle(stage.accept())
    assert isinstance(failure, PromptFailed)
    assert "held out" in failure.reason
    assert stage.models.asked == []


async def test_assignment_carries_the_generator_delta_as_probes_have_it_then(stage: Stage) -> None:
    before = stage.accept()
    await stage.handler.handle(before)
    stage.store.add_probes(
        [
            a_probe(a_generator(name), num_items=100, num_right=right)
            for name, right in (("strong", 20), ("weak", 80))
        ]
    )
    stage.clock.move(31)
    after = stage.accept(a_prompt("2+2="))
    await stage.handler.handle(after)
    declared, probed = stage.assignment(before), stage.assignment(after)
    assert [slot.generator.name for slot in declared.slots] == ["strong", "weak"]
    assert declared.generator_delta.scale == "declared-prior"
    assert [slot.generator.name for slot in probed.slots] == ["weak", "strong"]
    assert probed.generator_delta.estimate > 0
    assert probed.generator_delta.stderr < declared.generator_delta.stderr
    assert probed.generator_delta.scale == "declared-prior+probe"
    assert probed.generator_delta.ladder_revision != declared.generator_delta.ladder_revision


async def test_prompt_of_a_domain_that_fewer_than_two_write_for_waits_and_is_given_up_at_last(
    stage: Stage,
) -> None:
    only = a_generator("weak", revision="r2", domains=("products",))
    stage.store.add_pool_events([a_pool_event(only, kind=PoolEventKind.ADDED, cause="new")])
    prompt = stage.accept()
    with pytest.raises(RetryLaterError, match="no two generators to pair for domain 'sums'"):
        await stage.handler.handle(prompt)
    stage.clock.move(700)
    [failure] = await stage.handler.handle(prompt)
    assert isinstance(failure, PromptFailed)
    assert "for domain 'sums' within generation.expire_after_s" in failure.reason
