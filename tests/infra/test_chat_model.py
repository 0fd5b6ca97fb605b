"""The client of model servers, over real HTTP, against the stub server."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from deltawheel.contracts.errors import ConfigError, InvalidRecordError, RetryLaterError
from deltawheel.contracts.generator import Generator
from deltawheel.contracts.ids import digest_of
from deltawheel.contracts.ports import Completion
from deltawheel.contracts.prompt import Message
from deltawheel.contracts.trace import FinishReason
from deltawheel.infra.chat_model import OpenAIChatModel
from deltawheel.infra.listening import find_free_port
from deltawheel.infra.stub_model_server import (
    FAULTS,
    Answer,
    StubAnswer,
    StubFault,
    StubModelServer,
)
from deltawheel.infra.telemetry import PrometheusTelemetry
from tests.records import a_generator, a_slot_failure

MESSAGES = (Message(role="system", content="Be brief."), Message(role="user", content="3 twice?"))
MODEL = a_generator().model
SECRET = "sk-do-not-show"


@dataclass
class World:
    """A stub server and a client of it."""

    stub: StubModelServer
    url: str
    models: OpenAIChatModel
    telemetry: PrometheusTelemetry

    async def ask(self, generator: Generator | None = None) -> Completion:
        return await self.models.complete(generator or a_generator(), MESSAGES, seed=7)

    def counted(self, name: str, **labels: str) -> float:
        return self.telemetry.registry.get_sample_value(name, labels) or 0.0

    def requests_counted(self, result: str) -> float:
        return self.counted("deltawheel_model_requests_total", generator="strong", result=result)

    @property
    def loads_counted(self) -> float:
        return self.counted("deltawheel_adapter_loads_total", generator="strong")


@asynccontextmanager
async def a_world(
    answer: Answer = lambda _: "6",
    *,
    is_adapter: bool = False,
    timeout_s: float = 5.0,
    keys: Callable[[str], dict[tuple[str, str], str]] = lambda _: {},
) -> AsyncIterator[World]:
    """Run a stub that serves `strong`, as a model or as an adapter not loaded yet."""
    named = {MODEL: answer}
    stub = StubModelServer({} if is_adapter else named, adapters=named if is_adapter else {})
    telemetry = PrometheusTelemetry()
    async with stub.running() as url:
        models = OpenAIChatModel(
            servers={"main": url},
            api_keys=keys(url),
            request_timeout_s=timeout_s,
            telemetry=telemetry,
        )
        try:
            yield World(stub, url, models, telemetry)
        finally:
            await models.aclose()


def an_adapter() -> Generator:
    return a_generator(adapter_path="/adapters/strong")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


async def test_request_carries_everything_that_decides_the_answer() -> None:
    async with a_world() as world:
        completion = await world.ask()
        [request] = world.stub.asked("/v1/chat/completions")
    assert completion == Completion(
        reasoning="",
        answer="6",
        served_model=MODEL,
        prompt_tokens=4,
        completion_tokens=1,
        finish_reason=FinishReason.STOP,
    )
    assert request.body == {
        "model": MODEL,
        "messages": [message.model_dump() for message in MESSAGES],
        "temperature": 0.7,
        "top_p": 1.0,
        "max_tokens": 256,
        "seed": 7,
    }
    assert "Authorization" not in request.headers
    assert world.requests_counted("ok") == 1


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
async def test_reasoning_is_told_apart_under_either_name(field: str) -> None:
    def answer(_: str) -> StubAnswer:
        return StubAnswer(content="6", reasoning="3+3", reasoning_field=field)

    async with a_world(answer) as world:
        completion = await world.ask()
    assert (completion.reasoning, completion.answer) == ("3+3", "6")


async def test_answer_may_be_all_reasoning() -> None:
    async with a_world(lambda _: StubAnswer(content=None, reasoning="hm")) as world:
        completion = await world.ask()
    assert (completion.reasoning, completion.answer) == ("hm", "")


@pytest.mark.parametrize(
    ("content", "reasoning", "answer"),
    [
        ("<think>\n3+3\n</think>\n\n6", "3+3", "6"),
        ("  <think>3+3</think>6", "3+3", "6"),
        ("3+3\n</think>\n6", "3+3", "6"),
        ("<think>3+3, or is it", "3+3, or is it", ""),
        ("<think></think>6", "", "6"),
        ("6, I <think>", "", "6, I <think>"),
        (" 6 ", "", " 6 "),
    ],
)
async def test_reasoning_in_tags_is_told_apart(content: str, reasoning: str, answer: str) -> None:
    async with a_world(lambda _: content) as world:
        completion = await world.ask()
    assert (completion.reasoning, completion.answer) == (reasoning, answer)


async def test_tags_in_an_answer_whose_reasoning_the_server_told_apart_are_text() -> None:
    given = StubAnswer(content="write </think> at the end", reasoning="hm")
    async with a_world(lambda _: given) as world:
        completion = await world.ask()
    assert (completion.reasoning, completion.answer) == ("hm", "write </think> at the end")


@pytest.mark.parametrize("content", ["", " \n", "<think></think>", "<think> \n", None])
async def test_nothing_is_no_trace(content: str | None) -> None:
    async with a_world(lambda _: StubAnswer(content=content)) as world:
        with pytest.raises(InvalidRecordError, match="strong wrote nothing: 1 tokens"):
            await world.ask()
        await world.models.load(a_generator())  # one token may be no text, and the member is well


async def test_megabytes_of_text_are_read_and_what_has_no_end_is_not() -> None:
    async with a_world(lambda _: "x" * 2_000_000) as world:
        assert len((await world.ask()).answer) == 2_000_000
        world.stub.fault = StubFault(status=200, body="x" * 17_000_000)
        with pytest.raises(
            InvalidRecordError, match=r"strong answered with more than 16 MB.*max_t"
        ):
            await world.ask()


async def test_server_hears_that_nobody_waits_for_its_answer_any_more() -> None:
    async with a_world() as world:
        world.stub.latency_s = 60
        asked = asyncio.create_task(world.ask())
        await until(lambda: bool(world.stub.requests))
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        await until(lambda: world.stub.num_cut_off == 1)


async def test_server_hears_that_its_answer_comes_too_late() -> None:
    async with a_world(timeout_s=0.05) as world:
        world.stub.latency_s = 60
        with pytest.raises(RetryLaterError):
            await world.ask()
        await until(lambda: world.stub.num_cut_off == 1)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("stop", FinishReason.STOP),
        ("length", FinishReason.LENGTH),
        ("content_filter", FinishReason.OTHER),
    ],
)
async def test_finish_reason_is_kept(said: str, meant: FinishReason) -> None:
    async with a_world(lambda _: StubAnswer(content="6", finish_reason=said)) as world:
        assert (await world.ask()).finish_reason is meant


async def test_answer_that_the_server_broke_off_is_asked_again() -> None:
    async with a_world(lambda _: StubAnswer(content="6", finish_reason="abort")) as world:
        with pytest.raises(RetryLaterError, match="broke its answer off"):
            await world.ask()


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_busy_server_is_asked_again(status: int) -> None:
    async with a_world() as world:
        world.stub.fault = StubFault(status=status, headers={"Retry-After": "2.5"})
        with pytest.raises(RetryLaterError, match=f"strong is busy or failing .{status}") as caught:
            await world.ask()
    assert caught.value.retry_after_s == 2.5
    assert world.requests_counted("retry") == 1


async def retry_after_s(header: str) -> float | None:
    """Return how long a server with this header is left alone."""
    async with a_world() as world:
        world.stub.fault = StubFault(status=503, headers={"Retry-After": header})
        with pytest.raises(RetryLaterError) as caught:
            await world.ask()
    return caught.value.retry_after_s


async def test_retry_after_may_be_a_date() -> None:
    until = datetime.now(UTC) + timedelta(hours=1)
    after_s = await retry_after_s(format_datetime(until, usegmt=True))
    assert after_s is not None
    assert 3_000 <= after_s <= 3_601


@pytest.mark.parametrize("header", ["Thu, 01 Jan 2026 00:00:00 GMT", "-5"])
async def test_retry_after_that_has_passed_is_no_time(header: str) -> None:
    assert await retry_after_s(header) == 0


@pytest.mark.parametrize("header", ["soon", "nan", "inf"])
async def test_retry_after_that_says_nothing_is_ignored(header: str) -> None:
    assert await retry_after_s(header) is None


async def test_cut_connection_is_tried_again() -> None:
    async with a_world() as world:
        world.stub.fault = FAULTS["cut"]
        with pytest.raises(RetryLaterError, match="cannot be reached") as caught:
            await world.ask()
        assert caught.value.dependency == "server:main"


async def test_absent_server_is_tried_again() -> None:
    async with a_world() as world:
        generator = a_generator().model_copy(
            update={"endpoint": f"http://127.0.0.1:{find_free_port()}/v1"}
        )
        with pytest.raises(RetryLaterError, match="cannot be reached"):
            await world.ask(generator)


async def test_slow_server_is_asked_again() -> None:
    async with a_world(timeout_s=0.05) as world:
        world.stub.latency_s = 5
        with pytest.raises(RetryLaterError, match=r"within 0\.05 s .generation\.request_timeout_s"):
            await world.ask()


@pytest.mark.parametrize("status", [400, 422])
async def test_request_that_the_server_refuses_is_invalid(status: int) -> None:
    async with a_world() as world:
        said = json.dumps({"error": {"message": f"context is 128 tokens {'x' * 1000}"}})
        world.stub.fault = StubFault(status=status, body=said)
        with pytest.raises(InvalidRecordError, match=r"refuses the request .*context is") as caught:
            await world.ask()
    assert len(str(caught.value)) < 400
    assert world.requests_counted("refused") == 1


@pytest.mark.parametrize(
    "body",
    [
        {"detail": [{"loc": ["body", "seed"], "msg": "too large", "input": "3 twice?"}]},
        {"error": {"message": "{'loc': 'seed', 'msg': 'too large', 'input': '3 twice?'}"}},
    ],
)
async def test_refusal_does_not_repeat_the_prompt(body: object) -> None:
    async with a_world() as world:
        world.stub.fault = StubFault(status=422, body=json.dumps(body))
        with pytest.raises(InvalidRecordError, match=r"seed.*too large") as caught:
            await world.ask()
    assert "twice" not in str(caught.value)


@pytest.mark.parametrize("status", [401, 403])
async def test_wrong_key_waits_for_the_operator(status: int) -> None:
    async with a_world(keys=lambda url: {("strong", f"{url}/"): f" {SECRET}\n"}) as world:
        world.stub.fault = StubFault(status=status)
        with pytest.raises(RetryLaterError, match=r"generators\.strong\.api_key_env") as caught:
            await world.ask()
        [request] = world.stub.requests
    assert request.headers["Authorization"] == f"Bearer {SECRET}"
    assert SECRET not in str(caught.value)


async def test_key_goes_to_its_own_endpoint_only() -> None:
    async with a_world() as other, a_world(keys=lambda url: {("strong", url): SECRET}) as world:
        elsewhere = a_generator().model_copy(update={"endpoint": other.url})
        await world.ask(elsewhere)
        [request] = other.stub.requests
    assert "Authorization" not in request.headers


async def test_generators_of_one_endpoint_have_each_their_own_key() -> None:
    def keys(url: str) -> dict[tuple[str, str], str]:
        return {("strong", url): "one", ("weak", url): "other"}

    async with a_world(keys=keys) as world:
        for name in ("strong", "weak", "nobody"):
            await world.ask(a_generator().model_copy(update={"name": name, "endpoint": world.url}))
        sent = [request.headers.get("Authorization") for request in world.stub.requests]
    assert sent == ["Bearer one", "Bearer other", None]


def test_key_of_two_lines_is_refused_without_showing_it() -> None:
    said = r"generators\.strong\.api_key_env: .*one line of printable ASCII"
    with pytest.raises(ConfigError, match=said) as caught:
        OpenAIChatModel(
            servers={},
            api_keys={("strong", "http://host/v1"): f"{SECRET}\nX: y"},
            request_timeout_s=1,
            telemetry=PrometheusTelemetry(),
        )
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        "<html>",
        "[]",
        "{}",
        '{"model": "m", "choices": []}',
        '{"model": "m", "choices": [{"message": {"content": 5}}]}',
        r'{"model": "m", "choices": [{"message": {"content": "\ud800"}}]}',
        r'{"model": "m", "choices": [{"message": {"content": "6", "reasoning": "\udfff"}}]}',
        r'{"model": "\ud800", "choices": [{"message": {"content": "6"}}]}',
        '{"model": "strong-r1", "choices": [{"message": {"content": "6"}',
        '{"model": "strong-r1", "choices": [{"message": {"content": "6"}}, '
        '{"message": {"content": "7"}}]}',
    ],
)
async def test_answer_without_the_promised_form_is_invalid(body: str) -> None:
    async with a_world() as world:
        world.stub.fault = StubFault(status=200, body=body)
        with pytest.raises(InvalidRecordError, match="no chat completion"):
            await world.ask()


async def test_model_that_is_served_under_another_name_waits_for_the_operator() -> None:
    async with a_world(lambda _: StubAnswer(content="6", served_model="other")) as world:
        with pytest.raises(RetryLaterError, match=r"'other' answered.*generators\.strong\.model"):
            await world.ask()


async def test_model_without_adapter_that_is_gone_is_no_longer_served() -> None:
    async with a_world() as world:
        world.stub.models.clear()
        with pytest.raises(InvalidRecordError, match="revision r1 of strong is no longer served"):
            await world.ask()


async def test_wrong_path_of_an_endpoint_waits_for_the_operator() -> None:
    async with a_world() as world:
        lost = a_generator().model_copy(update={"endpoint": f"{world.url}/v9"})
        with pytest.raises(RetryLaterError, match=r"generators\.strong\.endpoint must be"):
            await world.ask(lost)


async def test_revision_on_a_server_that_the_settings_no_longer_have_is_no_longer_served() -> None:
    async with a_world() as world:
        with pytest.raises(InvalidRecordError, match="no longer served"):
            await world.ask(a_generator().model_copy(update={"endpoint": "server:gone"}))


@pytest.mark.parametrize("endpoint", ["no-url", "gpu-1:8000/v1", "ftp://host/v1"])
async def test_endpoint_that_is_no_url_waits_for_the_operator(endpoint: str) -> None:
    async with a_world() as world:
        with pytest.raises(RetryLaterError, match=r"generators\.strong\.endpoint: .* is no URL"):
            await world.ask(a_generator().model_copy(update={"endpoint": endpoint}))


async def test_half_a_surrogate_in_a_refusal_becomes_text_that_can_be_stored() -> None:
    async with a_world() as world:
        world.stub.fault = StubFault(status=400, body=r'{"error": {"message": "bad \ud800 text"}}')
        with pytest.raises(InvalidRecordError, match=r"bad \? text") as caught:
            await world.ask()
    assert a_slot_failure(reason=str(caught.value)).model_dump_json()


async def test_forgotten_adapter_is_loaded_and_the_request_repeated() -> None:
    async with a_world(is_adapter=True) as world:
        assert (await world.ask(an_adapter())).answer == "6"
        [load] = world.stub.asked("/v1/load_lora_adapter")
        world.stub.loaded.clear()
        assert (await world.ask(an_adapter())).answer == "6"
    assert load.body == {"lora_name": MODEL, "lora_path": "/adapters/strong"}
    assert world.loads_counted == 2
    assert world.requests_counted("ok") == 2


async def test_ninety_requests_load_an_adapter_once() -> None:
    async with a_world(is_adapter=True) as world:
        world.stub.load_latency_s = 0.05
        answers = await asyncio.gather(*(world.ask(an_adapter()) for _ in range(90)))
        assert len(world.stub.asked("/v1/load_lora_adapter")) == 1
    assert {answer.answer for answer in answers} == {"6"}
    assert world.loads_counted == 1


async def test_refusal_from_before_a_load_loads_nothing_more() -> None:
    async with a_world(is_adapter=True) as world:
        world.stub.latency_s = 0.2
        late = asyncio.create_task(world.ask(an_adapter()))
        await until(lambda: len(world.stub.requests) == 1)
        world.stub.latency_s = 0
        await world.ask(an_adapter())
        world.stub.loaded.clear()
        # The late 404 belongs to the time before the load, so it only repeats its request; the
        # server has forgotten the adapter again meanwhile, which the next try finds out.
        with pytest.raises(RetryLaterError, match="forgot"):
            await late
        assert len(world.stub.asked("/v1/load_lora_adapter")) == 1


async def test_adapter_that_another_client_loaded_is_fine() -> None:
    async with a_world(is_adapter=True) as world:
        world.stub.load_fault = StubFault(
            status=400, body='{"error": {"message": "The lora adapter has already been loaded."}}'
        )
        with pytest.raises(RetryLaterError, match="forgot"):
            await world.ask(an_adapter())
        world.stub.loaded.add(MODEL)
        assert (await world.ask(an_adapter())).answer == "6"
    assert world.loads_counted == 0


async def test_adapter_that_cannot_be_loaded_is_no_longer_served() -> None:
    async with a_world() as world:
        world.stub.models.clear()
        with pytest.raises(InvalidRecordError, match=r"no longer served, and its adapter.*404"):
            await world.ask(an_adapter())
        world.stub.load_fault = StubFault(status=400, body='{"error": {"message": "bad rank"}}')
        with pytest.raises(InvalidRecordError, match=r"no longer served.*bad rank"):
            await world.ask(an_adapter())


async def test_load_that_fails_for_now_is_tried_again() -> None:
    async with a_world(is_adapter=True) as world:
        world.stub.load_fault = StubFault(status=503)
        with pytest.raises(RetryLaterError, match="busy or failing"):
            await world.ask(an_adapter())
        world.stub.load_fault = None
        assert (await world.ask(an_adapter())).answer == "6"


async def test_cancelled_request_leaves_the_load_to_the_others() -> None:
    async with a_world(is_adapter=True) as world:
        first = asyncio.create_task(world.ask(an_adapter()))
        second = asyncio.create_task(world.ask(an_adapter()))
        world.stub.load_latency_s = 0.1
        await until(lambda: bool(world.stub.asked("/v1/load_lora_adapter")))
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert (await second).answer == "6"
        assert len(world.stub.asked("/v1/load_lora_adapter")) == 1


async def test_closing_ends_a_load_that_nobody_waits_for() -> None:
    async with a_world(is_adapter=True) as world:
        asked = asyncio.create_task(world.ask(an_adapter()))
        world.stub.load_latency_s = 60
        await until(lambda: bool(world.stub.asked("/v1/load_lora_adapter")))
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        await world.models.aclose()
    assert world.loads_counted == 0


async def test_loading_a_generator_makes_sure_that_it_answers() -> None:
    async with a_world(is_adapter=True) as world:
        await world.models.load(an_adapter())
        assert world.stub.loaded == {MODEL}
        assert world.stub.requests[-1].body["max_tokens"] == 1
        world.stub.fault = FAULTS["busy"]
        with pytest.raises(RetryLaterError):
            await world.models.load(an_adapter())


async def test_connections_are_kept_for_the_next_request() -> None:
    async with a_world() as world:
        for _ in range(20):
            await world.ask()
        assert len(world.stub.requests) == 20
        assert len({request.peer for request in world.stub.requests}) == 1


async def test_key_of_the_variable_that_a_generator_names_comes_before_the_settings() -> None:
    stub = StubModelServer({MODEL: lambda _: "6"})
    async with stub.running() as url:
        models = OpenAIChatModel(
            servers={"main": url},
            api_keys={("strong", url): "of-the-settings"},
            request_timeout_s=5,
            telemetry=PrometheusTelemetry(),
            member_key=lambda generator: SECRET if generator.api_key_env else None,
        )
        await models.complete(a_generator(api_key_env="KEY"), MESSAGES, seed=7)
        await models.complete(a_generator(), MESSAGES, seed=7)
        await models.aclose()
    sent = [request.headers.get("Authorization") for request in stub.requests]
    assert sent == [f"Bearer {SECRET}", "Bearer of-the-settings"]


async def test_adapter_is_unloaded_and_loaded_again_when_it_is_asked_for() -> None:
    generator = a_generator(adapter_path="/adapters/strong")
    async with a_world(is_adapter=True) as world:
        await world.ask(generator)
        await world.models.unload(generator)
        assert world.stub.loaded == set()
        assert world.counted("deltawheel_adapter_unloads_total", generator="strong") == 1
        assert (await world.ask(generator)).answer == "6"
        assert world.loads_counted == 2


async def test_adapter_that_the_server_does_not_know_is_unloaded_as_it_is() -> None:
    async with a_world(is_adapter=True) as world:
        await world.models.unload(a_generator(adapter_path="/adapters/strong"))
        await world.models.unload(a_generator())
        assert len(world.stub.asked("unload_lora_adapter")) == 1
        assert world.counted("deltawheel_adapter_unloads_total", generator="strong") == 0


async def test_server_that_is_busy_unloads_later() -> None:
    async with a_world(is_adapter=True) as world:
        world.stub.load_fault = FAULTS["busy"]
        with pytest.raises(RetryLaterError, match="busy"):
            await world.models.unload(a_generator(adapter_path="/adapters/strong"))


async def test_adapter_whose_weights_have_changed_is_not_loaded_under_its_old_revision(
    tmp_path: Path,
) -> None:
    weights = tmp_path / "adapter_model.safetensors"
    weights.write_bytes(b"as declared")
    here = {"adapter_path": str(tmp_path), "model": MODEL}
    generator = a_generator(revision=digest_of(b"as declared")).model_copy(update=here)
    async with a_world(is_adapter=True) as world:
        assert (await world.ask(generator)).answer == "6"
        weights.write_bytes(b"something else")
        assert (await world.ask(generator)).answer == "6", "what was loaded before still serves"
        world.stub.loaded.clear()
        with pytest.raises(InvalidRecordError, match=r"no longer served: .* holds other weights"):
            await world.ask(generator)
        assert world.stub.loaded == set()
