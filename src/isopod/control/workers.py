"""Asking the node's workers: one JSON line each way over their admin sockets.

A worker that does not answer within a second is left out: it is starting, ending or dead, and
follows routes.db by itself in any case.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from isopod.model.job import Outcome
from isopod.model.tenant import TenantName

_ANSWER_S = 1.0
_BUSY_ANSWER_S = 5.0  # where it is worth waiting for one that has much to do
# A worker of a tenant's own is started with its first app, in some seconds.
_STARTING_S, _LOOK_AGAIN_S = 20.0, 0.1
_FIRST_LOOK_S, _LAST_LOOK_S = 0.01, 0.5
_LINE_BYTES = 64 * 2**20  # a worker lists every instance in one line


@dataclass(frozen=True, slots=True)
class InstanceStatus:
    """One instance, as its worker sees it."""

    app: str
    version: int
    state: str  # "starting", "idle" or "busy"
    id: str
    worker: int
    memory_bytes: int  # linear memory, as the guest sees it
    private_bytes: int  # what it costs the node: without what it shares with its image
    requests: int
    idle_s: float
    age_s: float


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """One worker process."""

    worker: int
    pid: int
    memory_bytes: int  # of its instances: private
    rss_bytes: int  # of the process
    instances: tuple[InstanceStatus, ...]
    # name -> queued, requests, cold_starts, errors; starts_ms: the last starts, in milliseconds
    apps: Mapping[str, Mapping[str, Any]]
    sandbox: Mapping[str, list[str]]  # "on", "missing"
    tenant: str = ""  # whose own it is; "": all share it


class Workers:
    """The client of all admin sockets in a folder."""

    def __init__(self, run_dir: Path, *, shared: int) -> None:
        """`shared`: so many workers, the first ones, serve all tenants."""
        self._run_dir = run_dir
        self._shared = shared

    async def status(self) -> list[WorkerStatus]:
        """By worker number."""
        answers = await self._ask_all({"op": "status"})
        return sorted((_status(answer) for answer in answers), key=lambda w: w.worker)

    async def refresh(self, app: str = "") -> None:
        """Look at the routes now, not at the next poll; make `app`'s files ready to start from."""
        await self._ask_all({"op": "refresh", "app": app})

    async def sleep(self, app: str) -> int:
        """End the app's idle instances; busy ones end after their request. Returns how many."""
        answers = await self._ask_all({"op": "sleep", "app": app})
        return sum(int(answer.get("ended", 0)) for answer in answers)

    async def usage_today(self, day: int, used: Mapping[TenantName, tuple[int, int]]) -> None:
        """What the ledger has of a day (since the epoch): CPU nanoseconds and bytes of egress."""
        tenants = {str(name): amounts for name, amounts in used.items()}
        await self._ask_all({"op": "usage_today", "day": day, "tenants": tenants})

    async def reached(self, app: str) -> tuple[list[str], dict[str, str]]:
        """Where the app connected to, as "host:port", and where it was refused to, with the
        reason."""
        answers = await self._ask_all({"op": "reached", "app": app})
        connected = {str(one): None for answer in answers for one in answer.get("connected", ())}
        refused = {
            str(one): str(why)
            for answer in answers
            for one, why in dict(answer.get("refused", {})).items()
        }
        return list(connected), refused

    async def forget_reached(self, app: str) -> None:
        await self._ask_all({"op": "forget_reached", "app": app})

    async def failed_images(self) -> set[str]:
        """Digests of images that a worker could not have, each told once."""
        answers = await self._ask_all({"op": "failed_images"})
        return {str(image) for answer in answers for image in answer.get("images", ())}

    async def make_module(
        self, question: Mapping[str, Any], *, own: TenantName | None
    ) -> dict[str, Any] | None:
        """Until one worker, of those that may serve the app, has the module compiled; None: it is,
        or there is no worker to ask. Else the error, as it goes over the wire."""
        if own is None:
            numbers = random.sample(range(self._shared), self._shared)
        else:
            numbers = [one.worker for one in await self.status() if one.tenant == own]
        for number in numbers:
            wait_s = _FIRST_LOOK_S
            while (answer := await self._ask_one(number, question)) is not None:
                if (error := answer.get("error")) is not None:
                    return dict(error) if isinstance(error, dict) else None
                if answer.get("ready", True):
                    return None
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, _LAST_LOOK_S)
        return None

    async def run(
        self, question: Mapping[str, Any], *, own: TenantName | None, within_s: float
    ) -> Outcome:
        """Let one worker run a job or a command: `own`'s, or a shared one. Who gives this up ends
        it there. "worker_lost" when none answers, or the one that began does not come to the
        end."""
        if own is None:
            names = [f"worker-{number}.sock" for number in range(self._shared)]
            random.shuffle(names)
        else:
            names = [f"worker-{await self._own_worker(own)}.sock"]
        folder = os.open(self._run_dir, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for name in names:
                path = f"/proc/self/fd/{folder}/{name}"
                try:
                    reader, writer = await asyncio.open_unix_connection(path, limit=_LINE_BYTES)
                except OSError:
                    continue  # it is starting, or ended
                outcome = await _run(reader, writer, question, within_s)
                other = f"worker-{outcome.message}.sock"
                if outcome.code != "elsewhere" or other not in names:
                    return outcome
                path = f"/proc/self/fd/{folder}/{other}"
                reader, writer = await asyncio.open_unix_connection(path, limit=_LINE_BYTES)
                return await _run(reader, writer, question, within_s)
        except OSError:
            return Outcome("worker_lost", "the worker that has the app's volumes ended")
        finally:
            os.close(folder)
        return Outcome("worker_lost", "no worker is there")

    async def _own_worker(self, tenant: TenantName) -> int:
        """The number of the worker that is `tenant`'s own, which may just be starting; -1 when
        there is none for too long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STARTING_S):
                while True:
                    for one in await self.status():
                        if one.tenant == tenant:
                            return one.worker
                    await asyncio.sleep(_LOOK_AGAIN_S)
        return -1

    async def _ask_one(self, number: int, question: Mapping[str, Any]) -> dict[str, Any] | None:
        try:
            folder = os.open(self._run_dir, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            return None
        try:
            path = f"/proc/self/fd/{folder}/worker-{number}.sock"
            return await _ask(path, question, within_s=_BUSY_ANSWER_S)
        finally:
            os.close(folder)

    async def _ask_all(self, question: Mapping[str, Any]) -> list[dict[str, Any]]:
        names = sorted(path.name for path in self._run_dir.glob("worker-*.sock"))
        if not names:
            return []
        # Through the folder's descriptor: a socket path has at most 107 bytes.
        folder = os.open(self._run_dir, os.O_RDONLY | os.O_DIRECTORY)
        try:
            paths = [f"/proc/self/fd/{folder}/{name}" for name in names]
            answers = await asyncio.gather(*(_ask(path, question) for path in paths))
        finally:
            os.close(folder)
        return [answer for answer in answers if answer is not None]


async def _ask(
    path: str, question: Mapping[str, Any], *, within_s: float = _ANSWER_S
) -> dict[str, Any] | None:
    try:
        async with asyncio.timeout(within_s):
            reader, writer = await asyncio.open_unix_connection(path, limit=_LINE_BYTES)
            try:
                writer.write(orjson.dumps(question) + b"\n")
                await writer.drain()
                answer = orjson.loads(await reader.readline())
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError):
        return None
    return answer if isinstance(answer, dict) else None


async def _run(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    question: Mapping[str, Any],
    within_s: float,
) -> Outcome:
    try:
        async with asyncio.timeout(within_s):
            writer.write(orjson.dumps(question) + b"\n")
            await writer.drain()
            answer = orjson.loads(await reader.readline())
            return Outcome.from_json(answer)
    except (OSError, TimeoutError, ValueError, OverflowError, AttributeError, TypeError):
        return Outcome("worker_lost", "the worker ended, or did not answer")
    finally:
        writer.close()


def _status(answer: Mapping[str, Any]) -> WorkerStatus:
    number = int(answer.get("worker", 0))
    return WorkerStatus(
        worker=number,
        pid=int(answer.get("pid", 0)),
        memory_bytes=int(answer.get("memory_bytes", 0)),
        rss_bytes=int(answer.get("rss_bytes", 0)),
        instances=tuple(
            InstanceStatus(
                app=str(one.get("app", "")),
                version=int(one.get("version", 0)),
                state=str(one.get("state", "")),
                id=str(one.get("id", "")),
                worker=number,
                memory_bytes=int(one.get("memory_bytes", 0)),
                private_bytes=int(one.get("private_bytes", 0)),
                requests=int(one.get("requests", 0)),
                idle_s=float(one.get("idle_s", 0)),
                age_s=float(one.get("age_s", 0)),
            )
            for one in answer.get("instances", ())
        ),
        apps=dict(answer.get("apps", {})),
        sandbox={
            name: [str(one) for one in answer.get("sandbox", {}).get(name, ())]
            for name in ("on", "missing")
        },
        tenant=str(answer.get("tenant", "")),
    )
