"""Requests to OpenAI-compatible servers, with aiohttp; what they answer is read elsewhere."""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import aiohttp

from deltawheel.contracts.errors import ConfigError, RetryLaterError
from deltawheel.infra.chat_replies import Asked, Reply

__all__ = ["ModelClient", "UnreachableError", "Watch", "key_headers", "trimmed"]

Watch: TypeAlias = Callable[[Mapping[str, Any], Reply], None]
"""Is shown each request's body and what was answered, for whoever wants to look at them."""

_MOST_BYTES: Final = 16_000_000
"""Of one answer: many times what any `max_tokens` of ours gives, and little enough to be held."""
# uvicorn, and so vLLM, closes idle connections after 5 s; a request on one just closed would fail.
_KEEPALIVE_S: Final = 4.0


class UnreachableError(RetryLaterError):
    """Nobody listens there, or the connection broke; another replica may answer."""


class ModelClient:
    """One session for all servers. It belongs to one event loop.

    Args:
        timeout_s: Longest wait for one answer.
        timeout_key: The setting that says so.
        watch: Is shown what goes back and forth.
    """

    def __init__(self, *, timeout_s: float, timeout_key: str, watch: Watch | None = None) -> None:
        self._timeout_s = timeout_s
        self._timeout_key = timeout_key
        self._watch = watch
        self._session: aiohttp.ClientSession | None = None

    async def post(
        self,
        base: str,
        route: str,
        body: Mapping[str, Any],
        *,
        asked: Asked,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send one request and return whatever the server answers.

        Raises:
            UnreachableError: nobody listens, or the connection broke.
            RetryLaterError: no answer came in time; or the endpoint in the settings is no URL.
        """
        reply = await self._send("POST", base, route, asked=asked, headers=headers, body=body)
        if self._watch is not None:
            self._watch(body, reply)
        return reply

    async def get(
        self, base: str, route: str, *, asked: Asked, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Ask what the server has to tell by itself; errors as `post`'s."""
        return await self._send("GET", base, route, asked=asked, headers=headers, body=None)

    async def _send(
        self,
        method: str,
        base: str,
        route: str,
        *,
        asked: Asked,
        headers: Mapping[str, str] | None,
        body: Mapping[str, Any] | None,
    ) -> Reply:
        url = f"{base}/{route}"
        try:
            async with self._opened().request(method, url, json=body, headers=headers) as response:
                return await _read(response, url)
        except TimeoutError as error:
            raise RetryLaterError(
                f"{asked.name} did not answer within {self._timeout_s:g} s ({self._timeout_key})"
            ) from error
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
            raise RetryLaterError(
                f"{asked.key}.endpoint: {base!r} is no URL; it should look like http://host:8000/v1"
            ) from error
        except aiohttp.ClientError as error:
            raise UnreachableError(
                f"{asked.name} at {base} cannot be reached: {error or type(error).__name__}"
            ) from error

    async def aclose(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _opened(self) -> aiohttp.ClientSession:
        """Return the session, made inside the running loop: aiohttp binds it to that."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self._timeout_s),
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE_S),
            )
        return self._session


async def _read(response: aiohttp.ClientResponse, url: str) -> Reply:
    """Read an answer; of one without end, no more than is ever of use."""
    body = bytearray()
    async for part in response.content.iter_any():
        body += part
        if len(body) > _MOST_BYTES:
            response.close()
            break
    return Reply(
        status=response.status,
        body=bytes(body[:_MOST_BYTES]),
        url=url,
        retry_after=response.headers.get("Retry-After"),
        is_cut=len(body) > _MOST_BYTES,
    )


def trimmed(url: str) -> str:
    """Return a base URL as routes are put behind it."""
    return url.rstrip("/")


def key_headers(key: str, *, owner: str) -> dict[str, str]:
    """Return the header that carries the key; `owner` is where the settings name whose it is.

    Raises:
        ConfigError: the key holds line breaks or other characters that no header can.
    """
    if not (bare := key.strip()).isascii() or not bare.isprintable():
        raise ConfigError(
            f"{owner}.api_key_env: the key cannot be sent; the environment variable must hold one "
            "line of printable ASCII"
        )
    return {"Authorization": f"Bearer {bare}"}
