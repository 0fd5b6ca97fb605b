"""A gateway that says what a test tells it to, over real HTTP on loopback."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class FakeGateway:
    """Answers as a test says, and remembers what it was asked.

    Each of `first` is the status and the body of one answer; later ones are always the same.
    """

    status: int = 202
    body: bytes = b'{"accepted": []}'
    status_line: bytes = b""
    first: list[tuple[int, bytes]] = field(default_factory=list)
    asked: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)
    url: str = ""


@contextmanager
def serving(gateway: FakeGateway) -> Iterator[FakeGateway]:
    """Let it listen on a free port, which its `url` then names."""

    class Endpoint(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            gateway.asked.append((self.path, dict(self.headers), body))
            if gateway.status_line:
                self.wfile.write(gateway.status_line)
                return
            is_first = bool(gateway.first)
            status, answer = gateway.first.pop(0) if is_first else (gateway.status, gateway.body)
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        gateway.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield gateway
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def a_problem(status: int, detail: str, **more: object) -> FakeGateway:
    """Make one that answers everything with a problem."""
    body = {"type": "about:blank", "status": status, "detail": detail, **more}
    return FakeGateway(status=status, body=json.dumps(body).encode())
