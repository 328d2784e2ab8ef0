"""A guest that does what a test says, and the route it belongs to."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from isopod.errors import GuestFailed
from isopod.gateway.logs import AppLog
from isopod.gateway.quota import Quotas
from isopod.gateway.slot import Slot
from isopod.gateway.volumes import HeldVolumes
from isopod.model.app import AppSpec, Limits, Scaling
from isopod.model.ids import AppName, Digest
from isopod.model.route import Route
from isopod.model.tenant import TenantName
from isopod.model.usage import UsageRecord
from isopod.runtimes.guest import BodyReader, GuestRequest, GuestResponse, OutputSink

Handler = Callable[["ScriptedGuest", GuestRequest, BodyReader], Awaitable[GuestResponse]]
MIB = 1 << 20


async def plain(
    _guest: "ScriptedGuest", _request: GuestRequest, _body: BodyReader
) -> GuestResponse:
    return GuestResponse(200, [(b"content-type", b"text/plain")], b"hi", more=False)


class ScriptedGuest:
    """See `isopod.runtimes.guest.Guest`. A closed one fails whoever waits for it."""

    def __init__(self, output: OutputSink, handler: Handler, boots: asyncio.Event | None) -> None:
        self.output = output
        self.idle = False
        self.waiting = False
        self.cpu_ns = 0
        self.host_ns = 0
        self.sent_bytes = 0
        self.memory_bytes = 10 * MIB
        self.client_wait_s = 0.0
        self.capacity = 1
        self.speaker = ""
        self.blocked = False
        self.closed = False
        self.abandoned = False
        self.chunks: list[bytes | Exception] = []
        self._handler = handler
        self._boots = boots
        self._ended: asyncio.Event = asyncio.Event()

    @property
    def private_bytes(self) -> int:
        return self.memory_bytes

    @property
    def peak_memory_bytes(self) -> int:
        return self.memory_bytes

    @property
    def ended(self) -> bool:
        return self.idle

    def exchange(self) -> "ScriptedGuest":
        return self

    def socket(self) -> None:
        return None

    def stop(self) -> None:
        self.close()

    def private_of(self, memory_bytes: int) -> int:
        return memory_bytes

    async def start(self) -> None:
        if self._boots is not None:
            await self._or_closed(self._boots.wait())
        self.idle = True

    async def send(self, request: GuestRequest, read_body: BodyReader) -> GuestResponse:
        assert self.idle
        self.idle = False
        response = await self._or_closed(self._handler(self, request, read_body))
        self.idle = not response.more
        return response

    async def next_chunk(self) -> bytes | None:
        if self.closed:
            raise GuestFailed("the guest was ended")
        chunk = self.chunks.pop(0) if self.chunks else None
        if isinstance(chunk, Exception):
            raise chunk
        self.idle = chunk is None
        return chunk

    async def finish(self) -> None:
        self.idle = True

    def abandon(self) -> None:
        self.abandoned = True

    def close(self) -> None:
        self.closed, self.idle = True, False
        self._ended.set()

    async def _or_closed(self, work: Awaitable) -> object:
        task, ended = asyncio.ensure_future(work), asyncio.ensure_future(self._ended.wait())
        try:
            await asyncio.wait({task, ended}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise GuestFailed("the guest was ended")
        finally:
            for one in (task, ended):
                one.cancel()
            await asyncio.gather(task, ended, return_exceptions=True)


class Stage:
    """Makes slots of scripted guests; remembers all, so that a test can count what is left."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self.handler: Handler = plain
        self.boots: asyncio.Event | None = None
        self.boot_error: Exception | None = None
        self.guests: list[ScriptedGuest] = []
        self.capacity = 1
        self.removed = 0
        self.usage: list[UsageRecord] = []
        self.log = AppLog(logs, "shop", kib_per_s=1 << 20)

    async def make(self, _route: Route, output: OutputSink):
        await asyncio.sleep(0)
        if self.boot_error is not None:
            raise self.boot_error
        guest = ScriptedGuest(output, lambda *a: self.handler(*a), self.boots)  # noqa: PLW0108  set later
        guest.capacity = self.capacity
        self.guests.append(guest)

        def remove() -> None:
            self.removed += 1

        return guest, remove

    def slot(self, route: Route) -> Slot:
        held = HeldVolumes(self.logs, worker=0)
        return Slot(route, self.log, self.make, meter=self.usage.append, volumes=held)

    @property
    def alive(self) -> int:
        return sum(not guest.closed for guest in self.guests)


@pytest.fixture
def quotas(tmp_path: Path):
    """Of the only worker."""
    made = Quotas(folder=tmp_path / "quota", worker=0, workers=1, clock=lambda: 0.0)
    yield made
    made.close()


@pytest.fixture
def stage(tmp_path: Path):
    staged = Stage(tmp_path)
    yield staged
    staged.log.close()


def _route(
    name: str = "shop", version: int = 1, *, max_instances: int = 2, idle_s: float = 60.0,
    queue: int = 5, deadline_ms: int = 5000, max_request_mib: int = 1,
    cpu_ms_per_request: int = 0, max_response_mib: int = 100, tenant: str = "default",
) -> Route:  # fmt: skip
    digest = Digest(f"{version:064x}")
    return Route(
        name=AppName(name),
        version=version,
        digest=digest,
        app_tree=digest,
        site_tree=digest,
        spec=AppSpec(
            name=AppName(name),
            runtime="python",
            entrypoint="app:app",
            scaling=Scaling(max_instances=max_instances, idle_s=idle_s, queue=queue),
            limits=Limits(
                deadline_ms=deadline_ms,
                max_request_mib=max_request_mib,
                cpu_ms_per_request=cpu_ms_per_request,
                max_response_mib=max_response_mib,
            ),
        ),
        tenant=TenantName(tenant),
    )


@pytest.fixture
def route() -> Callable[..., Route]:
    return _route
