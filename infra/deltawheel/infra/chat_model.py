"""Asking generators over OpenAI-compatible servers, with aiohttp.

What an answer means is read in `chat_replies`; here are the requests.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import aiohttp

from deltawheel.contracts.errors import ConfigError, InvalidRecordError, RetryLaterError
from deltawheel.contracts.generator import Generator
from deltawheel.contracts.ports import Completion, Telemetry
from deltawheel.contracts.prompt import Message
from deltawheel.infra.adapter_loading import AdapterLoads
from deltawheel.infra.chat_replies import Reply, completion_of, refusal_of

__all__ = ["OpenAIChatModel", "key_headers"]

_SERVER_PREFIX: Final = "server:"
# uvicorn, and so vLLM, closes idle connections after 5 s; a request on one just closed would fail.
_KEEPALIVE_S: Final = 4.0
_PROBE: Final = (Message(role="user", content="1+1="),)


class OpenAIChatModel:
    """One client for all servers; see `contracts.ports.ChatModel`.

    A vLLM that was restarted has forgotten its adapters and answers 404: the adapter is loaded
    again, once for all requests that wait for it, and the request repeated.

    Args:
        servers: Base URL by name of the servers that `up` starts (`server:<name>`).
        api_keys: Key by generator's name and base URL, where one is asked for; never logged.
        request_timeout_s: Longest wait for one answer.
        telemetry: Counts requests and loads.
    """

    def __init__(
        self,
        *,
        servers: Mapping[str, str],
        api_keys: Mapping[tuple[str, str], str],
        request_timeout_s: float,
        telemetry: Telemetry,
    ) -> None:
        self._servers = {name: _trimmed(url) for name, url in servers.items()}
        self._headers = {
            (name, _trimmed(url)): key_headers(name, key)
            for (name, url), key in api_keys.items()
            if key.strip()
        }
        self._timeout_s = request_timeout_s
        self._telemetry = telemetry
        self._loads = AdapterLoads()
        self._session: aiohttp.ClientSession | None = None

    async def complete(
        self, generator: Generator, messages: Sequence[Message], *, seed: int
    ) -> Completion:
        """Ask once; see the port for the errors."""
        sampling = generator.sampling
        return await self._counted_ask(
            generator,
            {
                "model": generator.model,
                "messages": [message.model_dump() for message in messages],
                "temperature": float(sampling.temperature),
                "top_p": float(sampling.top_p),
                "max_tokens": sampling.max_tokens,
                "seed": seed,
            },
        )

    async def load(self, generator: Generator) -> None:
        """Make sure that the generator answers: it is asked for one token, loaded if need be.

        Raises:
            RetryLaterError: the server is down, busy or too slow.
            InvalidRecordError: the revision is no longer served.
        """
        messages = [message.model_dump() for message in _PROBE]
        body = {"model": generator.model, "messages": messages, "temperature": 0, "max_tokens": 1}
        await self._counted_ask(generator, body)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._loads.aclose()
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _counted_ask(self, generator: Generator, body: Mapping[str, Any]) -> Completion:
        try:
            completion = await self._ask(generator, body)
        except RetryLaterError as error:
            error.dependency = generator.server
            self._count(generator, "retry")
            raise
        except InvalidRecordError:
            self._count(generator, "refused")
            raise
        self._count(generator, "ok")
        return completion

    def _count(self, generator: Generator, result: str) -> None:
        self._telemetry.count(
            "deltawheel_model_requests_total", generator=generator.name, result=result
        )

    async def _ask(self, generator: Generator, body: Mapping[str, Any]) -> Completion:
        num_loads = self._loads.num_done(generator)
        reply = await self._post("chat/completions", generator, body)
        if reply.is_unknown_model and generator.adapter_path is not None:
            await self._loads.ensure(generator, self._load, since=num_loads)
            reply = await self._post("chat/completions", generator, body)
            if reply.is_unknown_model:
                raise RetryLaterError(
                    f"{generator.name}: its server forgot {generator.model!r} as soon as it was "
                    "loaded; it may have been restarted"
                )
        if reply.status != 200:
            raise refusal_of(reply, generator)
        return completion_of(reply, generator)

    async def _load(self, generator: Generator) -> None:
        """Load the adapter, as vLLM offers it.

        Raises:
            InvalidRecordError: the server does not take it: its files are gone, or are no adapter.
        """
        body = {"lora_name": generator.model, "lora_path": generator.adapter_path}
        reply = await self._post("load_lora_adapter", generator, body)
        if reply.status == 200:
            self._telemetry.count("deltawheel_adapter_loads_total", generator=generator.name)
        elif reply.status in (400, 404) and "already" not in reply.said:
            raise InvalidRecordError(
                f"revision {generator.revision} of {generator.name} is no longer served, and its "
                f"adapter cannot be loaded ({reply.status}: {reply.said}); the server must allow "
                "it (VLLM_ALLOW_RUNTIME_LORA_UPDATING=True) and see the folder"
            )
        elif reply.status != 400:
            raise refusal_of(reply, generator)

    async def _post(self, route: str, generator: Generator, body: Mapping[str, Any]) -> Reply:
        """Send one request and return whatever the server answers.

        Raises:
            RetryLaterError: no answer came, or not in time; or the endpoint in the settings is no
                URL.
        """
        base = self._base_url(generator)
        url = f"{base}/{route}"
        try:
            async with self._opened().post(
                url, json=body, headers=self._headers.get((generator.name, base))
            ) as response:
                return Reply(
                    status=response.status,
                    body=await response.read(),
                    url=url,
                    retry_after=response.headers.get("Retry-After"),
                )
        except TimeoutError as error:
            raise RetryLaterError(
                f"{generator.name} did not answer within {self._timeout_s:g} s "
                "(generation.request_timeout_s)"
            ) from error
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
            raise RetryLaterError(
                f"generators.{generator.name}.endpoint: {generator.endpoint!r} is no URL; it "
                "should look like http://host:8000/v1"
            ) from error
        except aiohttp.ClientError as error:
            raise RetryLaterError(
                f"{generator.name} at {base} cannot be reached: {error or type(error).__name__}"
            ) from error

    def _base_url(self, generator: Generator) -> str:
        if not generator.endpoint.startswith(_SERVER_PREFIX):
            return _trimmed(generator.endpoint)
        name = generator.endpoint.removeprefix(_SERVER_PREFIX)
        if name not in self._servers:
            raise InvalidRecordError(
                f"revision {generator.revision} of {generator.name} is no longer served: it was "
                f"on server {name!r}, and servers are now {sorted(self._servers)}"
            )
        return self._servers[name]

    def _opened(self) -> aiohttp.ClientSession:
        """Return the session, made inside the running loop: aiohttp binds it to that."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self._timeout_s),
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE_S),
            )
        return self._session


def _trimmed(url: str) -> str:
    return url.rstrip("/")


def key_headers(name: str, key: str) -> dict[str, str]:
    """Return the header that carries the key.

    Raises:
        ConfigError: the key holds line breaks or other characters that no header can.
    """
    if not (bare := key.strip()).isascii() or not bare.isprintable():
        raise ConfigError(
            f"generators.{name}.api_key_env: the key cannot be sent; the environment variable "
            "must hold one line of printable ASCII"
        )
    return {"Authorization": f"Bearer {bare}"}
