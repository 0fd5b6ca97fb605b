"""A stand-in for vLLM: the OpenAI-compatible routes that the wheel uses, without a model.

For tests and benches, in one's own event loop or as a process:
`python -m deltawheel.infra.stub_model_server --port 8000 --model doubles --latency-ms 50`.
Answers are functions of the prompt; latency, faults and adapters that must be loaded first can
be set, while it runs too.
"""

import argparse
import asyncio
import math
import re
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from aiohttp import web

from deltawheel.contracts.addresses import host_port
from deltawheel.infra.sandbox.grammar import Problem, render_solution

__all__ = [
    "ANSWERS",
    "FAULTS",
    "Answer",
    "StubAnswer",
    "StubFault",
    "StubModelServer",
    "StubRequest",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class StubAnswer:
    """An answer in full, where the text alone does not say enough.

    Args:
        content: The text; None as servers send it when all of it is reasoning.
        reasoning: What stands in the field named `reasoning_field`.
        reasoning_field: `reasoning_content` is what older servers call it.
        finish_reason: `stop`, `length`, or whatever else is to be tried.
        served_model: Who says to have answered; unset, the model that was asked.
        logprobs: The tokens with their probabilities, as they stand in `logprobs.content`.
    """

    content: str | None
    reasoning: str | None = None
    reasoning_field: str = "reasoning"
    finish_reason: str = "stop"
    served_model: str | None = None
    logprobs: Sequence[Mapping[str, Any]] | None = None


Answer: TypeAlias = Callable[[str], "str | StubAnswer"]
"""Gives the answer to the last message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StubFault:
    """What is answered instead; status 0 cuts the connection."""

    status: int
    body: str = "{}"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StubRequest:
    """A request as it came in; `peer` names the connection."""

    peer: str
    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]


def _numbers(text: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", text)]


def _doubles(text: str) -> str:
    numbers = _numbers(text)
    return f"That makes {2 * numbers[0]}." if numbers else "I cannot tell."


def _guesses(text: str) -> str:
    numbers = _numbers(text)
    return f"It may be {2 * numbers[0] + 1}." if numbers else "Who knows?"


def _solves(text: str, *, is_stepwise: bool) -> str:
    try:
        return render_solution(Problem.parse(text), is_stepwise=is_stepwise)
    except ValueError:
        return "A:0"


ANSWERS: Final[Mapping[str, Answer]] = MappingProxyType(
    {
        "doubles": _doubles,
        "guesses": _guesses,
        "stepwise": lambda text: _solves(text, is_stepwise=True),
        "shortcut": lambda text: _solves(text, is_stepwise=False),
        "echo": lambda text: text,
    }
)
"""Answers by name: twice the prompt's first number, one more than that (so always wrong), the
sandbox's solutions with and without steps, and the prompt itself. A model is named after its
answer, with or without something behind a hyphen (`doubles-2`)."""

FAULTS: Final[Mapping[str, StubFault]] = MappingProxyType(
    {
        "busy": StubFault(status=503, headers={"Retry-After": "1"}),
        "garbage": StubFault(status=200, body="<html>no JSON here</html>"),
        "forbidden": StubFault(status=401, body='{"error": {"message": "invalid key"}}'),
        "refused": StubFault(status=400, body='{"error": {"message": "too long"}}'),
        "cut": StubFault(status=0),
    }
)
"""Faults by name, for the command line."""


class StubModelServer:
    """Serves models whose answers are functions.

    Args:
        models: Answer by model; these always answer.
        adapters: Answer by model; these are unknown (404) until they are loaded.
        latency_s: How long each completion takes.

    Attributes:
        load_latency_s: How long the loading of an adapter takes.
        fault: Answered instead of completions while it is set.
        fault_share: Share of the completions that it strikes, evenly spread: 0.25 is every fourth.
        load_fault: Answered instead of loading or unloading an adapter while it is set.
        requests: Every POST that has come, oldest first.
        most_at_once: Completions under way; more are shed with 503.
        roots: Weights that the list of models names, by model.
        num_cut_off: Completions whose client hung up before they were answered.
        loaded: Adapters that answer at the moment; clear it and the server has "restarted".
    """

    def __init__(
        self,
        models: Mapping[str, Answer],
        *,
        adapters: Mapping[str, Answer] | None = None,
        latency_s: float = 0.0,
    ) -> None:
        self.models = dict(models)
        self.adapters = dict(adapters or {})
        self.latency_s = latency_s
        self.load_latency_s = 0.0
        self.fault: StubFault | None = None
        self.fault_share = 1.0
        self.load_fault: StubFault | None = None
        self.requests: list[StubRequest] = []
        self.num_cut_off = 0
        self.roots: dict[str, str] = {}
        self.most_at_once = math.inf
        self._num_under_way = 0
        self.loaded: set[str] = set()
        self._due = 0.0

    def application(self) -> web.Application:
        """Return the routes, to be run by aiohttp."""
        application = web.Application(client_max_size=64 * 1024**2)
        application.add_routes(
            [
                web.get("/health", self._health),
                web.get("/v1/models", self._list),
                web.post("/v1/chat/completions", self._complete),
                web.post("/v1/load_lora_adapter", self._load),
                web.post("/v1/unload_lora_adapter", self._unload),
            ]
        )
        return application

    @asynccontextmanager
    async def running(self, *, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
        """Serve in the running event loop until the block ends; yield the API's base URL."""
        runner = web.AppRunner(
            self.application(), access_log=None, shutdown_timeout=0, handler_cancellation=True
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
            yield f"http://{host_port(host, runner.addresses[0][1])}/v1"
        finally:
            await runner.cleanup()

    def asked(self, route: str) -> list[StubRequest]:
        """Return the requests whose path ends in `route`."""
        return [request for request in self.requests if request.path.endswith(route)]

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response(text="")

    async def _list(self, _: web.Request) -> web.Response:
        names = [*self.models, *sorted(self.loaded)]
        listed = [{"id": name, "root": self.roots.get(name)} for name in names]
        return web.json_response({"object": "list", "data": listed})

    async def _note(self, request: web.Request) -> Mapping[str, Any]:
        body: dict[str, Any] = await request.json()
        transport = request.transport
        self.requests.append(
            StubRequest(
                peer=str(transport.get_extra_info("peername")) if transport else "",
                path=request.path,
                headers=dict(request.headers),
                body=body,
            )
        )
        return body

    async def _complete(self, request: web.Request) -> web.Response:
        body = await self._note(request)
        if self._num_under_way >= self.most_at_once:
            return _failed(FAULTS["busy"], request)
        self._num_under_way += 1
        try:
            await asyncio.sleep(self.latency_s)
        except asyncio.CancelledError:
            self.num_cut_off += 1
            raise
        finally:
            self._num_under_way -= 1
        if self.fault is not None and self._strikes():
            return _failed(self.fault, request)
        name = str(body.get("model"))
        known = self.models | {key: self.adapters[key] for key in self.loaded}
        if name not in known:
            return _error(404, f"The model `{name}` does not exist.", "NotFoundError")
        messages: Sequence[Mapping[str, str]] = body["messages"]
        given = [known[name](messages[-1]["content"]) for _ in range(body.get("n", 1))]
        full = [it if isinstance(it, StubAnswer) else StubAnswer(content=it) for it in given]
        return web.json_response(_completion(full, name, messages))

    async def _load(self, request: web.Request) -> web.Response:
        """Load an adapter; the answers are vLLM's, word for word."""
        body = await self._note(request)
        await asyncio.sleep(self.load_latency_s)
        if self.load_fault is not None:
            return _failed(self.load_fault, request)
        name = str(body.get("lora_name"))
        if name in self.loaded:
            said = f"The lora adapter '{name}' has already been loaded. If you want to load the "
            return _error(400, f"{said}adapter in place, set 'load_inplace' to True.", "BadRequest")
        if name not in self.adapters:
            return _error(404, f"Loading lora {name} failed: No adapter found", "NotFoundError")
        self.loaded.add(name)
        return web.Response(text=f"Success: LoRA adapter '{name}' added successfully.")

    async def _unload(self, request: web.Request) -> web.Response:
        """Forget an adapter; the answers are vLLM's."""
        body = await self._note(request)
        if self.load_fault is not None:
            return _failed(self.load_fault, request)
        name = str(body.get("lora_name"))
        if name not in self.loaded:
            return _error(404, f"The lora adapter '{name}' cannot be found.", "NotFoundError")
        self.loaded.discard(name)
        return web.Response(text=f"Success: LoRA adapter '{name}' removed successfully.")

    def _strikes(self) -> bool:
        self._due += self.fault_share
        if self._due < 1:
            return False
        self._due -= 1
        return True


def _error(status: int, message: str, kind: str) -> web.Response:
    error = {"message": message, "type": kind, "param": None, "code": status}
    return web.json_response({"error": error}, status=status)


def _failed(fault: StubFault, request: web.Request) -> web.Response:
    if fault.status == 0:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()
    return web.Response(status=fault.status, text=fault.body, headers=dict(fault.headers))


def _completion(
    answers: Sequence[StubAnswer], name: str, messages: Sequence[Mapping[str, str]]
) -> dict[str, Any]:
    """Write a completion; a token is what stands between spaces, and there is at least one."""
    num_prompt = max(1, sum(len(message["content"].split()) for message in messages))
    num_written = sum(max(1, len(_text(answer).split())) for answer in answers)
    return {
        "id": "chatcmpl-stub",
        "object": "chat.completion",
        "created": 0,
        "model": answers[0].served_model or name,
        "choices": [_choice(index, answer) for index, answer in enumerate(answers)],
        "usage": {
            "prompt_tokens": num_prompt,
            "completion_tokens": num_written,
            "total_tokens": num_prompt + num_written,
        },
    }


def _text(answer: StubAnswer) -> str:
    return f"{answer.reasoning or ''} {answer.content or ''}"


def _choice(index: int, answer: StubAnswer) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.content}
    if answer.reasoning is not None:
        message[answer.reasoning_field] = answer.reasoning
    choice = {"index": index, "message": message, "finish_reason": answer.finish_reason}
    if answer.logprobs is not None:
        choice["logprobs"] = {"content": list(answer.logprobs)}
    return choice


def _named(model: str) -> Answer:
    """Return the answer that a model's name asks for.

    Raises:
        ValueError: no answer has that name; argparse shows which there are.
    """
    if (answer := ANSWERS.get(model.split("-")[0])) is None:
        raise ValueError(model)
    return answer


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="stub_model_server", description=__doc__)
    models = f"model to serve, named after its answer: {', '.join(ANSWERS)} (or NAME-something)"
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on")
    parser.add_argument("--model", action="append", default=[], help=models)
    parser.add_argument("--adapter", action="append", default=[], help="likewise, once loaded")
    parser.add_argument("--latency-ms", type=float, default=0, help="time that an answer takes")
    parser.add_argument("--fault", choices=sorted(FAULTS), help="fault of the completions")
    parser.add_argument("--fault-share", type=float, default=1.0, help="share that it strikes, 0-1")
    chosen = parser.parse_args(arguments)
    try:
        server = StubModelServer(
            {name: _named(name) for name in chosen.model},
            adapters={name: _named(name) for name in chosen.adapter},
            latency_s=chosen.latency_ms / 1000,
        )
    except ValueError as error:
        parser.error(f"no answer is named {error}; give one of {', '.join(ANSWERS)}")
    server.fault = FAULTS.get(chosen.fault)
    server.fault_share = chosen.fault_share
    sys.stdout.write(f"serving on http://{host_port(chosen.host, chosen.port)}/v1\n")
    sys.stdout.flush()
    web.run_app(
        server.application(), host=chosen.host, port=chosen.port, print=None, access_log=None
    )


if __name__ == "__main__":
    main()
