"""The gateway's client against a small HTTP server on loopback."""

import json

import pytest

from deltawheel.contracts.errors import DeltawheelError, RetryLaterError
from deltawheel.infra.gateway_client import GatewayClient, RefusedPromptsError
from deltawheel.infra.listening import find_free_port
from tests.gateways import FakeGateway, a_problem, serving

TOKEN = "DELTAWHEEL_GATEWAY_TOKEN"
SUM = {"text": "1+1="}


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN, raising=False)


def test_prompts_are_sent_as_one_batch_and_the_accepted_ones_returned() -> None:
    accepted = [{"prompt_id": "prompt_1", "round": 0, "accepted_at": "2026-01-01T00:00:00+00:00"}]
    with serving(FakeGateway(body=json.dumps({"accepted": accepted}).encode())) as gateway:
        assert GatewayClient(gateway.url + "/").submit([SUM, {"text": "2+1="}]) == accepted
    [(path, headers, body)] = gateway.asked
    assert path == "/v1/prompts"
    assert body == {"prompts": [SUM, {"text": "2+1="}]}
    assert headers["Content-Type"] == "application/json"
    assert "Authorization" not in headers


def test_token_of_the_environment_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN, "secret")
    with serving(FakeGateway()) as gateway:
        GatewayClient(gateway.url).submit([SUM])
    [(_, headers, _)] = gateway.asked
    assert headers["Authorization"] == "Bearer secret"


def test_refused_prompts_are_named_by_their_index() -> None:
    faults = [
        {"index": 0, "detail": "text: is empty"},
        {"index": 7, "detail": "round: is negative"},
    ]
    with (
        serving(a_problem(422, "2 of 8 prompts are refused", errors=faults)) as gateway,
        pytest.raises(RefusedPromptsError, match="2 of 8 prompts are refused") as caught,
    ):
        GatewayClient(gateway.url).submit([SUM])
    assert caught.value.refused == {0: "text: is empty", 7: "round: is negative"}


def test_malformed_request_is_refused_without_an_index() -> None:
    faults = [{"pointer": "/body", "detail": "Field required"}]
    with (
        serving(a_problem(422, "/body: Field required", errors=faults)) as gateway,
        pytest.raises(RefusedPromptsError, match="Field required") as caught,
    ):
        GatewayClient(gateway.url).submit([SUM])
    assert caught.value.refused == {}


def test_missing_token_is_said_with_the_variable_to_set() -> None:
    with (
        serving(a_problem(401, "send the header")) as gateway,
        pytest.raises(DeltawheelError, match=f"set {TOKEN}") as caught,
    ):
        GatewayClient(gateway.url).submit([SUM])
    assert not isinstance(caught.value, RetryLaterError)


def test_busy_store_means_to_try_later() -> None:
    with (
        serving(a_problem(503, "the store is busy")) as gateway,
        pytest.raises(RetryLaterError, match="the store is busy"),
    ):
        GatewayClient(gateway.url).submit([SUM])


@pytest.mark.parametrize(
    "body",
    [
        b"<html>Bad Gateway</html>",
        b"\xff\xfe",
        b"",
        b"[]",
        b'"detail"',
        b"null",
        pytest.param(b"[" * 100_000, id="nested too deeply"),
    ],
)
def test_answer_that_is_no_problem_is_told_by_its_status(body: bytes) -> None:
    with (
        serving(FakeGateway(status=502, body=body)) as gateway,
        pytest.raises(DeltawheelError, match="answered 502: Bad Gateway"),
    ):
        GatewayClient(gateway.url).submit([SUM])


@pytest.mark.parametrize("status_line", [b"220 mail.example ESMTP\r\n", b"HTTP/1.1 200 OK\r\n"])
def test_server_of_another_kind_does_not_answer(status_line: bytes) -> None:
    with (
        serving(FakeGateway(status_line=status_line)) as gateway,
        pytest.raises(RetryLaterError, match=f"the gateway at {gateway.url} does not answer"),
    ):
        GatewayClient(gateway.url).submit([SUM])


def test_gateway_that_is_not_there_does_not_answer() -> None:
    url = f"http://127.0.0.1:{find_free_port()}"
    with pytest.raises(RetryLaterError, match=f"{url} does not answer.*is the wheel up"):
        GatewayClient(url).submit([SUM])


@pytest.mark.parametrize(
    "body", [b"{}", b"[]", b"null", b"7", b'{"accepted": null}', b'{"accepted": {"prompt_id": 1}}']
)
def test_answer_without_accepted_prompts_is_told_and_not_asked_for_again(body: bytes) -> None:
    with (
        serving(FakeGateway(status=200, body=body)) as gateway,
        pytest.raises(DeltawheelError, match="answered 200 without saying what it") as caught,
    ):
        GatewayClient(gateway.url).submit([SUM])
    assert not isinstance(caught.value, RetryLaterError)


@pytest.mark.parametrize(
    "errors", [None, 7, "text", {"index": 0}, ["text"], [{}], [{"index": "0", "detail": "x"}]]
)
def test_faults_of_another_form_name_no_prompt(errors: object) -> None:
    with (
        serving(a_problem(422, "refused", errors=errors)) as gateway,
        pytest.raises(RefusedPromptsError, match="refused") as caught,
    ):
        GatewayClient(gateway.url).submit([SUM])
    assert caught.value.refused == {}


def test_problem_that_breaks_off_is_told_by_its_status() -> None:
    line = b"HTTP/1.0 500 Internal Server Error\r\nContent-Length: 99\r\n\r\n{"
    with (
        serving(FakeGateway(status_line=line)) as gateway,
        pytest.raises(DeltawheelError, match="answered 500: Internal Server Error"),
    ):
        GatewayClient(gateway.url).submit([SUM])
