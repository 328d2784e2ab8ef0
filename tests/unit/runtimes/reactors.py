"""What the tests of reactors share: modules in C, Rust and Go, their guests, and images of them."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.c_modules import compiled

from isopod.blobs.images import ImageCache
from isopod.blobs.store import BlobStore
from isopod.engine.image import Image
from isopod.engine.kept_globals import SAVE
from isopod.engine.linker import Linkage
from isopod.engine.scheduler import Scheduler
from isopod.model.app import AppSpec, Limits, Startup
from isopod.model.ids import AppName
from isopod.model.snapshot import Snapshot
from isopod.runtimes.guest import GuestRequest
from isopod.runtimes.reactor import building
from isopod.runtimes.reactor.language import put_module
from isopod.runtimes.reactor.runtime import BASE_IMAGE, MODULE, new_guest
from isopod.runtimes.reactor.serve import ReactorGuest
from isopod.runtimes.reactor.snapshotting import take_snapshot
from isopod.runtimes.taking import Source

SDK = Path(__file__).parents[3] / "sdk"


def request(
    path: str = "/", *, method: str = "GET", has_body: bool = False, headers: tuple = ()
) -> GuestRequest:
    path, _, query = path.partition("?")
    return GuestRequest(
        method=method, path=path, query=query, protocol="HTTP/1.1", scheme="https", host="x.test",
        port=443, client="192.0.2.7", has_body=has_body,
        headers=(("host", "x.test"), ("x-two", "a"), ("x-two", "b"), *headers),
    )  # fmt: skip


@dataclass
class Reactor:
    """One guest. `call` gives status, headers and the body."""

    lab: Foundry
    guest: ReactorGuest
    output: list[tuple[str, str]]

    def call(self, path: str = "/", *, method: str = "GET", body: bytes = b"") -> Any:
        return self.lab.run(self.ask(path, method=method, body=body))

    def text(self, path: str = "/", **more: Any) -> str:
        return str(self.call(path, **more)[2].decode())

    async def ask(self, path: str, *, method: str = "GET", body: bytes = b"") -> Any:
        left = body

        async def read(size: int) -> bytes:
            nonlocal left
            data, left = left[:size], left[size:]
            return data

        asked = request(path, method="POST" if body else method, has_body=bool(body))
        response = await self.guest.send(asked, read)
        found = response.body
        while response.more and (chunk := await self.guest.next_chunk()) is not None:
            found += chunk
        await self.guest.finish()
        headers = {name.decode(): value.decode() for name, value in response.headers}
        return response.status, headers, found

    @property
    def said(self) -> str:
        return "".join(text for _, text in self.output)


@dataclass
class Foundry:
    """Modules are linked once each, and share a scheduler as their engines are alike."""

    folder: Path
    loop: asyncio.AbstractEventLoop
    made: list[ReactorGuest] = field(default_factory=list)
    schedulers: dict[int, Scheduler] = field(default_factory=dict)
    linked: dict[str, Linkage] = field(default_factory=dict)

    def run(self, awaitable: Any, within_s: float = 20) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(awaitable, within_s))

    def link(self, module: bytes) -> Linkage:
        """As a builder does."""
        key = hashlib.sha256(module).hexdigest()
        if key not in self.linked:
            site = self.folder / f"site-{key}"
            if SAVE.encode() in module:  # as a language's builder leaves it
                site.mkdir()
                (site / MODULE).write_bytes(module)
            else:
                (self.folder / "uploaded.wasm").write_bytes(module)
                put_module(self.folder / "uploaded.wasm", site)
            self.linked[key] = building.link(site)
        return self.linked[key]

    def scheduler(self, linkage: Linkage) -> Scheduler:
        key = id(linkage.engine)
        if key not in self.schedulers:

            async def enter() -> Scheduler:
                return await Scheduler(linkage.engine).__aenter__()

            self.schedulers[key] = self.loop.run_until_complete(enter())
        return self.schedulers[key]

    def new(
        self,
        module: bytes,
        *,
        env: dict[str, str] | None = None,
        memory_mib: int = 64,
        image: Image | None = None,
    ) -> Reactor:
        """Not started."""
        linkage = self.link(module)
        output: list[tuple[str, str]] = []
        guest = new_guest(
            linkage,
            scheduler=self.scheduler(linkage),
            app_tree=self._made("app"),
            tmp=self._made("tmp"),
            env=env or {},
            memory_mib=memory_mib,
            disk_mib=16,
            output=lambda stream, data: output.append((stream, data.decode())),
            share=("", ""),
            precise_clocks=False,
            image=image,
        )
        self.made.append(guest)
        return Reactor(self, guest, output)

    def start(self, module: bytes, **more: Any) -> Reactor:
        made = self.new(module, **more)
        self.run(made.guest.start())
        return made

    def leave(self, app: Reactor, path: str) -> None:
        """Ask for a response in pieces, and go after the first."""

        async def leave() -> None:
            async def no_body(_size: int) -> bytes:
                return b""

            response = await app.guest.send(request(path), no_body)
            assert response.more and not app.guest.idle
            app.guest.abandon()
            assert await app.guest.next_chunk() is None
            assert app.guest.idle

        self.run(leave())

    def images(self) -> ImageCache:
        blobs = BlobStore(self.folder / "blobs")
        return ImageCache(self.folder / "images", blobs, limit_bytes=1 << 30)

    def snapshot(
        self, module: bytes, *, env: dict[str, str] | None = None, **startup: Any
    ) -> Snapshot:
        spec = AppSpec(
            AppName("x"), "reactor", "app.wasm", env=env or {},
            startup=Startup(**startup), limits=Limits(memory_mib=64),
        )  # fmt: skip
        source = Source(self._made("app"), self._made("site"), spec)
        work = self._made("work")
        return take_snapshot(self.link(module), source, images=self.images(), work=work)

    def restore(self, module: bytes, snapshot: Snapshot, **more: Any) -> Reactor:
        opened = self.images().open(snapshot.image, BASE_IMAGE)
        image = Image(opened.fd, opened.size, opened.clock_ns)
        return self.start(module, image=image, **more)

    def _made(self, name: str) -> Path:
        path = self.folder / name
        path.mkdir(exist_ok=True)
        return path


@contextmanager
def foundry(folder: Path) -> Iterator[Foundry]:
    loop = asyncio.new_event_loop()
    made = Foundry(folder, loop)
    try:
        yield made
    finally:
        for guest in made.made:
            guest.close()
        for one in made.schedulers.values():
            loop.run_until_complete(one.__aexit__(None, None, None))
        loop.close()


def c_module(source: Path, out: Path) -> bytes:
    options = ("-mexec-model=reactor", "-Wall", "-Werror", f"-I{SDK / 'c'}")
    out.write_bytes(compiled(source, *options))
    return out.read_bytes()


def rust_module(source: Path, out: Path) -> bytes:
    """By Debian's compiler, whose WASI has no start files of its own."""
    rustc, start = Path("/usr/bin/rustc"), Path("/usr/lib/wasm32-wasi/crt1-reactor.o")
    if not rustc.is_file() or not start.is_file() or not shutil.which("lld"):
        pytest.skip("Rust needs apt install rustc libstd-rust-dev-wasm32 lld wasi-libc")
    done = subprocess.run(
        [rustc, "--print", "target-list"], capture_output=True, text=True, check=True
    )
    target = "wasm32-wasip1" if "wasm32-wasip1" in done.stdout else "wasm32-wasi"
    base = [str(rustc), "--edition", "2021", "--target", target, "-O"]
    library = out.parent / "libisopod.rlib"
    crate = ["--crate-type", "rlib", "--crate-name", "isopod", "-o", str(library)]
    _run([*base, *crate, str(SDK / "rust" / "src" / "lib.rs")], out.parent)
    linking = ["-C", "strip=symbols", "-C", "linker=lld", "-C", f"link-arg={start}"]
    linking += ["-C", "link-arg=--export=_initialize", "--crate-type", "cdylib"]
    _run(
        [*base, *linking, "--extern", f"isopod={library}", "-o", str(out), str(source)], out.parent
    )
    return out.read_bytes()


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
