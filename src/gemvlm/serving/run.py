"""An ASGI application on a port, until it is told to stop."""

from __future__ import annotations

from typing import Any

import uvicorn

MOST_CONNECTIONS = 2048
"""Open sockets beyond which uvicorn itself refuses; requests are counted, and refused in good form, by `Gate`."""


def server(app: Any, host: str, port: int, *, drain_s: float, connections: int = MOST_CONNECTIONS) -> uvicorn.Server:
    """A server to be `.run()`: on SIGTERM it takes nothing new and finishes what it has, for up to `drain_s`."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            host=host,
            port=port,
            limit_concurrency=connections,
            timeout_keep_alive=20,
            timeout_graceful_shutdown=max(1, round(drain_s)),
            server_header=False,
            access_log=False,
            log_level="warning",
        )
    )
