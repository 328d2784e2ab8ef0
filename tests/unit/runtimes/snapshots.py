"""What the tests of snapshots share: images of small apps, and instances restored from them."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from isopod.engine.image import Image
from isopod.engine.scheduler import Scheduler
from isopod.model.app import AppSpec, Limits, Startup
from isopod.model.ids import AppName
from isopod.runtimes.guest import GuestRequest, GuestResponse
from isopod.runtimes.python import imaging
from isopod.runtimes.python.runtime import PythonRuntime
from isopod.runtimes.python.serve import PythonGuest

# An app of which any expression can be asked, in the names of its module.
ASK = """
import json as _json
def app(environ, start_response):
    asked = environ["wsgi.input"].read().decode()
    answer = "warm"
    if asked.startswith("run "):
        exec(asked[4:], globals())
    elif asked:
        answer = eval(asked, globals())
    start_response("200 OK", [])
    return [_json.dumps(answer, default=str).encode()]
"""
FINE = """
def app(environ, start_response):
    start_response("200 OK", [])
    return [b"fine"]
"""


def request(path: str = "/", *, has_body: bool = False) -> GuestRequest:
    return GuestRequest(
        method="POST" if has_body else "GET", path=path, query="", protocol="HTTP/1.1",
        scheme="http", host="localhost", port=80, client="127.0.0.1", has_body=has_body,
    )  # fmt: skip


def spec(env: dict[str, str] | None = None, *, memory_mib: int = 256, **startup: Any) -> AppSpec:
    return AppSpec(
        AppName("x"), "python", "app:app", env=env or {}, startup=Startup(**startup),
        limits=Limits(memory_mib=memory_mib),
    )  # fmt: skip


@dataclass
class Restored:
    """One instance of an image."""

    lab: Lab
    guest: PythonGuest
    output: list[tuple[str, bytes]]

    def ask(self, expression: str) -> Any:
        """What the expression is in this instance."""
        return json.loads(self.lab.run(self._send(expression)).body)

    def run(self, statements: str) -> None:
        self.ask(f"run {statements}")

    async def _send(self, expression: str) -> GuestResponse:
        left = expression.encode()

        async def read(size: int) -> bytes:
            nonlocal left
            data, left = left[:size], left[size:]
            return data

        async with asyncio.timeout(60):
            response = await self.guest.send(request(has_body=bool(expression)), read)
            assert not response.more
            await self.guest.finish()
        return response

    def said(self) -> str:
        return b"".join(data for _, data in self.output).decode()


@dataclass
class Lab:
    """A scheduler, a runtime and a folder for images."""

    runner: asyncio.Runner
    runtime: PythonRuntime
    scheduler: Scheduler
    folder: Path
    guests: list[PythonGuest] = field(default_factory=list)
    open: list[int] = field(default_factory=list)
    made: int = 0

    def run(self, coroutine: Any) -> Any:
        return self.runner.run(coroutine)

    def app(self, files: dict[str, str] | str) -> Path:
        """A folder with an app's files; a text is `app.py`."""
        self.made += 1
        folder = self.folder / f"app-{self.made}"
        for name, text in ({"app.py": files} if isinstance(files, str) else files).items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        (self.folder / "site").mkdir(exist_ok=True)
        return folder

    def tmp(self) -> Path:
        self.made += 1
        folder = self.folder / f"tmp-{self.made}"
        folder.mkdir()
        return folder

    def take(
        self, app: Path, app_spec: AppSpec | None = None, *, planted: bool = True, warm: bool = True
    ) -> tuple[imaging.Taken, Image]:
        """An image of the app, open until the lab ends."""
        app_spec = app_spec or spec()
        taken = self.run(
            imaging.take(
                self.runtime,
                self.scheduler,
                app_tree=app,
                site_tree=self.folder / "site",
                tmp=self.tmp(),
                volumes=(),
                spec=app_spec,
                variables=app_spec.env,
                planted=app_spec.env if planted else (),
                warmup=[(request(), b"")] * 2 if warm else [],
                out=self.folder / f"image-{self.made}",
            )
        )
        fd = os.open(taken.path, os.O_RDONLY)
        self.open.append(fd)
        return taken, Image(fd, taken.size, taken.clock_ns)

    def restore(
        self, app: Path, image: Image | None, env: dict[str, str] | None = None, hook: str = ""
    ) -> Restored:
        output: list[tuple[str, bytes]] = []
        guest = self.runtime.new_guest(
            scheduler=self.scheduler,
            app_tree=app,
            site_tree=self.folder / "site",
            tmp=self.tmp(),
            entrypoint="app:app",
            env=env or {},
            memory_mib=256,
            disk_mib=64,
            output=lambda stream, data: output.append((stream, data)),
            image=image,
            after_restore=hook,
        )
        self.guests.append(guest)
        self.run(guest.start())
        return Restored(self, guest, output)


@contextmanager
def laboratory(cache_dir: Path, folder: Path) -> Iterator[Lab]:
    with asyncio.Runner() as runner:
        runtime = PythonRuntime(cache_dir)

        async def scheduler() -> Scheduler:
            return await Scheduler(runtime.linkage.engine).__aenter__()

        lab = Lab(runner, runtime, runner.run(scheduler()), folder)
        try:
            yield lab
        finally:
            for guest in lab.guests:
                guest.close()
            for fd in lab.open:
                os.close(fd)
            runner.run(lab.scheduler.__aexit__(None, None, None))
            shutil.rmtree(folder, ignore_errors=True)
