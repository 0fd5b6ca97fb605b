"""`python -m deltawheel.ops.bench.stream.processes.models --port N`: the stub model server."""

import argparse
import asyncio
import signal
from typing import Final

from deltawheel.infra.stub_model_server import StubModelServer
from deltawheel.ops.bench.stream.graded import JUDGE_MODEL, graded_answers
from deltawheel.ops.bench.stream.instant import TEXTS

__all__: list[str] = []

_FORGET_EVERY_S: Final = 1.0


async def serve(port: int) -> None:
    """Answer for both generators and the judge until SIGTERM."""
    answers = {name: lambda asked, text=text: text for name, text in TEXTS.items()}
    server = StubModelServer({**answers, JUDGE_MODEL: graded_answers()})
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with server.running(port=port):
        while not stopped.is_set():
            server.requests.clear()  # it keeps all of them, for tests that look at them
            await asyncio.wait({asyncio.ensure_future(stopped.wait())}, timeout=_FORGET_EVERY_S)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    asyncio.run(serve(parser.parse_args().port))
