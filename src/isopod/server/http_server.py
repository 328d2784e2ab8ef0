"""The HTTP server of a worker, on the socket that all workers share."""

from __future__ import annotations

from typing import Any

from granian._granian import SocketHolder
from granian.constants import Interfaces
from granian.http import HTTP1Settings, HTTP2Settings
from granian.server.embed import Server

from isopod.gateway.websockets import WebSockets

BACKLOG = 4096
_MAX_HEADER_BYTES = 64 << 10
_HEADER_TIMEOUT_MS = 15_000


def http_server(app: WebSockets, listener: int) -> Any:
    server: Any = Server(
        app,
        interface=Interfaces.ASGI,
        websockets=True,
        log_enabled=False,
        backlog=BACKLOG,
        backpressure=BACKLOG,
        http1_settings=HTTP1Settings(
            header_read_timeout=_HEADER_TIMEOUT_MS, max_buffer_size=_MAX_HEADER_BYTES
        ),
        http2_settings=HTTP2Settings(
            max_headers_size=_MAX_HEADER_BYTES, keep_alive_interval=30_000, keep_alive_timeout=20
        ),
    )

    # granian would bind a socket of its own per process; ours is shared, so that the connections
    # waiting in it survive this process.
    def use_listener() -> None:
        server._ssp = None
        holder: Any = SocketHolder  # its stub lacks the constructor
        server._shd = holder(listener, False, BACKLOG)

    server._init_shared_socket = use_listener
    return server
