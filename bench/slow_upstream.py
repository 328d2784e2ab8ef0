"""A server that answers after a while, in a process of its own: what a model's API is to an app.

Started by `running`. A line on standard input asks how many waited at once at most.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tools.node import ROOT

_PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class Upstream:
    port: int
    process: subprocess.Popen[str]

    def most_at_once(self) -> int:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


@contextmanager
def running(after_s: float, *, together: int = 0) -> Iterator[Upstream]:
    """Answers each request after so long from when `together` of them wait, if these come soon."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.slow_upstream", str(after_s), str(together)],
        cwd=ROOT,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        yield Upstream(int(process.stdout.readline()), process)
    finally:
        process.kill()
        process.communicate()


async def _serve(after_s: float, together: int) -> None:
    waiting = most = 0
    all_wait = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal waiting, most
        try:
            await reader.readuntil(b"\r\n\r\n")
            waiting += 1
            most = max(most, waiting)
            if most >= together:
                all_wait.set()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(all_wait.wait(), _PATIENCE_S)
            await asyncio.sleep(after_s)
            waiting -= 1
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\nanswer")
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        print(most, flush=True)


if __name__ == "__main__":
    asyncio.run(_serve(float(sys.argv[1]), int(sys.argv[2])))
