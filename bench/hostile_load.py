"""The clients of the hostile tenants, in a process of their own that gives way to all others: in
life they have machines of their own. `python -m bench.hostile_load PORT NAME:KIND...`; prints what
the node answered, as JSON, when its standard input ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

AT_ONCE = 16  # requests of one tenant, each on a connection of its own
SILENT = 400  # connections that a tenant opens and leaves, again and again
_BODY_MIB = 90
_MIB = 1 << 20


class Tenant:
    def __init__(self, port: int, name: str, kind: str) -> None:
        self.port = port
        self.host = f"{name}.localhost"
        self.kind = kind
        self.answers: Counter[str] = Counter()

    async def run(self) -> None:
        one = {"connections": self._connections, "body": self._body}.get(self.kind, self._request)
        count = 1 if self.kind == "connections" else AT_ONCE
        await asyncio.gather(*(self._again(one) for _ in range(count)))

    async def _again(self, one: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await one()
            except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
                self.answers[type(error).__name__] += 1
                await asyncio.sleep(0.01)

    async def _request(self) -> None:
        """One connection, asked until it is closed. A flood asks for what is answered at once."""
        path = "/" if self.kind == "requests" else f"/{self.kind}"
        head = f"GET {path} HTTP/1.1\r\nHost: {self.host}\r\n\r\n".encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        with contextlib.closing(writer):
            while True:
                writer.write(head)
                await self._answer(reader)

    async def _body(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        with contextlib.closing(writer):
            size = _BODY_MIB * _MIB
            head = f"POST /body HTTP/1.1\r\nHost: {self.host}\r\nContent-Length: {size}\r\n\r\n"
            writer.write(head.encode())
            for _ in range(_BODY_MIB):
                writer.write(b"x" * _MIB)
                await writer.drain()
            await self._answer(reader)

    async def _connections(self) -> None:
        opened = []
        try:
            for _ in range(SILENT):
                opened.append(await asyncio.open_connection("127.0.0.1", self.port))
            await asyncio.sleep(2)
            self.answers["held"] += SILENT
        finally:
            for _, writer in opened:
                writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0] or b"0")
        await reader.readexactly(length)
        self.answers[head[9:12].decode()] += 1
        if b"connection: close" in head:
            raise ConnectionAbortedError


async def _main() -> None:
    port = int(sys.argv[1])
    tenants = [Tenant(port, *pair.split(":")) for pair in sys.argv[2:]]
    running = [asyncio.create_task(tenant.run()) for tenant in tenants]
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    found: dict[str, Counter[str]] = {}
    for tenant in tenants:
        found.setdefault(tenant.kind, Counter()).update(tenant.answers)
    print(json.dumps(found), flush=True)


def _give_way() -> None:
    os.nice(19)
    # Where the kernel shares the CPU by sessions first, that counts within one session only: so a
    # session of its own, which is nice as a whole.
    with contextlib.suppress(OSError):
        os.setsid()
        Path("/proc/self/autogroup").write_text("19")


if __name__ == "__main__":
    _give_way()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    asyncio.run(_main())
