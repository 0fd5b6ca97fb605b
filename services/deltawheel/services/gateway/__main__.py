"""`python -m deltawheel.services.gateway --settings FILE`."""

import uvicorn

from deltawheel.infra import wiring
from deltawheel.infra.credentials import gateway_token
from deltawheel.services.gateway.api import Gateway, make_app
from deltawheel.services.runtime.entry import Parts, run_process

__all__: list[str] = []

_PUBLISH_TIMEOUT_S = 2.0
"""A client is not kept waiting for a broker that is away: what is stored is published later."""


def serve(parts: Parts) -> int:
    """Serve until stopped."""
    settings = parts.settings.gateway
    gateway = Gateway(
        settings=parts.settings,
        store=parts.store,
        producer=wiring.open_producer(parts.settings, timeout_s=_PUBLISH_TIMEOUT_S),
        clock=parts.clock,
        random=parts.random,
        failpoints=parts.failpoints,
    )
    app = make_app(gateway, token=gateway_token(settings))
    server = uvicorn.Server(
        uvicorn.Config(
            app, host=settings.host, port=settings.port, log_config=None, access_log=False
        )
    )
    parts.announce(lambda: server.started)
    server.run()
    gateway.producer.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(run_process("gateway", serve))
