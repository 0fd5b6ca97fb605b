"""Servers that tests start for themselves."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from deltawheel.infra.listening import answers_200, find_free_port
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
