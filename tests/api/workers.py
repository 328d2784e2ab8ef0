"""A worker as control sees it: a socket that takes what is to be run and answers as a test says."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

Answer = dict | None


class FakeWorker:
    """`answer` gives the outcome of a question, or None: it ends without one. While `hold` is
    clear nothing is answered. `gone` counts those who did not wait for their answer."""

    def __init__(self, answer: Callable[[dict], Answer]) -> None:
        self.answer = answer
        self.asked: list[dict] = []
        self.hold = asyncio.Event()
        self.hold.set()
        self.gone = 0
        self.told: list[dict] = []  # what it was not to run

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        question = json.loads(await reader.readline())
        if question["op"] == "run":
            self.asked.append(question)
            holds = asyncio.ensure_future(self.hold.wait())
            hangs_up = asyncio.ensure_future(reader.read(1))
            await asyncio.wait({holds, hangs_up}, return_when=asyncio.FIRST_COMPLETED)
            self.gone += not holds.done()
            holds.cancel()
            hangs_up.cancel()
        else:
            self.told.append(question)
        answer = self.answer(question) if question["op"] == "run" else {}
        if answer is not None:
            writer.write(json.dumps(answer).encode() + b"\n")
        writer.close()


@asynccontextmanager
async def fake_worker(run_dir: Path, answer: Callable[[dict], Answer]) -> AsyncIterator[FakeWorker]:
    worker = FakeWorker(answer)
    # Through the folder's descriptor: a socket path has at most 107 bytes.
    folder = os.open(run_dir, os.O_RDONLY | os.O_DIRECTORY)
    server = await asyncio.start_unix_server(worker.talk, f"/proc/self/fd/{folder}/worker-0.sock")
    try:
        yield worker
    finally:
        server.close()
        (run_dir / "worker-0.sock").unlink()
        os.close(folder)
