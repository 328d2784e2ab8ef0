"""The worker's admin socket: one JSON line in, one JSON line out. Only control talks to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

_MAX_LINE = 64 << 10
Handler = Callable[[dict[str, Any]], dict[str, Any]]


class AdminSocket:
    """`handlers` by operation name; each takes the request and gives the answer. Who started this
    worker removes the socket's file: a worker that is shut in cannot."""

    def __init__(self, listener: socket.socket, handlers: dict[str, Handler]) -> None:
        self._listener = listener
        self._handlers = handlers
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        self._server = await asyncio.start_unix_server(
            self._talk, sock=self._listener, limit=_MAX_LINE
        )

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()

    @staticmethod
    def bind(path: Path) -> socket.socket:
        """Before the worker is shut in: afterwards it makes no socket and binds none."""
        with contextlib.suppress(FileNotFoundError):
            path.unlink()  # of a worker that was killed
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen()
        return listener

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(5):
                line = await reader.readline()
                writer.write(json.dumps(self._answer(line)).encode() + b"\n")
                await writer.drain()
        except (TimeoutError, OSError, ValueError):
            pass  # a client that went away or sent no line
        finally:
            writer.close()

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
            handler = self._handlers[request["op"]]
        except (ValueError, KeyError, TypeError):
            return {"error": "unknown operation"}
        return handler(request)
