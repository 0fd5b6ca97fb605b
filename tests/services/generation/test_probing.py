"""Probing: who is due answers held-out prompts, a program verifies them, and they are stored."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest

from deltawheel.contracts.errors import ForeignModelError, InvalidRecordError
from deltawheel.contracts.generator import Generator, PoolEventKind
from deltawheel.contracts.ports import Completion
from deltawheel.contracts.probe import Probe, ProbeItems
from deltawheel.contracts.prompt import Message, Prompt
from deltawheel.contracts.settings import RotationSettings, Settings
from deltawheel.contracts.store import PAUSE_LEASE, Store
from deltawheel.contracts.trace import FinishReason, Trace
from deltawheel.infra.clock import SystemRandom
from deltawheel.infra.store.store import SqlStore
from deltawheel.infra.telemetry import PrometheusTelemetry
from deltawheel.services.generation.probing import LEASE, Prober, Probing, next_sets
from tests.records import WHEEL, a_generator, a_pool_event, a_probe, a_prompt, seconds
from tests.services.fakes import FakeClock, FakeModels, a_completion, metric

STRONG, WEAK = a_generator("strong"), a_generator("weak")


def items(domain: str, *texts: str) -> ProbeItems:
    return ProbeItems(domain=domain, prompts=[a_prompt(text, domain=domain) for text in texts])


FIRST, SECOND = items("sums", "1+1=", "2+0=", "0+2="), items("sums", "3-1=")
PRODUCTS = items("products", "1*2=")


@dataclass
class FakeHeldOut:
    sets: Sequence[ProbeItems] = (FIRST, SECOND)

    def holds(self, prompt: Prompt) -> bool:
        return False


class EndsWithReference:
    """Tells whether an answer ends with the reference answer; of "?" it cannot tell."""

    def verify(self, prompt: Prompt, trace: Trace) -> bool | None:
        return None if trace.answer == "?" else trace.answer.endswith(prompt.reference_answer or "")


class Stage:
    """A pool of two that is probed; every member is right unless a test says otherwise."""

    def __init__(self, store: Store, **probe: object) -> None:
        self.store = store
        self.models = FakeModels()
        self.clock = FakeClock()
        self.telemetry = PrometheusTelemetry()
        self.num_changes = 0
        self.settings = Settings.model_validate({"wheel": WHEEL, "probe": probe})
        store.add_pool_events([a_pool_event(each) for each in (STRONG, WEAK)])
        self.probing = self.another()

    def another(self, *sets: ProbeItems) -> Probing:
        """Return what another process of the service runs."""
        return Probing(
            settings=self.settings,
            held_out=FakeHeldOut(sets or (FIRST, SECOND)),
            prober=Prober(
                models=self.models,
                verifier=EndsWithReference(),
                clock=self.clock,
                telemetry=self.telemetry,
                concurrency=2,
            ),
            store=self.store,
            clock=self.clock,
            random=SystemRandom(),
            on_change=self._changed,
        )

    def _changed(self) -> None:
        self.num_changes += 1

    async def look(self, times: int = 1) -> list[Probe]:
        """Let so many looks pass, seconds apart; return what is stored by then."""
        for _ in range(times):
            assert await self.probing.look() == []
            self.clock.move(5)
        return self.store.probes()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(SqlStore(f"sqlite:///{tmp_path / 'store.db'}", wheel=WHEEL)) as store:
        yield store


@pytest.fixture
def stage(store: Store) -> Stage:
    return Stage(store)


def answering(answer: Callable[[Generator], str | Exception]) -> FakeModels:
    def complete(generator: Generator) -> Completion:
        said = answer(generator)
        if isinstance(said, Exception):
            raise said
        return a_completion(said)

    return FakeModels(complete)


async def test_members_are_probed_when_they_join_and_not_again_before_the_interval(
    stage: Stage,
) -> None:
    probes = await stage.look(4)
    assert [it.reference for it in probes] == ["strong@r1", "weak@r1"]
    assert {(it.num_items, it.num_right, it.items_id) for it in probes} == {(3, 3, FIRST.items_id)}
    assert (probes[0].prompt_tokens, probes[0].completion_tokens) == (12, 21)
    assert stage.num_changes == 2
    assert metric(
        stage.telemetry,
        "deltawheel_probe_items_total",
        generator="strong",
        domain="sums",
        result="right",
    ) == pytest.approx(3)


async def test_after_the_interval_the_next_prompts_are_asked_and_then_the_first_again(
    stage: Stage,
) -> None:
    for _ in range(3):
        await stage.look(2)
        stage.clock.move(stage.settings.probe.interval_s)
    strong = [it.items_id for it in stage.store.probes() if it.generator == "strong"]
    assert strong == [FIRST.items_id, SECOND.items_id, FIRST.items_id]


async def test_without_an_interval_a_member_is_probed_once(store: Store) -> None:
    stage = Stage(store, interval_s=0)
    await stage.look(2)
    stage.clock.move(1e9)
    assert len(await stage.look(2)) == 2


async def test_a_new_revision_is_probed_though_the_old_one_was(stage: Stage) -> None:
    await stage.look(2)
    newer = a_generator("strong", revision="r2")
    stage.store.add_pool_events([a_pool_event(newer, kind=PoolEventKind.ADDED, cause="new")])
    assert (await stage.look())[-1].reference == "strong@r2"


async def test_who_has_left_the_pool_is_not_probed(stage: Stage) -> None:
    left = a_pool_event(STRONG, kind=PoolEventKind.LEFT, cause="down")
    stage.store.add_pool_events([left])
    assert [it.generator for it in await stage.look(3)] == ["weak"]


async def test_wrong_refused_and_cut_off_answers_are_wrong(stage: Stage) -> None:
    said: Iterator[str | Exception] = iter(["2", "3", InvalidRecordError("too long")])
    stage.models.answer = answering(lambda _: next(said)).answer
    [probe] = await stage.look()
    assert (probe.num_items, probe.num_right) == (3, 1)
    cut = replace(a_completion("2"), finish_reason=FinishReason.LENGTH)
    stage.models.answer = lambda _: cut
    assert (await stage.look())[-1].num_right == 0


async def test_prompts_that_the_verifier_cannot_tell_of_do_not_count(stage: Stage) -> None:
    said = iter(["?", "2", "?"])
    stage.models.answer = answering(lambda _: next(said)).answer
    [probe] = await stage.look()
    assert (probe.num_items, probe.num_right) == (1, 1)


async def test_where_it_can_tell_of_none_nothing_is_stored_and_the_log_says_why(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.models.answer = answering(lambda _: "?").answer
    assert await stage.look() == []
    assert "cannot tell right from wrong for any of the 3 prompts of 'sums'" in caplog.text


async def test_one_who_cannot_be_asked_is_left_in_peace_and_keeps_nobody_waiting(
    stage: Stage,
) -> None:
    def answer(generator: Generator) -> str | Exception:
        return ForeignModelError("another model") if generator.name == "strong" else "2"

    stage.models.answer = answering(answer).answer
    assert [it.generator for it in await stage.look(3)] == ["weak"]
    assert stage.models.names_asked.count("strong") <= 3
    stage.models.answer = lambda _: a_completion("2")
    stage.clock.move(60)
    assert [it.generator for it in await stage.look()] == ["weak", "strong"]


async def test_nobody_is_probed_while_another_probes_or_generation_is_paused(stage: Stage) -> None:
    now = stage.clock.now()
    for name in (LEASE, PAUSE_LEASE):
        stage.store.acquire_lease(name, token="other", at=now, until=now + timedelta(hours=1))
        assert await stage.look() == []
        stage.store.release_lease(name, token="other")
    assert len(await stage.look()) == 1
    assert not stage.store.is_leased(LEASE, at=stage.clock.now())


async def test_each_domain_of_a_member_is_probed_and_no_other(stage: Stage) -> None:
    only = a_generator("weak", revision="r2", domains=("products",))
    stage.store.add_pool_events([a_pool_event(only, kind=PoolEventKind.ADDED, cause="new")])
    stage.probing = stage.another(FIRST, PRODUCTS)
    probes = await stage.look(4)
    assert {(it.generator, it.domain) for it in probes} == {
        ("strong", "sums"),
        ("strong", "products"),
        ("weak", "products"),
    }


class CountingModels(FakeModels):
    """Knows how many were asked at the same time."""

    in_flight = most = 0

    async def complete(
        self, generator: Generator, messages: Sequence[Message], *, seed: int
    ) -> Completion:
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        try:
            return await super().complete(generator, messages, seed=seed)
        finally:
            self.in_flight -= 1


async def test_no_more_prompts_are_asked_at_the_same_time_than_set(stage: Stage) -> None:
    models = CountingModels()
    await replace(stage.probing.prober, models=models).probe(STRONG, FIRST)
    assert models.most == 2
    assert len({seed for _, seed in models.asked}) == 3


async def test_where_few_are_active_the_others_are_probed_in_a_later_window(stage: Stage) -> None:
    stage.store.add_pool_events([a_pool_event(a_generator("mid"))])
    rotation = RotationSettings(max_active=2, turnover_s=3_600)
    stage.settings = stage.settings.model_copy(update={"rotation": rotation})
    stage.probing = stage.another()
    assert len(await stage.look(5)) == 2
    for _ in range(10):
        stage.clock.move(3_600)
        await stage.look(2)
    assert {it.generator for it in stage.store.probes()} == {"strong", "mid", "weak"}


def test_what_was_never_asked_comes_before_what_was_asked_longest_ago() -> None:
    held_out = FakeHeldOut()
    past = [a_probe(STRONG, items_id=FIRST.items_id, at=seconds(1))]
    assert next_sets(held_out, STRONG, past) == [SECOND]
    assert next_sets(held_out, WEAK, past) == [FIRST]
    past.append(a_probe(STRONG, items_id=SECOND.items_id, at=seconds(2)))
    assert next_sets(held_out, STRONG, past) == [FIRST]
