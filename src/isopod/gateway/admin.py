"""The worker's admin socket: one JSON line in, one JSON line out. Only control talks to it.

Work that takes long is done while its connection is open: control that goes away ends it, so that
nothing runs that nobody knows of.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

_MAX_LINE = 64 << 10
Handler = Callable[[dict[str, Any]], dict[str, Any]]
# The event is set when nobody waits for the answer any more: then it is to end soon.
LongHandler = Callable[[dict[str, Any], asyncio.Event], Awaitable[dict[str, Any]]]


class AdminSocket:
    """`handlers` by operation name; each takes the request and gives the answer; `long` are those
    that take their time. Who started this worker removes the socket's file: a worker that is shut
    in cannot."""

    def __init__(
        self,
        listener: socket.socket,
        handlers: dict[str, Handler],
        long: dict[str, LongHandler],
    ) -> None:
        self._listener = listener
        self._handlers, self._long = handlers, long
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
            answer = await self._long_answer(line, reader)
            async with asyncio.timeout(5):
                writer.write(json.dumps(answer or self._answer(line)).encode() + b"\n")
                await writer.drain()
        except (TimeoutError, OSError, ValueError):
            pass  # a client that went away or sent no line
        finally:
            writer.close()

    async def _long_answer(
        self, line: bytes, reader: asyncio.StreamReader
    ) -> dict[str, Any] | None:
        """None: it is none of the operations that take long."""
        request = _request(line)
        handler = self._long.get(str(request.get("op")))
        if handler is None:
            return None
        gone = asyncio.Event()
        listening = asyncio.create_task(_until_gone(reader, gone))
        try:
            return await handler(request, gone)
        finally:
            listening.cancel()

    def _answer(self, line: bytes) -> dict[str, Any]:
        request = _request(line)
        handler = self._handlers.get(str(request.get("op")))
        return {"error": "unknown operation"} if handler is None else handler(request)


def _request(line: bytes) -> dict[str, Any]:
    try:
        request = json.loads(line)
    except ValueError:
        return {}
    return request if isinstance(request, dict) else {}


async def _until_gone(reader: asyncio.StreamReader, gone: asyncio.Event) -> None:
    with contextlib.suppress(OSError):
        while await reader.read(1024):
            pass
    gone.set()
