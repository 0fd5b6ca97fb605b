"""Servers that tests start for themselves."""

import asyncio
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from deltawheel.infra.listening import answers_200, find_free_port
from deltawheel.infra.stub_model_server import ANSWERS, StubModelServer
from tests.waiting import wait_for


@contextmanager
def stub_server(*models: str) -> Iterator[str]:
    """Run the stub model server; yield the base URL of its API."""
    port = find_free_port()
    argv = [sys.executable, "-m", "deltawheel.infra.stub_model_server", "--port", str(port)]
    for model in models:
        argv += ["--model", model]
    process = subprocess.Popen(argv)
    try:
        wait_for(lambda: answers_200(f"http://127.0.0.1:{port}/health"), what="the stub server")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()


@contextmanager
def endpoints() -> Iterator[Mapping[str, Any]]:
    """Run two stub models; yield the settings of a wheel that asks them."""
    with stub_server("doubles") as right, stub_server("guesses") as wrong:
        yield {
            "servers": [],
            "training": {"is_enabled": False},
            "judge": {"kind": "exact-match"},
            "generators": [
                {"name": "right", "endpoint": right, "model": "doubles", "capability": 1},
                {"name": "wrong", "endpoint": wrong, "model": "guesses", "capability": 0},
            ],
        }


@contextmanager
def stub_in_thread(*models: str) -> Iterator[tuple[StubModelServer, str]]:
    """Run the stub in a thread, to be changed and asked while it serves; yield it and its URL."""
    stub = StubModelServer({model: ANSWERS[model] for model in models})
    urls: queue.Queue[str] = queue.Queue()
    loop, done = asyncio.new_event_loop(), asyncio.Event()

    async def serve() -> None:
        async with stub.running() as url:
            urls.put(url)
            await done.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        yield stub, urls.get(timeout=30)
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join()
        loop.close()
