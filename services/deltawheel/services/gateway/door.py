"""What is refused before a request's body is read: without token, of another site, too large."""

import hmac
from http import HTTPStatus
from typing import Final

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deltawheel.services.gateway.problems import problem

__all__ = ["Doorkeeper"]

_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class Doorkeeper:
    """ASGI middleware in front of every route.

    Args:
        app: What it guards.
        token: What everything but the open paths asks for; None asks for nothing.
        max_bytes: Longest body.
        is_open: Paths that ask for no token.
    """

    def __init__(
        self, app: ASGIApp, *, token: str | None, max_bytes: int, is_open: frozenset[str]
    ) -> None:
        self._app = app
        self._expected = None if token is None else f"Bearer {token}".encode()
        self._max_bytes = max_bytes
        self._is_open = is_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with a problem, or pass the request on and count what of it is read."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if scope["path"] not in self._is_open and not self._has_token(headers):
            refusal = problem(
                HTTPStatus.UNAUTHORIZED,
                "send the header 'Authorization: Bearer <token>'",
                headers={"WWW-Authenticate": "Bearer"},
            )
            await refusal(scope, receive, send)
            return
        if _is_of_another_site(scope, headers):
            refusal = problem(
                HTTPStatus.FORBIDDEN, "a page of another site asks for this in a browser's name"
            )
            await refusal(scope, receive, send)
            return
        if self._announced_bytes(headers) > self._max_bytes:
            refusal = problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, self._too_large)
            await refusal(scope, receive, send)
            return
        await self._app(scope, self._counted(receive), send)

    def _has_token(self, headers: Headers) -> bool:
        given = headers.get("authorization", "").encode()
        return self._expected is None or hmac.compare_digest(given, self._expected)

    def _announced_bytes(self, headers: Headers) -> int:
        length = headers.get("content-length", "")
        return int(length) if length.isascii() and length.isdigit() else 0

    @property
    def _too_large(self) -> str:
        return (
            f"the body has more than {self._max_bytes} bytes, for which gateway.max_batch and "
            "gateway.max_prompt_chars are the measure: send fewer prompts at once"
        )

    def _counted(self, receive: Receive) -> Receive:
        num_bytes = 0

        async def counted() -> Message:
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > self._max_bytes:
                # Raised inside the application, which makes a problem of it like of any other.
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, self._too_large)
            return message

        return counted


def _is_of_another_site(scope: Scope, headers: Headers) -> bool:
    """Whether a page that is not ours had a browser send what changes something.

    Where no token is asked for, any page that is open on this machine could otherwise add members
    to the pool. Browsers name the page in `Origin`; other clients send none.
    """
    origin = headers.get("origin")
    if origin is None or scope["method"] in _READS:
        return False
    return origin.partition("://")[2] != headers.get("host")
