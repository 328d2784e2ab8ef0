"""Real guests before real servers on this machine, through a broker in the test's own process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from isopod.engine.scheduler import Scheduler
from isopod.errors import IsopodError
from isopod.host.broker import AppGrant, Broker, BrokerLimits, look_up
from isopod.host.capabilities import World
from isopod.host.connections import ConnectionLimits
from isopod.host.egress import PrivateGrant
from isopod.host.outside import Outside
from isopod.host.tls import system_trust
from isopod.model.network import Target
from isopod.runtimes.guest import GuestRequest
from isopod.runtimes.python.runtime import PythonRuntime
from isopod.runtimes.python.serve import PythonGuest

APP = Path(__file__).parents[2] / "guests" / "net"
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


def allow(*texts: str) -> tuple[Target, ...]:
    return tuple(Target.parse(text) for text in texts)


def here(*ports: int) -> tuple[PrivateGrant, ...]:
    """An operator's grant of this machine."""
    return tuple(
        PrivateGrant.parse(f"*/{host}:{port}")
        for port in ports
        for host in ("localhost", "127.0.0.1")
    )


def made_broker(
    allowed: dict[str, tuple[str, Sequence[Target]]],
    private: Sequence[PrivateGrant] = (),
    names: Callable[[str], list[str]] = look_up,
    limits: BrokerLimits | None = None,
) -> Broker:
    """`allowed`: app -> its tenant and list."""

    def grant_of(app: str) -> AppGrant | None:
        found = allowed.get(app)
        return None if found is None else AppGrant(found[0], tuple(found[1]))

    return Broker(grant_of=grant_of, private=private, look_up=names, limits=limits)


@dataclass
class Guests:
    """`run` sends code to a guest, which may reach what `private` and `allowed` say."""

    runtime: PythonRuntime
    scheduler: Scheduler
    folder: Path
    site: Path
    world: World
    made: list[PythonGuest] = field(default_factory=list)
    output: list[bytes] = field(default_factory=list)

    async def start(self, app: str = "app", tenant: str = "default") -> PythonGuest:
        guest = self.runtime.new_guest(
            scheduler=self.scheduler,
            app_tree=APP,
            site_tree=self.site,
            tmp=self.folder / "tmp",
            entrypoint="app:app",
            env={},
            memory_mib=128,
            disk_mib=64,
            output=lambda _stream, data: self.output.append(data),
            share=(tenant, app),
            world=self.world,
            app=app,
        )
        self.made.append(guest)
        try:
            await guest.start()
        except IsopodError as error:
            print(error.details)
            raise
        return guest

    async def run(self, guest: PythonGuest, code: str, within_s: float = 60) -> Any:
        """The `result` that `code` leaves."""
        sent = [code.encode()]

        async def read(_size: int) -> bytes:
            return sent.pop() if sent else b""

        request = GuestRequest(
            "POST", "/", "", "HTTP/1.1", "http", "localhost", 80, "127.0.0.1", (), True
        )
        async with asyncio.timeout(within_s):
            response = await guest.send(request, read)
            body = response.body
            while response.more and (piece := await guest.next_chunk()) is not None:
                body += piece
            await guest.finish()
        return json.loads(body)

    def close(self) -> None:
        for guest in self.made:
            with contextlib.suppress(IsopodError):
                guest.close()


@contextlib.asynccontextmanager
async def guests(
    cache: Path,
    folder: Path,
    outside: Outside,
    *,
    site: Path | None = None,
    limits: ConnectionLimits | None = None,
    extra: str = "",
) -> AsyncIterator[Guests]:
    (folder / "tmp").mkdir(exist_ok=True)
    (folder / "site").mkdir(exist_ok=True)
    runtime = PythonRuntime(cache)
    world = World.make(outside, trust=system_trust(), extra=extra, key_folder=folder)
    if limits is not None:
        world.open_now.limits = limits
    async with Scheduler(runtime.linkage.engine) as scheduler:
        found = Guests(runtime, scheduler, folder, site or folder / "site", world)
        try:
            yield found
        finally:
            found.close()
            world.close()


@contextlib.asynccontextmanager
async def server(serve: Serve, **how: Any) -> AsyncIterator[int]:
    """The port of a server that runs `serve` for each connection."""
    tasks = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        tasks.add(task)
        try:
            await serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, OSError):
            pass
        finally:
            writer.close()
            tasks.discard(task)

    made = await asyncio.start_server(handle, "127.0.0.1", 0, **how)
    try:
        yield made.sockets[0].getsockname()[1]
    finally:
        made.close()
        for task in list(tasks):
            task.cancel()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


@contextlib.contextmanager
def closed_port() -> Iterator[int]:
    """A port that refuses connections: bound, and nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]
