"""What tests of every language share: an app's guest, requests to it, and a place for images."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Self

from isopod.blobs.images import ImageCache
from isopod.blobs.store import BlobStore
from isopod.engine.config import Engine
from isopod.engine.image import Image
from isopod.engine.scheduler import Scheduler
from isopod.model.snapshot import Snapshot
from isopod.runtimes.guest import Guest, GuestRequest

_PATIENCE_S = 60.0


def request(
    path: str = "/", *, method: str = "GET", has_body: bool = False, headers: tuple = ()
) -> GuestRequest:
    path, _, query = path.partition("?")
    return GuestRequest(
        method=method, path=path, query=query, protocol="HTTP/1.1", scheme="https", host="x.test",
        port=443, client="192.0.2.7", has_body=has_body,
        headers=(("host", "x.test"), ("x-two", "a"), ("x-two", "b"), *headers),
    )  # fmt: skip


class App:
    """One guest. `call` gives status, headers and the body."""

    def __init__(self, shop: Workshop, guest: Any, output: list[tuple[str, str]]) -> None:
        self.shop, self.guest, self.output = shop, guest, output

    def call(self, path: str = "/", **more: Any) -> Any:
        return self.shop.run(self.ask(path, **more))

    def text(self, path: str = "/", **more: Any) -> str:
        return str(self.call(path, **more)[2].decode())

    async def ask(self, path: str = "/", *, method: str = "GET", body: bytes = b"") -> Any:
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
        return response.status, self.shop.headers(headers), found

    @property
    def said(self) -> str:
        return "".join(text for _, text in self.output)


class Workshop:
    """A loop, and a folder for all that apps need; a language's own says how a guest of it is made.
    Guests share a scheduler as their engines are alike."""

    base_image: Path
    headers: type = dict

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._loop = asyncio.new_event_loop()
        self._guests: list[Guest] = []
        self._schedulers: dict[int, Scheduler] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for guest in self._guests:
            guest.close()
        for one in self._schedulers.values():
            self._loop.run_until_complete(one.__aexit__(None, None, None))
        self._loop.close()

    def run(self, awaitable: Any) -> Any:
        return self._loop.run_until_complete(asyncio.wait_for(awaitable, _PATIENCE_S))

    def new_guest(self, source: Any, **more: Any) -> Guest:
        """Of `scheduler`, `output` and what else a test asks for."""
        raise NotImplementedError

    def new(self, source: Any, **more: Any) -> App:
        """Not started."""
        output: list[tuple[str, str]] = []
        guest = self.new_guest(
            source, output=lambda stream, data: output.append((stream, data.decode())), **more
        )
        self._guests.append(guest)
        return App(self, guest, output)

    def start(self, source: Any, **more: Any) -> App:
        made = self.new(source, **more)
        self.run(made.guest.start())
        return made

    def restore(self, source: Any, snapshot: Snapshot, **more: Any) -> App:
        opened = self.images().open(snapshot.image, self.base_image)
        image = Image(opened.fd, opened.size, opened.clock_ns)
        return self.start(source, image=image, **more)

    def images(self) -> ImageCache:
        blobs = BlobStore(self.folder / "blobs")
        return ImageCache(self.folder / "images", blobs, limit_bytes=1 << 30)

    def scheduler(self, engine: Engine) -> Scheduler:
        key = id(engine)
        if key not in self._schedulers:

            async def enter() -> Scheduler:
                return await Scheduler(engine).__aenter__()

            running = self._loop.is_running()
            self._schedulers[key] = (
                Scheduler(engine) if running else self._loop.run_until_complete(enter())
            )
        return self._schedulers[key]

    def made(self, name: str) -> Path:
        """A folder that all apps share."""
        path = self.folder / name
        path.mkdir(exist_ok=True)
        return path
