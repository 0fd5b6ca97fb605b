"""Redeliveries are summed over processes that come and go."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from deltawheel.contracts.settings import Settings
from deltawheel.ops.bench.chaos.witness import Redeliveries
from deltawheel.ops.supervisor.plan import service_file


@contextmanager
def metrics_page(settings: Settings, *, pid: int, found: int, owed: int) -> Iterator[None]:
    """Serve what a judging service would, and say so in its file."""
    page = (
        f'deltawheel_effects_found_total{{effect="judgement",wheel="default"}} {found}.0\n'
        f'deltawheel_effects_found_total{{effect="trace",wheel="default"}} 1.0\n'
        f'deltawheel_owed_events_republished_total{{topic="traces"}} {owed}.0\n'
        f'deltawheel_owed_events_republished_created{{topic="traces"}} 1.7e9\n'
    ).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, format: str, *args: object) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        told = {"pid": pid, "health_port": server.server_port}
        path = service_file(settings, "judging")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(told))
        yield
        server.shutdown()


def test_counts_of_a_process_that_died_stay_in_the_sum(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    redeliveries = Redeliveries(settings)
    redeliveries.read()
    assert (redeliveries.num_found, redeliveries.num_owed) == (0, 0)
    with metrics_page(settings, pid=1, found=4, owed=2):
        redeliveries.read()
        redeliveries.read()
        assert (redeliveries.num_found, redeliveries.num_owed) == (5, 2)
    redeliveries.read()
    with metrics_page(settings, pid=2, found=10, owed=0):
        redeliveries.read()
    assert (redeliveries.num_found, redeliveries.num_owed) == (16, 2)
