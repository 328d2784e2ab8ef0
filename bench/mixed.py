"""Mixed load for the soak, from a process of its own: warm, cold, cancelled, and runaway requests.

Runs until its standard input ends, then prints what happened as JSON. Every answer that is not
the expected one is an error.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections import Counter
from collections.abc import Awaitable, Callable

HOT = 4  # apps that are asked all the time


class Load:
    def __init__(self, port: int, pace: float, apps: list[str]) -> None:
        self._port = port
        self._pace = pace
        self._apps = apps
        self.counts: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.cold_ms: list[float] = []
        self._stop = asyncio.Event()

    async def run(self) -> None:
        kinds: list[tuple[Callable[[], Awaitable[None]], float]] = [
            *[(self._warm, 0.005)] * 2,
            *[(self._cold, 0.01)] * 3,
            (self._cancel, 0.1),
            (self._spin, 2.0),
            (self._changing, 0.1),
            (self._alone, 0.05),
        ]
        tasks = [asyncio.create_task(self._repeat(kind, pause)) for kind, pause in kinds]
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        self._stop.set()
        await asyncio.gather(*tasks)

    async def _repeat(self, kind: Callable[[], Awaitable[None]], pause_s: float) -> None:
        name = kind.__name__.strip("_")
        while not self._stop.is_set():
            try:
                async with asyncio.timeout(60):
                    await kind()
                self.counts[name] += 1
            except (OSError, AssertionError, TimeoutError, asyncio.IncompleteReadError) as error:
                self.errors[f"{name}: {type(error).__name__} {error}"[:300]] += 1
            await asyncio.sleep(random.expovariate(self._pace / pause_s))

    async def _warm(self) -> None:
        """Twenty requests on one connection to an app that is always awake."""
        app = self._apps[random.randrange(HOT)]
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            for _ in range(20):
                status, body = await _exchange(reader, writer, app, "/")
                assert (status, body) == (200, b"Hello from Flask!\n"), (status, body)
        finally:
            writer.close()

    async def _cold(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await self._ask(random.choice(self._apps), "/", 200, b"Hello from Flask!\n")
        self.cold_ms.append((loop.time() - began) * 1e3)

    async def _cancel(self) -> None:
        """A client that goes away while its request is served."""
        _, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(_head(random.choice(self._apps[:40]), random.choice(["/slow", "/stream"])))
        await writer.drain()
        if random.random() < 0.5:
            await asyncio.sleep(random.random() * 0.2)
        writer.transport.abort()

    async def _spin(self) -> None:
        """A guest that its deadline kills; the next request is served all the same."""
        await self._ask("runaway", "/spin", 504, None)
        await self._ask("runaway", "/", 200, None)

    async def _changing(self) -> None:
        """An app of which new versions are deployed."""
        await self._ask("changing", "/", 200, b"Hello from Flask!\n")

    async def _alone(self) -> None:
        """With an instance per request."""
        await self._ask("alone", "/count", 200, b"1")

    async def _ask(self, app: str, path: str, status: int, body: bytes | None) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            got = await _exchange(reader, writer, app, path)
            assert got[0] == status and body in (None, got[1]), (app, path, got)
        finally:
            writer.close()


def _head(app: str, path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {app}.localhost\r\n\r\n".encode()


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, app: str, path: str
) -> tuple[int, bytes]:
    writer.write(_head(app, path))
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    _, found, rest = head.partition(b"\r\ncontent-length:")
    assert found, head
    return int(head[9:12]), await reader.readexactly(int(rest.partition(b"\r\n")[0]))


async def _main() -> None:
    load = Load(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3].split(","))
    await load.run()
    body = {"counts": load.counts, "errors": load.errors, "cold_ms": load.cold_ms}
    print(json.dumps(body), flush=True)


if __name__ == "__main__":
    asyncio.run(_main())
