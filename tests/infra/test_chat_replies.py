"""What an error's answer means, whatever stands in it: a server's nonsense stops nobody."""

import asyncio

import pytest

from deltawheel.contracts.errors import DeltawheelError, InvalidRecordError, RetryLaterError
from deltawheel.infra import http_probe
from deltawheel.infra.chat_replies import Asked, Reply, refusal_of
from tests.records import a_generator

DEEP = b"[" * 100_000


@pytest.mark.parametrize("body", [DEEP, b'{"error": ' + DEEP])
def test_error_that_is_nested_without_end_is_an_error_like_any_other(body: bytes) -> None:
    error = refusal_of(Reply(status=500, body=body, url="u"), Asked.generator(a_generator()))
    assert isinstance(error, RetryLaterError)


def test_fault_whose_place_is_no_list_is_read_all_the_same() -> None:
    reply = Reply(status=422, body=b'{"detail": [{"loc": 7, "msg": "too long"}]}', url="u")
    error = refusal_of(reply, Asked.generator(a_generator()))
    assert isinstance(error, InvalidRecordError)


@pytest.mark.parametrize("offset", ["-9999999999999", "+0000"])
def test_date_that_no_clock_can_show_is_no_time_to_wait_until(offset: str) -> None:
    date = f"Mon, 99 Jan 9999999999999999999 00:00:00 {offset}"
    error = refusal_of(
        Reply(status=503, body=b"", url="u", retry_after=date), Asked.generator(a_generator())
    )
    assert isinstance(error, RetryLaterError)
    assert error.retry_after_s is None


def test_list_of_models_that_is_nested_without_end_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def answer(url: str, **options: object) -> http_probe.Answer:
        return http_probe.Answer(200, DEEP)

    monkeypatch.setattr(http_probe, "ask", answer)
    with pytest.raises(DeltawheelError, match="not with a list of models"):
        asyncio.run(http_probe.served_models("http://s/v1", headers={}, timeout_s=1))
