"""What the tests of JavaScript share: an app's guest, its requests, and images of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from isopod.blobs.images import ImageCache
from isopod.blobs.store import BlobStore
from isopod.engine.image import Image
from isopod.engine.scheduler import Scheduler
from isopod.host.capabilities import World
from isopod.model.app import AppSpec, Limits, Startup
from isopod.model.ids import AppName
from isopod.model.snapshot import Snapshot
from isopod.model.volume import VolumeMount
from isopod.runtimes.base import LentVolume
from isopod.runtimes.guest import GuestRequest
from isopod.runtimes.javascript import snapshotting
from isopod.runtimes.javascript.runtime import BUNDLE, JavaScriptRuntime
from isopod.runtimes.javascript.serve import JavaScriptGuest


def request(path: str = "/", *, method: str = "GET", has_body: bool = False) -> GuestRequest:
    path, _, query = path.partition("?")
    return GuestRequest(
        method=method, path=path, query=query, protocol="HTTP/1.1", scheme="https", host="x.test",
        port=443, client="192.0.2.7", headers=(("host", "x.test"), ("x-two", "a"), ("x-two", "b")),
        has_body=has_body,
    )  # fmt: skip


def worker(body: str, before: str = "") -> str:
    return f"{before}\nexport default {{ async fetch(request, env, ctx) {{ {body} }} }}\n"


@dataclass
class Worker:
    """One guest. `call` gives status, headers and the body."""

    lab: Workshop
    guest: JavaScriptGuest
    output: list[tuple[str, str]] = field(default_factory=list)

    def call(self, path: str = "/", *, method: str = "GET", body: bytes = b"") -> Any:
        return self.lab.run(self._call(path, method, body))

    def text(self, path: str = "/", **more: Any) -> str:
        return str(self.call(path, **more)[2].decode())

    async def _call(self, path: str, method: str, body: bytes) -> Any:
        left = body

        async def read(size: int) -> bytes:
            nonlocal left
            data, left = left[:size], left[size:]
            return data

        asked = request(path, method="POST" if body else method, has_body=bool(body))
        exchange = self.guest.exchange()
        response = await exchange.send(asked, read)
        found = response.body
        while response.more and (chunk := await exchange.next_chunk()) is not None:
            found += chunk
        await exchange.finish()
        headers = {name.decode(): value.decode() for name, value in response.headers}
        return response.status, headers, found

    @property
    def said(self) -> str:
        return "".join(text for _, text in self.output)


@dataclass
class Workshop:
    runtime: JavaScriptRuntime
    scheduler: Scheduler
    loop: asyncio.AbstractEventLoop
    folder: Path
    made: list[JavaScriptGuest] = field(default_factory=list)

    def run(self, awaitable: Any, within_s: float = 20) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(awaitable, within_s))

    def site(self, source: str) -> Path:
        path = self.folder / f"site-{abs(hash(source)):x}"
        path.mkdir(exist_ok=True)
        (path / BUNDLE).write_text(source)
        return path

    def new(
        self,
        source: str | Path,
        *,
        env: dict[str, str] | None = None,
        memory_mib: int = 64,
        image: Image | None = None,
        world: World | None = None,
        app: str = "",
        volumes: tuple[LentVolume, ...] = (),
    ) -> Worker:
        """Not started. `source`: of a bundle, or where one is."""
        output: list[tuple[str, str]] = []
        guest = self.runtime.new_guest(
            scheduler=self.scheduler,
            site_tree=source if isinstance(source, Path) else self.site(source),
            env=env or {},
            memory_mib=memory_mib,
            output=lambda stream, data: output.append((stream, data.decode())),
            image=image,
            world=world,
            app=app,
            volumes=volumes,
        )
        self.made.append(guest)
        return Worker(self, guest, output)

    def start(self, source: str | Path, **more: Any) -> Worker:
        made = self.new(source, **more)
        self.run(made.guest.start())
        return made

    def images(self) -> ImageCache:
        blobs = BlobStore(self.folder / "blobs")
        return ImageCache(self.folder / "images", blobs, limit_bytes=1 << 30)

    def snapshot(
        self, source: str, volumes: tuple[VolumeMount, ...] = (), **startup: Any
    ) -> Snapshot:
        spec = AppSpec(
            AppName("x"), "javascript", "worker.js", env={"KEY": "of the app"},
            startup=Startup(**startup), limits=Limits(memory_mib=64), volumes=volumes,
        )  # fmt: skip
        work = self.folder / "work"
        work.mkdir(exist_ok=True)
        return snapshotting.take_snapshot(
            self.runtime, site_tree=self.site(source), spec=spec, images=self.images(), work=work
        )

    def restore(self, source: str, snapshot: Snapshot, **more: Any) -> Worker:
        opened = self.images().open(snapshot.image, self.runtime.base_image)
        image = Image(opened.fd, opened.size, opened.clock_ns)
        return self.start(source, image=image, **more)


@contextmanager
def workshop(cache: Path, folder: Path) -> Iterator[Workshop]:
    loop = asyncio.new_event_loop()
    runtime = JavaScriptRuntime(cache)

    async def enter() -> Scheduler:
        return await Scheduler(runtime.linkage.engine).__aenter__()

    scheduler = loop.run_until_complete(enter())
    made = Workshop(runtime, scheduler, loop, folder)
    try:
        yield made
    finally:
        for guest in made.made:
            guest.close()
        loop.run_until_complete(scheduler.__aexit__(None, None, None))
        loop.close()
