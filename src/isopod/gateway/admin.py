"""The worker's admin socket: one JSON line in, one JSON line out. Only control talks to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

_MAX_LINE = 64 << 10
Handler = Callable[[dict[str, Any]], dict[str, Any]]


class AdminSocket:
    """`handlers` by operation name; each takes the request and gives the answer."""

    def __init__(self, path: Path, handlers: dict[str, Handler]) -> None:
        self._path = path
        self._handlers = handlers
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()  # of a worker that was killed
        self._server = await asyncio.start_unix_server(self._talk, self._path, limit=_MAX_LINE)
        self._path.chmod(0o600)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()

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
