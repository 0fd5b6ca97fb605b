"""The gateway over a real store: what is accepted, what is refused, and how it is said."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx2
import pytest
from anyio import to_thread
from fastapi.testclient import TestClient

from deltawheel.contracts.cycle import CycleState
from deltawheel.contracts.errors import (
    ConfigError,
    DeltawheelError,
    InvalidRecordError,
    RetryLaterError,
)
from deltawheel.contracts.events import OutboundMessage
from deltawheel.contracts.failpoints import Failpoint
from deltawheel.contracts.gate import Verdict
from deltawheel.contracts.generator import PoolEvent, PoolEventKind
from deltawheel.contracts.prompt import Prompt, PromptKey
from deltawheel.contracts.settings import BrokerSettings, GatewaySettings, Settings
from deltawheel.contracts.topics import Topic
from deltawheel.infra.clock import SystemRandom
from deltawheel.infra.credentials import TOKEN_VARIABLE, gateway_token
from deltawheel.infra.store.store import SqlStore
from deltawheel.services.gateway.api import Gateway, make_app
from tests.records import (
    WHEEL,
    a_cycle,
    a_generator,
    a_pair,
    a_paired_end,
    a_pool_event,
    a_prompt,
    seconds,
)

SUM: Mapping[str, Any] = {"domain": "sums", "text": "1+1=", "reference_answer": "2"}
"""What `a_prompt()` is when a client submits it."""

MAX_CHARS, MAX_BATCH = 40, 3
SETTINGS = Settings(
    wheel=WHEEL, gateway=GatewaySettings(max_prompt_chars=MAX_CHARS, max_batch=MAX_BATCH)
)


@dataclass
class TickingClock:
    """A clock that every look at it moves on by a second."""

    num_looks: int = 0

    def now(self) -> datetime:
        self.num_looks += 1
        return seconds(self.num_looks)

    def monotonic(self) -> float:
        raise AssertionError("the gateway measures nothing")

    def wait(self, duration_s: float) -> None:
        raise AssertionError("the gateway waits for nothing")

    async def sleep(self, duration_s: float) -> None:
        raise AssertionError("the gateway waits for nothing")


class UnreliableStore(SqlStore):
    """A store that can be told to fail."""

    error: Exception | None = None

    def add_prompts(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        if self.error is not None:
            raise self.error
        return super().add_prompts(prompts)

    def pool_log(self) -> list[PoolEvent]:
        if self.error is not None:
            raise self.error
        return super().pool_log()


@dataclass
class FakeProducer:
    """Keeps what is published; with `is_down`, the broker does not answer."""

    published: list[OutboundMessage] = field(default_factory=list)
    at_publish: Callable[[], None] = lambda: None
    is_down: bool = False

    def publish(self, messages: Sequence[OutboundMessage]) -> None:
        self.at_publish()
        if self.is_down:
            raise RetryLaterError("the broker does not answer")
        self.published += messages

    def close(self) -> None:
        raise AssertionError("whoever opened the producer closes it")


@dataclass
class BlockingFailpoints:
    """Writes down where a thread has come to."""

    reached: list[tuple[Failpoint, str]] = field(default_factory=list)

    async def reach(self, name: Failpoint, subject: str) -> None:
        raise AssertionError("the gateway accepts in threads")

    def reach_blocking(self, name: Failpoint, subject: str) -> None:
        self.reached.append((name, subject))


class Wheel:
    """A gateway with its store, its broker and a client that speaks HTTP to it."""

    def __init__(self, folder: Path, *, token: str | None = None) -> None:
        self.store = UnreliableStore(f"sqlite:///{folder / 'store.db'}", wheel=WHEEL)
        self.producer = FakeProducer()
        self.failpoints = BlockingFailpoints()
        self.gateway = Gateway(
            settings=SETTINGS,
            store=self.store,
            producer=self.producer,
            clock=TickingClock(),
            random=SystemRandom(),
            failpoints=self.failpoints,
        )
        self.app = make_app(self.gateway, token=token)
        self.client = TestClient(self.app, raise_server_exceptions=False)

    async def refuse_unread(self, path: str, headers: Mapping[str, str], *, status: int) -> None:
        """Post a body of which not one byte may be read."""

        async def body() -> AsyncIterator[bytes]:
            raise AssertionError("the body was read")
            yield b""

        transport = httpx2.ASGITransport(self.app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://gateway") as client:
            response = await client.post(path, content=body(), headers=headers)
        assert_problem(response, status, HTTPStatus(status).phrase)

    def submit(self, body: object) -> Any:
        return self.submit_raw(json.dumps(body))

    def submit_raw(self, content: str | bytes) -> Any:
        kind = {"Content-Type": "application/json"}
        return self.client.post("/v1/prompts", content=content, headers=kind)

    @property
    def num_stored(self) -> int:
        return self.store.progress().prompts

    def close(self) -> None:
        self.client.close()
        self.store.close()


@pytest.fixture
def wheel(tmp_path: Path) -> Iterator[Wheel]:
    wheel = Wheel(tmp_path)
    yield wheel
    wheel.close()


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wheel]:
    """A wheel that stays empty, for tests which see to it that nothing is stored."""
    wheel = Wheel(tmp_path_factory.mktemp("empty"))
    yield wheel
    wheel.close()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wheel]:
    wheel = Wheel(tmp_path_factory.mktemp("guarded"), token="secret")
    yield wheel
    wheel.close()


def assert_problem(response: Any, status: int, title: str) -> dict[str, Any]:
    """Check the form of a problem and return it."""
    assert response.status_code == status
    assert response.headers["Content-Type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert (problem["type"], problem["title"], problem["status"]) == ("about:blank", title, status)
    assert problem["detail"]
    assert problem.keys() <= {"type", "title", "status", "detail", "errors"}
    return problem


def assert_refused(wheel: Wheel, response: Any) -> list[Any]:
    """Check that a submission is refused and nothing of it kept; return the single faults."""
    problem = assert_problem(response, 422, "Unprocessable Entity")
    assert wheel.num_stored == 0
    assert wheel.producer.published == []
    faults: list[Any] = problem["errors"]
    assert all("\n" not in fault["detail"] for fault in faults)
    return faults


# accepting


def test_prompt_is_accepted_with_the_id_under_which_it_is_stored(wheel: Wheel) -> None:
    response = wheel.submit(SUM)
    assert response.status_code == 202
    prompt = a_prompt(accepted_at=seconds(1))
    assert response.json() == {
        "accepted": [
            {
                "prompt_id": prompt.prompt_id,
                "round": 0,
                "accepted_at": prompt.accepted_at.isoformat(),
            }
        ]
    }
    group = wheel.store.group(prompt.key)
    assert group is not None
    assert group.prompt == prompt


def test_prompt_is_stored_before_it_is_published(wheel: Wheel) -> None:
    num_stored: list[int] = []
    wheel.producer.at_publish = lambda: num_stored.append(wheel.num_stored)
    wheel.submit(SUM)
    assert num_stored == [1]
    assert wheel.failpoints.reached == [(Failpoint.GATEWAY_STORED, a_prompt().prompt_id)]


def test_accepted_prompt_is_published_under_its_id(wheel: Wheel) -> None:
    wheel.submit(SUM)
    [message] = wheel.producer.published
    assert message.topic == Topic.PROMPTS.of(WHEEL)
    assert message.key == a_prompt().prompt_id.encode()
    assert Prompt.model_validate_json(message.value or b"") == a_prompt(accepted_at=seconds(1))
    assert dict(message.headers)["ce_source"] == f"/deltawheel/{WHEEL}/gateway".encode()


def test_batch_is_accepted_in_its_order(wheel: Wheel) -> None:
    texts = ("3+1=", "1+1=", "2+1=")
    response = wheel.submit({"prompts": [{**SUM, "text": text} for text in texts]})
    assert response.status_code == 202
    accepted = [entry["prompt_id"] for entry in response.json()["accepted"]]
    assert accepted == [a_prompt(text).prompt_id for text in texts]
    assert [message.key for message in wheel.producer.published] == [
        prompt_id.encode() for prompt_id in accepted
    ]
    assert wheel.num_stored == 3


def test_same_prompt_twice_in_a_batch_is_one_prompt(wheel: Wheel) -> None:
    first, second = wheel.submit({"prompts": [SUM, SUM]}).json()["accepted"]
    assert first == second
    assert wheel.num_stored == 1


def test_resubmission_gives_the_same_id_and_the_first_time(wheel: Wheel) -> None:
    first, second = (wheel.submit(SUM).json() for _ in range(2))
    assert first == second
    assert wheel.num_stored == 1
    one, other = (message.value for message in wheel.producer.published)
    assert one == other


def test_raised_round_is_another_asking_of_the_same_prompt(wheel: Wheel) -> None:
    [first] = wheel.submit(SUM).json()["accepted"]
    [again] = wheel.submit({**SUM, "round": 1}).json()["accepted"]
    assert again["prompt_id"] == first["prompt_id"]
    assert (first["round"], again["round"]) == (0, 1)
    assert again["accepted_at"] > first["accepted_at"]
    assert wheel.num_stored == 2


def test_text_is_short_for_one_user_message(wheel: Wheel) -> None:
    messages = [{"role": "user", "content": "1+1="}]
    [short] = wheel.submit(SUM).json()["accepted"]
    [long] = wheel.submit({**SUM, "text": None, "messages": messages}).json()["accepted"]
    assert short == long


def test_prompt_is_accepted_while_the_broker_is_down(
    wheel: Wheel, caplog: pytest.LogCaptureFixture
) -> None:
    wheel.producer.is_down = True
    assert wheel.submit(SUM).status_code == 202
    assert wheel.num_stored == 1
    assert "stored but not published yet" in caplog.text
    assert wheel.store.owed(before=seconds(60), limit=10) == [a_prompt(accepted_at=seconds(1))]


def test_text_with_nul_characters_is_kept_as_it_came(wheel: Wheel) -> None:
    [accepted] = wheel.submit({"text": "a\x00b", "reference_answer": "\x00"}).json()["accepted"]
    group = wheel.store.group(PromptKey(accepted["prompt_id"], 0))
    assert group is not None
    assert group.prompt.messages[0].content == "a\x00b"
    assert group.prompt.reference_answer == "\x00"


def test_character_beyond_the_basic_plane_is_accepted_in_either_spelling(wheel: Wheel) -> None:
    raw = wheel.submit_raw('{"text": "\U0001f600"}'.encode()).json()
    assert raw == wheel.submit_raw(r'{"text": "\ud83d\ude00"}').json()


def test_field_of_a_later_version_is_ignored(wheel: Wheel) -> None:
    assert wheel.submit({**SUM, "of_a_later_version": {"deep": []}}).status_code == 202


def test_longest_prompt_is_accepted(wheel: Wheel) -> None:
    assert wheel.submit({"text": "x" * MAX_CHARS}).status_code == 202


# refusing


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({}, "give either 'text' or 'messages'"),
        ({"prompts": "1+1="}, "give either 'text' or 'messages'"),
        ({"text": "1+1=", "messages": [{"role": "user", "content": "1"}]}, "one of the two"),
        ({"text": ""}, "text: "),
        ({"text": 1}, "text: "),
        ({"messages": [{"role": "assistant", "content": "1"}]}, "must have the role 'user'"),
        ({"messages": [{"role": "robot", "content": "1"}]}, "messages.0.role: "),
        ({**SUM, "domain": "Not A Name"}, "domain: "),
        ({**SUM, "round": -1}, "round: "),
        ({**SUM, "round": 2**31}, "round: "),
        ({**SUM, "round": 10**30}, "round: "),
        ({"text": "x" * (MAX_CHARS + 1)}, f"gateway.max_prompt_chars is {MAX_CHARS}"),
        ({"messages": [{"role": "user", "content": "x" * 21}] * 2}, "have 42 characters"),
        ({"text": "x", "reference_answer": "x" * MAX_CHARS}, "have 41 characters"),
        ({"text": "x" * 1_000_000}, "have 1000000 characters"),
        ({"text": "\ud800"}, "text: "),
        ({"messages": [{"role": "user", "content": "\udfff"}]}, "messages.0.content: "),
        ({**SUM, "domain": "\ud800"}, "domain: "),
        ({"text": "1+1=", "reference_answer": "2\ud800"}, "reference_answer: "),
    ],
)
def test_wrong_prompt_is_refused_with_one_sentence(empty: Wheel, body: object, reason: str) -> None:
    [fault] = assert_refused(empty, empty.submit(body))
    assert fault["index"] == 0
    assert reason in fault["detail"]


def test_one_wrong_prompt_refuses_its_batch_and_every_wrong_one_is_named(empty: Wheel) -> None:
    response = empty.submit({"prompts": [{"text": ""}, SUM, "1+1="]})
    faults = assert_refused(empty, response)
    assert [fault["index"] for fault in faults] == [0, 2]
    assert response.json()["detail"].startswith("2 of 3 prompts are refused")


def test_empty_batch_is_refused(empty: Wheel) -> None:
    [fault] = assert_refused(empty, empty.submit({"prompts": []}))
    assert fault == {"index": 0, "detail": "'prompts' is empty: send at least one"}


def test_batch_that_is_too_large_is_refused_at_its_first_surplus_prompt(empty: Wheel) -> None:
    [fault] = assert_refused(empty, empty.submit({"prompts": [SUM] * (MAX_BATCH + 1)}))
    assert fault == {"index": MAX_BATCH, "detail": f"send at most {MAX_BATCH} prompts at once"}


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"text": ', b"[]", b'"1+1="', b"null", b"\xff\xfe", b"[" * 500]
)
def test_body_that_is_no_json_object_is_refused_with_a_pointer(
    empty: Wheel, content: bytes
) -> None:
    [fault] = assert_refused(empty, empty.submit_raw(content))
    assert fault["pointer"].startswith("/body")


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b'{"text": "x", "round": 1' + b"0" * 5_000 + b"}"]
)
def test_json_that_no_parser_takes_is_a_bad_request(empty: Wheel, content: bytes) -> None:
    assert_problem(empty.submit_raw(content), 400, "Bad Request")
    assert empty.num_stored == 0


def test_body_of_another_media_type_is_refused(empty: Wheel) -> None:
    kind = {"Content-Type": "text/plain"}
    response = empty.client.post("/v1/prompts", content=json.dumps(SUM), headers=kind)
    assert_refused(empty, response)


def test_unknown_route_is_a_problem(empty: Wheel) -> None:
    assert_problem(empty.client.get("/v1/prompt"), 404, "Not Found")


def test_unknown_method_is_a_problem_that_names_the_known_ones(empty: Wheel) -> None:
    response = empty.client.delete("/v1/pairs")
    assert_problem(response, 405, "Method Not Allowed")
    assert response.headers["Allow"] == "GET"


def test_busy_store_asks_to_try_later_and_nothing_is_published(wheel: Wheel) -> None:
    wheel.store.error = RetryLaterError("the store is busy")
    response = wheel.submit(SUM)
    problem = assert_problem(response, 503, "Service Unavailable")
    assert problem["detail"] == "the store is busy"
    assert int(response.headers["Retry-After"]) > 0
    assert wheel.num_stored == 0
    assert wheel.producer.published == []


@pytest.mark.parametrize("error", [DeltawheelError("the disk is full"), ZeroDivisionError("a bug")])
def test_what_nobody_expected_is_a_problem_too_and_tells_no_secrets(
    wheel: Wheel, error: Exception
) -> None:
    wheel.store.error = error
    response = wheel.submit(SUM)
    assert_problem(response, 500, "Internal Server Error")
    assert str(error) not in response.text


# health and the token


def test_gateway_is_alive_while_its_store_is_away_but_not_ready(wheel: Wheel) -> None:
    assert wheel.client.get("/healthz").json() == {"status": "ok"}
    assert wheel.client.get("/readyz").json() == {"status": "ok"}
    wheel.store.error = RetryLaterError("the store is away")
    assert wheel.client.get("/healthz").status_code == 200
    assert_problem(wheel.client.get("/readyz"), 503, "Service Unavailable")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/prompts"),
        ("GET", "/v1/pairs"),
        ("GET", "/v1/cycles"),
        ("GET", "/v1/generators"),
    ],
)
def test_every_route_of_the_api_asks_for_the_token(guarded: Wheel, method: str, path: str) -> None:
    for given in (None, "secret", "Bearer", "Bearer wrong", "Bearer secret!"):
        headers = {"Authorization": given} if given else {}
        response = guarded.client.request(method, path, json=SUM, headers=headers)
        problem = assert_problem(response, 401, "Unauthorized")
        assert "Authorization: Bearer" in problem["detail"]
        assert response.headers["WWW-Authenticate"] == "Bearer"
    assert guarded.producer.published == []


async def test_body_without_token_is_not_even_read(guarded: Wheel) -> None:
    await guarded.refuse_unread("/v1/prompts", {}, status=401)


async def test_body_that_says_it_is_too_large_is_not_even_read(empty: Wheel) -> None:
    too_large = {"Content-Length": str(empty.gateway.max_body_bytes + 1)}
    await empty.refuse_unread("/v1/prompts", too_large, status=413)


def test_body_that_turns_out_too_large_is_refused(empty: Wheel) -> None:
    def parts() -> Iterator[bytes]:
        yield b'{"text": "'
        for _ in range(5):
            yield b"x" * 1_000_000

    kind = {"Content-Type": "application/json"}
    response = empty.client.post("/v1/prompts", content=parts(), headers=kind)
    problem = assert_problem(response, 413, HTTPStatus.REQUEST_ENTITY_TOO_LARGE.phrase)
    assert "send fewer prompts at once" in problem["detail"]
    assert empty.num_stored == 0


def test_longest_prompt_and_largest_batch_are_within_the_largest_body() -> None:
    limits = GatewaySettings()
    gateway = Gateway(
        settings=Settings(gateway=limits),
        store=None,  # type: ignore[arg-type]
        producer=FakeProducer(),
        clock=TickingClock(),
        random=SystemRandom(),
        failpoints=BlockingFailpoints(),
    )
    widest = json.dumps({**SUM, "text": "\U0001f600" * limits.max_prompt_chars})
    batch = json.dumps(
        {"prompts": [{**SUM, "text": "x" * limits.max_prompt_chars}] * limits.max_batch}
    )
    assert max(len(widest), len(batch)) < gateway.max_body_bytes


async def test_health_answers_while_every_thread_for_requests_waits(wheel: Wheel) -> None:
    gate, waiting = threading.Event(), threading.Semaphore(0)

    def block() -> None:
        waiting.release()
        gate.wait(20)

    wheel.producer.at_publish = block
    transport = httpx2.ASGITransport(wheel.app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://gateway") as client:
        num_threads = int(to_thread.current_default_thread_limiter().total_tokens)
        posts = [
            asyncio.create_task(
                client.post("/v1/prompts", json={**SUM, "text": f"{number}"[:MAX_CHARS]})
            )
            for number in range(num_threads)
        ]
        for _ in posts:
            assert await asyncio.to_thread(waiting.acquire, timeout=20)
        async with asyncio.timeout(10):
            for path in ("/healthz", "/readyz"):
                assert (await client.get(path)).status_code == 200
        gate.set()
        assert {(await post).status_code for post in posts} == {202}


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_asks_for_no_token(guarded: Wheel, path: str) -> None:
    assert guarded.client.get(path).status_code == 200


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json", "/docs/oauth2-redirect"])
def test_pages_that_describe_the_api_are_off_where_a_token_is_asked_for(
    empty: Wheel, guarded: Wheel, path: str
) -> None:
    assert empty.client.get(path).status_code == 200
    headers = {"Authorization": "Bearer secret"}
    assert_problem(guarded.client.get(path), 401, "Unauthorized")
    assert_problem(guarded.client.get(path, headers=headers), 404, "Not Found")


def test_token_opens_the_api(guarded: Wheel) -> None:
    headers = {"Authorization": "Bearer secret"}
    for path in ("/v1/pairs", "/v1/cycles", "/v1/generators"):
        assert guarded.client.get(path, headers=headers).status_code == 200
    refused = guarded.client.post("/v1/prompts", json={}, headers=headers)
    assert_problem(refused, 422, "Unprocessable Entity")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "gateway.example"])
def test_host_that_others_can_reach_needs_a_token(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = GatewaySettings(host=host)
    monkeypatch.setenv(TOKEN_VARIABLE, "")
    with pytest.raises(ConfigError, match=rf"gateway\.host is {host}.*{TOKEN_VARIABLE}"):
        gateway_token(settings)
    monkeypatch.setenv(TOKEN_VARIABLE, "secret")
    assert gateway_token(settings) == "secret"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.0.0.9", "::1"])
def test_loopback_needs_no_token_but_may_have_one(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = GatewaySettings(host=host)
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    assert gateway_token(settings) is None
    monkeypatch.setenv(TOKEN_VARIABLE, "secret")
    assert gateway_token(settings) == "secret"


# reading


def test_pairs_come_in_pages_until_none_is_next(wheel: Wheel) -> None:
    pairs = sorted(
        (a_pair(a_prompt(f"{number}+1=")) for number in range(5)), key=lambda pair: pair.pair_id
    )
    wheel.store.close_groups([a_paired_end(pair) for pair in pairs])
    pages: list[list[str]] = []
    after: str | None = None
    while not pages or after is not None:
        query = {"limit": "2"} | ({"after": after} if after else {})
        page = wheel.client.get("/v1/pairs", params=query).json()
        pages.append([pair["prompt"]["prompt_id"] for pair in page["pairs"]])
        after = page["next"]
    expected = [pair.prompt.prompt_id for pair in pairs]
    assert pages == [expected[:2], expected[2:4], expected[4:]]


def test_page_of_pairs_shows_each_whole(wheel: Wheel) -> None:
    wheel.store.close_groups([a_paired_end()])
    [shown] = wheel.client.get("/v1/pairs").json()["pairs"]
    assert shown == a_pair().model_dump(mode="json")


@pytest.mark.parametrize("path", ["/v1/pairs", "/v1/cycles"])
@pytest.mark.parametrize("limit", ["0", "-1", "1001", "many", "9" * 30])
def test_page_has_one_to_a_thousand_rows(empty: Wheel, path: str, limit: str) -> None:
    response = empty.client.get(path, params={"limit": limit})
    [fault] = assert_problem(response, 422, "Unprocessable Entity")["errors"]
    assert fault["pointer"] == "/query/limit"


def test_page_after_what_no_id_can_be_is_the_clients_fault(empty: Wheel) -> None:
    response = empty.client.get("/v1/pairs?after=pair%00")
    assert (
        "holds a NUL character" in assert_problem(response, 422, "Unprocessable Entity")["detail"]
    )


def test_cycles_come_newest_first_with_their_steps_and_end(wheel: Wheel) -> None:
    older, newer = (a_cycle(str(at), requested_at=seconds(at)) for at in (1, 2))
    for cycle in (older, newer):
        wheel.store.add_cycle(cycle)
    wheel.store.end_cycle(
        older.cycle_id, state=CycleState.ENDED, at=seconds(9), verdict=Verdict.REJECT
    )
    first, second = wheel.client.get("/v1/cycles").json()
    assert (first["cycle_id"], first["state"]) == (newer.cycle_id, "requested")
    assert (second["cycle_id"], second["verdict"]) == (older.cycle_id, "reject")
    assert [step["name"] for step in first["steps"]] == [step.name for step in newer.steps]
    assert len(wheel.client.get("/v1/cycles", params={"limit": "1"}).json()) == 1


def test_generators_are_the_members_of_the_pool_most_capable_first(wheel: Wheel) -> None:
    names = ("weak", "strong", "gone")
    wheel.store.add_pool_events([a_pool_event(a_generator(name)) for name in names])
    drained = a_pool_event(a_generator("gone"), kind=PoolEventKind.DRAINED, cause="operator")
    wheel.store.add_pool_events([drained])
    members = wheel.client.get("/v1/generators").json()
    assert [member["name"] for member in members] == ["strong", "weak"]


def test_prompt_that_is_too_large_for_the_broker_is_refused_and_not_stored(empty: Wheel) -> None:
    settings = Settings(
        wheel=WHEEL,
        gateway=GatewaySettings(max_prompt_chars=200_000),
        broker=BrokerSettings(max_message_bytes=100_000),
    )
    gateway = replace(empty.gateway, settings=settings)
    with TestClient(make_app(gateway, token=None)) as client:
        response = client.post("/v1/prompts", json={"prompts": [SUM, {"text": "x" * 100_000}]})
    [fault] = assert_refused(empty, response)
    assert fault["index"] == 1
    assert "broker.max_message_bytes is 100000" in fault["detail"]


def test_prompt_whose_event_the_broker_refuses_is_accepted_since_it_is_stored(
    empty: Wheel,
) -> None:
    def refuse() -> None:
        raise InvalidRecordError("the broker takes no record of this size")

    empty.producer.at_publish = refuse
    assert empty.submit(SUM).status_code == 202
    assert empty.num_stored == 1


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "http://testserver:81", "http://[", "null", ""]
)
def test_page_of_another_site_changes_nothing(empty: Wheel, origin: str) -> None:
    response = empty.client.post("/v1/prompts", json=SUM, headers={"Origin": origin})
    assert "another site" in assert_problem(response, 403, "Forbidden")["detail"]
    assert empty.client.get("/v1/pairs", headers={"Origin": origin}).status_code == 200


def test_page_of_our_own_may_ask(wheel: Wheel) -> None:
    ours = {"Origin": "http://testserver"}
    assert wheel.client.post("/v1/prompts", json=SUM, headers=ours).status_code == 202
