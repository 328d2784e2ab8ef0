"""What the tests of Ruby share: an app's guest, its requests, and images of it."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.unit.runtimes.workers import request

from isopod.blobs.images import ImageCache
from isopod.blobs.store import BlobStore
from isopod.engine.image import Image
from isopod.engine.scheduler import Scheduler
from isopod.model.app import AppSpec, Limits, Startup
from isopod.model.ids import AppName
from isopod.model.snapshot import Snapshot
from isopod.runtimes.ruby import snapshotting
from isopod.runtimes.ruby.runtime import RubyRuntime
from isopod.runtimes.ruby.serve import RubyGuest
from isopod.runtimes.taking import Source


@dataclass
class App:
    """One guest. `call` gives status, headers and the body."""

    lab: Workshop
    guest: RubyGuest
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
        headers = [(name.decode(), value.decode()) for name, value in response.headers]
        return response.status, headers, found

    @property
    def said(self) -> str:
        return "".join(text for _, text in self.output)


@dataclass
class Workshop:
    runtime: RubyRuntime
    scheduler: Scheduler
    loop: asyncio.AbstractEventLoop
    folder: Path
    made: list[RubyGuest] = field(default_factory=list)

    def run(self, awaitable: Any, within_s: float = 60) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(awaitable, within_s))

    def app(self, source: str, more: Mapping[str, str] | None = None) -> Path:
        """A folder with `source` as its config.ru."""
        path = Path(tempfile.mkdtemp(dir=self.folder))
        for name, text in {"config.ru": source, **(more or {})}.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_text(text)
        return path

    def site(self) -> Path:
        path = self.folder / "site"
        path.mkdir(exist_ok=True)
        return path

    def new(
        self,
        source: str | Path,
        *,
        env: Mapping[str, str] | None = None,
        memory_mib: int = 128,
        image: Image | None = None,
        site: Path | None = None,
        after_restore: str = "",
    ) -> App:
        """Not started. `source`: a config.ru, or an app's folder."""
        output: list[tuple[str, str]] = []
        guest = self.runtime.new_guest(
            scheduler=self.scheduler,
            app_tree=source if isinstance(source, Path) else self.app(source),
            site_tree=site or self.site(),
            tmp=Path(tempfile.mkdtemp(dir=self.folder)),
            entrypoint="config.ru",
            env=env or {},
            memory_mib=memory_mib,
            disk_mib=16,
            output=lambda stream, data: output.append((stream, data.decode())),
            image=image,
            after_restore=after_restore,
        )
        self.made.append(guest)
        return App(self, guest, output)

    def start(self, source: str | Path, **more: Any) -> App:
        made = self.new(source, **more)
        self.run(made.guest.start())
        return made

    def images(self) -> ImageCache:
        blobs = BlobStore(self.folder / "blobs")
        return ImageCache(self.folder / "images", blobs, limit_bytes=1 << 30)

    def snapshot(
        self,
        source: Path,
        *,
        env: Mapping[str, str] | None = None,
        secrets: Mapping[str, str] | None = None,
        **startup: Any,
    ) -> Snapshot:
        spec = AppSpec(
            AppName("x"), "ruby", "config.ru", env=env or {},
            startup=Startup(**startup), limits=Limits(memory_mib=128),
        )  # fmt: skip
        work = Path(tempfile.mkdtemp(dir=self.folder))
        made = Source(source, self.site(), spec, secrets or {})
        return snapshotting.take_snapshot(self.runtime, made, images=self.images(), work=work)

    def restore(self, source: Path, snapshot: Snapshot, **more: Any) -> App:
        opened = self.images().open(snapshot.image, self.runtime.base_image)
        image = Image(opened.fd, opened.size, opened.clock_ns)
        return self.start(source, image=image, **more)


@contextmanager
def workshop(cache: Path, folder: Path) -> Iterator[Workshop]:
    loop = asyncio.new_event_loop()
    runtime = RubyRuntime(cache)

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
