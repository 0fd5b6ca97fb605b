"""Replicas and the places at each server, against stub servers over real HTTP."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest

from deltawheel.contracts.errors import ForeignModelError, RetryLaterError
from deltawheel.contracts.generator import Generator
from deltawheel.contracts.prompt import Message
from deltawheel.infra.chat_model import OpenAIChatModel
from deltawheel.infra.listening import find_free_port
from deltawheel.infra.server_gate import End, ServerGates
from deltawheel.infra.stub_model_server import FAULTS, StubModelServer
from deltawheel.infra.telemetry import PrometheusTelemetry
from tests.records import a_generator

MODEL = a_generator().model


@dataclass
class World:
    """Stubs that serve the same model, and one client of all of them."""

    stubs: list[StubModelServer]
    urls: list[str]
    models: OpenAIChatModel
    telemetry: PrometheusTelemetry

    @property
    def member(self) -> Generator:
        first, *others = self.urls
        return a_generator().model_copy(update={"endpoint": first, "replicas": tuple(others)})

    async def ask(self, text: str = "1+1=", member: Generator | None = None) -> str:
        messages = [Message(role="user", content=text)]
        return (await self.models.complete(member or self.member, messages, seed=1)).answer

    def asked(self) -> list[int]:
        return [len(stub.asked("/chat/completions")) for stub in self.stubs]

    def gauge(self, name: str, url: str) -> float | None:
        return self.telemetry.registry.get_sample_value(name, {"server": url})


@asynccontextmanager
async def a_world(
    number: int = 2, *, is_adapter: bool = False, max_in_flight: int = 64
) -> AsyncIterator[World]:
    named: dict[str, Callable[[str], str]] = {MODEL: lambda _: "2"}
    stubs = [
        StubModelServer({} if is_adapter else named, adapters=named if is_adapter else {})
        for _ in range(number)
    ]
    telemetry = PrometheusTelemetry()
    models = OpenAIChatModel(
        servers={},
        api_keys={},
        request_timeout_s=5,
        max_in_flight=max_in_flight,
        telemetry=telemetry,
    )
    async with AsyncExitStack() as stack:
        urls = [await stack.enter_async_context(stub.running()) for stub in stubs]
        stack.push_async_callback(models.aclose)
        yield World(stubs, urls, models, telemetry)


async def test_requests_that_begin_alike_go_to_one_replica_and_others_spread() -> None:
    async with a_world(3) as world:
        for _ in range(9):
            await world.ask("the same again")
        assert sorted(world.asked()) == [0, 0, 9]
        for number in range(60):
            await world.ask(f"{number} is another one")
        assert min(world.asked()) >= 8


async def test_replica_with_much_to_do_is_passed_by() -> None:
    async with a_world(2) as world:
        for stub in world.stubs:
            stub.latency_s = 0.2
        await asyncio.gather(*(world.ask("the same again") for _ in range(20)))
        assert min(world.asked()) >= 7


async def test_replica_that_is_down_costs_no_request_and_the_last_one_that_answers_is_enough() -> (
    None
):
    async with a_world(1) as world:
        nowhere = f"http://127.0.0.1:{find_free_port()}/v1"
        for first, second in ((nowhere, world.urls[0]), (world.urls[0], nowhere)):
            member = world.member.model_copy(update={"endpoint": first, "replicas": (second,)})
            assert [await world.ask(str(n), member) for n in range(8)] == ["2"] * 8
            await world.models.load(member)
        alone = world.member.model_copy(update={"endpoint": nowhere, "replicas": ()})
        with pytest.raises(RetryLaterError, match="cannot be reached"):
            await world.ask(member=alone)
        with pytest.raises(RetryLaterError, match="cannot be reached"):
            await world.models.load(alone)


async def test_every_replica_gets_the_adapter_by_itself_and_again_when_it_is_empty() -> None:
    async with a_world(2, is_adapter=True) as world:
        member = world.member.model_copy(update={"adapter_path": "/adapters/strong"})
        await world.models.load(member)
        assert [stub.loaded for stub in world.stubs] == [{MODEL}, {MODEL}]
        world.stubs[1].loaded.clear()
        for number in range(12):
            await world.ask(str(number), member)
        assert world.stubs[1].loaded == {MODEL}


async def test_server_that_sheds_is_given_as_much_as_it_takes() -> None:
    async with a_world(1) as world:
        [stub], [url] = world.stubs, world.urls
        stub.latency_s = 0.05
        stub.most_at_once = 4

        async def insist(number: int) -> int:
            num_refused = 0
            while True:
                try:
                    await world.ask(str(number))
                except RetryLaterError:
                    num_refused += 1
                else:
                    return num_refused

        refused = await asyncio.gather(*(insist(number) for number in range(60)))
        assert sum(refused) < 120, "sixty came at once, and one in a round tries for more"
        limit = world.gauge("deltawheel_server_concurrency", url)
        assert limit is not None
        assert 4 <= limit <= 6
        assert world.gauge("deltawheel_server_in_flight", url) == 0


async def test_no_more_is_sent_at_once_than_the_settings_say() -> None:
    async with a_world(1, max_in_flight=3) as world:
        world.stubs[0].latency_s = 0.02
        world.stubs[0].most_at_once = 3
        await asyncio.gather(*(world.ask(str(number)) for number in range(20)))
        assert world.asked() == [20]


BASE = "http://it/v1"


def some_gates(*, ceiling: int = 1, longest_wait_s: float = 60) -> ServerGates:
    return ServerGates(
        ceiling=ceiling, longest_wait_s=longest_wait_s, telemetry=PrometheusTelemetry()
    )


async def visit(gates: ServerGates, until: asyncio.Event, end: End = End.ANSWERED) -> None:
    async with gates.visiting(BASE) as place:
        await until.wait()
        place.end = end


async def turns(number: int = 3) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


@pytest.mark.parametrize("is_turn_between", [False, True])
async def test_whoever_is_cancelled_while_waiting_leaves_the_place_to_the_next(
    is_turn_between: bool,
) -> None:
    gates, hold, done = some_gates(), asyncio.Event(), asyncio.Event()
    done.set()
    first = asyncio.create_task(visit(gates, hold))
    await turns()
    second, third = (asyncio.create_task(visit(gates, done)) for _ in range(2))
    await turns()
    hold.set()
    second.cancel()
    if is_turn_between:
        await turns(1)
    async with asyncio.timeout(5):
        await asyncio.gather(first, third)
        await visit(gates, done)
    assert second.cancelled()


async def test_whoever_is_cancelled_with_a_place_given_passes_it_on() -> None:
    gates, hold, done = some_gates(), asyncio.Event(), asyncio.Event()
    done.set()
    first = asyncio.create_task(visit(gates, hold))
    await turns()
    second, third = (asyncio.create_task(visit(gates, done)) for _ in range(2))
    await turns()
    first.add_done_callback(lambda _: second.cancel())
    hold.set()
    async with asyncio.timeout(5):
        await asyncio.gather(first, third)


async def test_waiting_for_a_place_has_an_end() -> None:
    gates, hold = some_gates(longest_wait_s=0.02), asyncio.Event()
    first = asyncio.create_task(visit(gates, hold))
    await turns()
    with pytest.raises(RetryLaterError, match="no place for a request within"):
        await visit(gates, hold)
    hold.set()
    await first
    await visit(gates, hold)


async def test_late_answers_take_a_tenth_from_a_server_and_no_more() -> None:
    telemetry, done = PrometheusTelemetry(), asyncio.Event()
    gates = ServerGates(ceiling=16, longest_wait_s=0.02, telemetry=telemetry)
    visits = [asyncio.create_task(visit(gates, done)) for _ in range(16)]
    await asyncio.sleep(0.015)
    done.set()
    await asyncio.gather(*visits)
    label = {"server": BASE}
    assert telemetry.registry.get_sample_value("deltawheel_server_concurrency", label) == 14


async def test_replica_that_sheds_gets_no_more_than_it_takes_and_the_other_the_rest() -> None:
    async with a_world(2) as world:
        small = world.stubs[0]
        for stub in world.stubs:
            stub.latency_s = 0.05
        small.most_at_once = 1

        async def insist() -> None:
            while True:
                try:
                    await world.ask("the same again")
                except RetryLaterError:
                    await asyncio.sleep(0.01)
                else:
                    return

        await asyncio.gather(*(insist() for _ in range(20)))  # finds out
        before = world.asked()
        await asyncio.gather(*(insist() for _ in range(40)))
        after = world.asked()
        assert after[1] - before[1] >= 25, "the larger one takes most of it"


async def test_member_whose_server_names_other_weights_than_before_is_a_foreign_one() -> None:
    async with a_world(1) as world:
        world.stubs[0].roots[MODEL] = "/models/a"
        await world.models.load(world.member)
        await world.models.load(world.member)
        world.stubs[0].roots[MODEL] = "/models/b"
        with pytest.raises(ForeignModelError, match=r"serves '/models/b'.*served '/models/a'"):
            await world.models.load(world.member)
        revised = world.member.model_copy(update={"revision": "2"})
        await world.models.load(revised)


async def test_weights_are_compared_at_every_replica_that_can_be_reached_without_a_token() -> None:
    async with a_world() as world:
        gone = world.member.model_copy(update={"endpoint": "http://127.0.0.1:9/v1"})
        gone = gone.model_copy(update={"replicas": tuple(world.urls)})
        world.stubs[1].roots[MODEL] = "/models/a"
        await world.models.compare(gone)
        world.stubs[1].roots[MODEL] = "/models/b"
        with pytest.raises(ForeignModelError, match=r"now serves '/models/b'"):
            await world.models.compare(gone)
        assert world.asked() == [0, 0]


async def test_key_of_the_settings_goes_to_no_replica_that_they_do_not_name() -> None:
    async with a_world(2) as world:
        known, stranger = world.urls
        models = OpenAIChatModel(
            servers={},
            api_keys={("strong", known): "sesame"},
            request_timeout_s=5,
            telemetry=PrometheusTelemetry(),
        )
        member = world.member.model_copy(update={"endpoint": known, "replicas": (stranger,)})
        await models.load(member)
        await models.aclose()
        sent = [stub.requests[-1].headers.get("Authorization") for stub in world.stubs]
        assert sent == ["Bearer sesame", None]


async def test_busy_replica_is_no_reason_to_ask_the_other_twice() -> None:
    async with a_world(2) as world:
        for stub in world.stubs:
            stub.fault = FAULTS["busy"]
        with pytest.raises(RetryLaterError, match="busy or failing"):
            await world.ask()
        assert sum(world.asked()) == 1
