"""Asking generators over OpenAI-compatible servers.

What an answer means is read in `chat_replies`; here are the requests.
"""

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

from deltawheel.contracts.errors import ForeignModelError, InvalidRecordError, RetryLaterError
from deltawheel.contracts.generator import Generator
from deltawheel.contracts.ports import Completion, Telemetry
from deltawheel.contracts.prompt import Message
from deltawheel.infra.adapter_loading import AdapterLoads, changed_weights
from deltawheel.infra.chat_replies import Asked, Reply, completion_of, refusal_of, weights_of
from deltawheel.infra.model_client import ModelClient, UnreachableError, key_headers, trimmed
from deltawheel.infra.server_gate import End, ServerGates

__all__ = ["OpenAIChatModel"]

_SERVER_PREFIX: Final = "server:"
_SHED: Final = frozenset({429, 503})
"""What a server answers that has too much to do."""
_PREFIX_CHARS: Final = 400
"""Requests that begin alike for so long go to the same replica, which has that part cached."""
_PROBE: Final = (Message(role="user", content="1+1="),)


class OpenAIChatModel:
    """One client for all servers; see `contracts.ports.ChatModel`.

    A vLLM that was restarted has forgotten its adapters and answers 404: the adapter is loaded
    again, once for all requests that wait for it, and the request repeated.

    Args:
        servers: Base URL by name of the servers that `up` starts (`server:<name>`).
        api_keys: Key by generator's name and base URL, where one is asked for; never logged.
        member_key: Finds the key of a generator that names its variable itself.
        request_timeout_s: Longest wait for one answer.
        max_in_flight: Most requests to one server at the same time; fewer where it sheds some.
        telemetry: Counts requests and loads.
    """

    def __init__(
        self,
        *,
        servers: Mapping[str, str],
        api_keys: Mapping[tuple[str, str], str],
        request_timeout_s: float,
        telemetry: Telemetry,
        max_in_flight: int = 256,
        member_key: Callable[[Generator], str | None] = lambda generator: None,
    ) -> None:
        self._servers = {name: trimmed(url) for name, url in servers.items()}
        self._headers = {
            (name, trimmed(url)): key_headers(key, owner=f"generators.{name}")
            for (name, url), key in api_keys.items()
            if key.strip()
        }
        self._member_key = member_key
        self._client = ModelClient(
            timeout_s=request_timeout_s, timeout_key="generation.request_timeout_s"
        )
        self._gates = ServerGates(
            ceiling=max_in_flight, longest_wait_s=request_timeout_s, telemetry=telemetry
        )
        self._telemetry = telemetry
        self._loads = AdapterLoads()
        self._weights: dict[tuple[str, str], str] = {}

    async def complete(
        self, generator: Generator, messages: Sequence[Message], *, seed: int
    ) -> Completion:
        """Ask once; see the port for the errors. Nothing at all is no trace, and so refused."""
        sampling = generator.sampling
        written = await self._counted_ask(
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
        if not (written.reasoning or written.answer).strip():
            raise InvalidRecordError(
                f"{generator.name} wrote nothing: {written.completion_tokens} tokens without text, "
                f"finished by {written.finish_reason}"
            )
        return written

    async def load(self, generator: Generator) -> None:
        """Make sure that the generator answers: it is asked for one token, loaded if need be.

        So is each of its replicas; it is enough that one can be reached.

        Raises:
            RetryLaterError: the server is down, busy or too slow.
            ForeignModelError: it serves other weights than before under the same name.
            InvalidRecordError: the revision is no longer served.
        """
        messages = [message.model_dump() for message in _PROBE]
        body = {"model": generator.model, "messages": messages, "temperature": 0, "max_tokens": 1}
        with self._counting(generator):
            bases = self._bases(generator)
            checks = (self._check(generator, base, body) for base in bases)
            ends = await asyncio.gather(*checks, return_exceptions=True)
            away = [end for end in ends if isinstance(end, UnreachableError)]
            for end in ends:
                if isinstance(end, BaseException) and (end not in away or len(away) == len(bases)):
                    raise end

    async def compare(self, generator: Generator) -> None:
        """Compare the weights that each replica names with the earlier; see the port."""
        for base in self._bases(generator):
            with suppress(UnreachableError):
                await self._compare(generator, base)

    async def unload(self, generator: Generator) -> None:
        """Have the server forget the adapter, as vLLM offers it; see the port.

        A server that does not know it (404), or cannot unload at all, has nothing to forget.

        Raises:
            RetryLaterError: the server is down or busy.
        """
        if generator.adapter_path is None:
            return
        body = {"lora_name": generator.model}
        for base in self._bases(generator):
            reply = await self._post("unload_lora_adapter", generator, base, body)
            if reply.status == 200:
                self._telemetry.count("deltawheel_adapter_unloads_total", generator=generator.name)
            elif reply.status not in (400, 404, 405):
                raise refusal_of(reply, Asked.generator(generator))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._loads.aclose()
        await self._client.aclose()

    async def _counted_ask(self, generator: Generator, body: Mapping[str, Any]) -> Completion:
        """Ask the replica that has the prefix, and another where that cannot be reached."""
        with self._counting(generator):
            prefix = json.dumps(body["messages"])[:_PREFIX_CHARS]
            *first, last = self._gates.preferred(self._bases(generator), prefix=prefix)
            for base in first:
                with suppress(UnreachableError):
                    return await self._ask(generator, base, body)
            return await self._ask(generator, last, body)

    @contextmanager
    def _counting(self, generator: Generator) -> Iterator[None]:
        try:
            yield
        except RetryLaterError as error:
            error.dependency = generator.server
            self._count(generator, "retry")
            raise
        except InvalidRecordError:
            self._count(generator, "refused")
            raise
        self._count(generator, "ok")

    def _count(self, generator: Generator, result: str) -> None:
        self._telemetry.count(
            "deltawheel_model_requests_total", generator=generator.name, result=result
        )

    async def _ask(self, generator: Generator, base: str, body: Mapping[str, Any]) -> Completion:
        num_loads = self._loads.num_done(generator, base)
        reply = await self._post("chat/completions", generator, base, body)
        if reply.is_unknown_model and generator.adapter_path is not None:
            await self._loads.ensure(generator, base, self._load, since=num_loads)
            reply = await self._post("chat/completions", generator, base, body)
            if reply.is_unknown_model:
                raise RetryLaterError(
                    f"{generator.name}: its server forgot {generator.model!r} as soon as it was "
                    "loaded; it may have been restarted"
                )
        if reply.status != 200:
            raise refusal_of(reply, Asked.generator(generator))
        return completion_of(reply, Asked.generator(generator))

    async def _check(self, generator: Generator, base: str, body: Mapping[str, Any]) -> None:
        """Have one replica write a token, and compare its weights."""
        await self._ask(generator, base, body)
        await self._compare(generator, base)

    async def _compare(self, generator: Generator, base: str) -> None:
        """Compare the weights that one replica names with the earlier.

        vLLM names the folder or hub name (`root` in /v1/models). What is exchanged in place, or
        while nobody looks, is not noticed.
        """
        asked = Asked.generator(generator)
        headers = self._headers_for(generator, base)
        reply = await self._client.get(base, "models", asked=asked, headers=headers)
        if (root := weights_of(reply, generator.model)) is None:
            return
        earlier = self._weights.setdefault((base, generator.reference), root)
        if root != earlier:
            raise ForeignModelError(
                f"{generator.name} at {base} now serves {root!r}, and served {earlier!r}: give it "
                f"its new revision in {asked.key}.revision"
            )

    async def _load(self, generator: Generator, base: str) -> None:
        """Load the adapter, as vLLM offers it.

        Raises:
            InvalidRecordError: the server does not take it: its files are gone, or are no adapter;
                or other weights lie there by now, which must not write under this revision.
        """
        if (found := await asyncio.to_thread(changed_weights, generator)) is not None:
            raise InvalidRecordError(
                f"revision {generator.revision} of {generator.name} is no longer served: "
                f"{generator.adapter_path} holds other weights now ({found}); declare or add it "
                "anew, which is another revision"
            )
        body = {"lora_name": generator.model, "lora_path": generator.adapter_path}
        reply = await self._post("load_lora_adapter", generator, base, body)
        if reply.status == 200:
            self._telemetry.count("deltawheel_adapter_loads_total", generator=generator.name)
        elif reply.status in (400, 404) and "already" not in reply.said:
            raise InvalidRecordError(
                f"revision {generator.revision} of {generator.name} is no longer served, and its "
                f"adapter cannot be loaded ({reply.status}: {reply.said}); the server must allow "
                "it (VLLM_ALLOW_RUNTIME_LORA_UPDATING=True) and see the folder"
            )
        elif reply.status != 400:
            raise refusal_of(reply, Asked.generator(generator))

    async def _post(
        self, route: str, generator: Generator, base: str, body: Mapping[str, Any]
    ) -> Reply:
        """Send a request once there is a place for it at the server."""
        asked, headers = Asked.generator(generator), self._headers_for(generator, base)
        async with self._gates.visiting(base) as visit:
            try:
                reply = await self._client.post(base, route, body, asked=asked, headers=headers)
            except UnreachableError:
                visit.end = End.UNREACHABLE
                raise
            except RetryLaterError as error:
                if isinstance(error.__cause__, TimeoutError):
                    visit.end = End.TOO_LATE
                raise
            visit.end = End.SHED if reply.status in _SHED else End.ANSWERED
            return reply

    def _headers_for(self, generator: Generator, base: str) -> Mapping[str, str] | None:
        """Return the header with the key; those of the settings go to no servers but theirs."""
        if (key := self._member_key(generator)) is not None:
            return key_headers(key, owner=generator.name)
        return self._headers.get((generator.name, base))

    def _bases(self, generator: Generator) -> list[str]:
        return [self._base_url(generator), *map(trimmed, generator.replicas)]

    def _base_url(self, generator: Generator) -> str:
        if not generator.endpoint.startswith(_SERVER_PREFIX):
            return trimmed(generator.endpoint)
        name = generator.endpoint.removeprefix(_SERVER_PREFIX)
        if name not in self._servers:
            raise InvalidRecordError(
                f"revision {generator.revision} of {generator.name} is no longer served: it was "
                f"on server {name!r}, and servers are now {sorted(self._servers)}"
            )
        return self._servers[name]
