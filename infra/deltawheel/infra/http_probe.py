"""Asking another machine's HTTP server one question, and what its answer means."""

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import aiohttp

from deltawheel.contracts.errors import ConfigError, DeltawheelError, RetryLaterError

__all__ = ["Answer", "ask", "served_models"]

_MOST_BYTES: Final = 4_000_000


class Answer(NamedTuple):
    """A status and the body, of which no more is read than an honest server writes."""

    status: int
    body: bytes


async def ask(url: str, *, headers: Mapping[str, str], timeout_s: float) -> Answer:
    """Send one GET, as the model client does: without proxies of the environment.

    Raises:
        RetryLaterError: nobody answers within `timeout_s`; the message says why not.
    """
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(url, headers=headers) as response,
        ):
            return Answer(response.status, await response.content.read(_MOST_BYTES))
    except TimeoutError as error:
        raise RetryLaterError(f"{url} did not answer within {timeout_s:g} s") from error
    except (aiohttp.ClientError, OSError) as error:
        why = str(error) or type(error).__name__
        raise RetryLaterError(f"{url} cannot be reached: {why}") from error


async def served_models(
    endpoint: str, *, headers: Mapping[str, str], timeout_s: float
) -> frozenset[str] | None:
    """Return the names that an OpenAI-compatible endpoint lists; None if it lists none.

    Raises:
        RetryLaterError: it cannot be reached, or says that it is busy or broken.
        ConfigError: it refuses the key, or asks for one.
        DeltawheelError: what answers is no such endpoint.
    """
    url = f"{endpoint.rstrip('/')}/models"
    answer = await ask(url, headers=headers, timeout_s=timeout_s)
    if answer.status in (401, 403):
        raise ConfigError(
            f"{url} refuses {'the key' if headers else 'to answer without a key'} ({answer.status})"
        )
    if answer.status in (404, 405, 501):
        return None
    if answer.status == 429 or answer.status >= 500:
        raise RetryLaterError(f"{url} answers {answer.status}")
    names = _names(answer.body) if answer.status == 200 else None
    if names is None:
        raise DeltawheelError(f"{url} answers {answer.status}, but not with a list of models")
    return names


def _names(body: bytes) -> frozenset[str] | None:
    try:
        content: Any = json.loads(body)
        return frozenset(str(model["id"]) for model in content["data"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
