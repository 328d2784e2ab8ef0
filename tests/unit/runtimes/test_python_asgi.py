"""ASGI 3 through real CPython guests: many exchanges in each, right and wrong ones."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from isopod.engine.scheduler import Scheduler
from isopod.errors import (
    AppFailedToStart,
    BodyTooLarge,
    ClientDisconnected,
    GuestFailed,
    GuestProtocolError,
    IsopodError,
)
from isopod.runtimes.guest import Exchange, GuestRequest
from isopod.runtimes.python.runtime import PythonRuntime
from isopod.runtimes.python.serve import PythonGuest

APP = Path(__file__).parents[2] / "guests" / "asgi"


@dataclass
class Answer:
    status: int
    pieces: list[bytes]
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Site:
    guest: PythonGuest
    output: list[tuple[str, str]]  # request id, text

    async def ask(self, path: str, *body: bytes | Exception, **changes: Any) -> Answer:
        exchange = self.guest.exchange()
        try:
            return await self._ask(exchange, path, list(body), changes)
        finally:
            if not exchange.ended:
                exchange.stop()

    def request(self, path: str, has_body: bool = False, **changes: Any) -> GuestRequest:
        path, _, query = path.partition("?")
        values = {
            "method": "GET", "path": path, "query": query, "protocol": "HTTP/1.1",
            "scheme": "http", "host": "shop.localhost", "port": 8080, "client": "9.9.9.9",
            "has_body": has_body, **changes,
        }  # fmt: skip
        return GuestRequest(**values)

    async def _ask(
        self, exchange: Exchange, path: str, body: list[bytes | Exception], changes: Any
    ) -> Answer:
        async def read(size: int) -> bytes:
            piece = body.pop(0) if body else b""
            if isinstance(piece, Exception):
                raise piece
            assert len(piece) <= size
            return piece

        async with asyncio.timeout(60):
            response = await exchange.send(self.request(path, bool(body), **changes), read)
            answer = Answer(response.status, [response.body], response.headers)
            while response.more and (piece := await exchange.next_chunk()) is not None:
                answer.pieces.append(piece)
            await exchange.finish()
        return answer

    def printed(self) -> str:
        text = "".join(text for _, text in self.output)
        self.output.clear()
        return text


@asynccontextmanager
async def site(cache: Path, folder: Path, **env: str) -> AsyncIterator[Site]:
    for name in ("site", "tmp"):
        (folder / name).mkdir(exist_ok=True)
    runtime = PythonRuntime(cache)
    async with Scheduler(runtime.linkage.engine) as scheduler:
        output: list[tuple[str, str]] = []
        guest = runtime.new_guest(
            scheduler=scheduler, app_tree=APP, site_tree=folder / "site", tmp=folder / "tmp",
            entrypoint="app:app", env=env, memory_mib=128, disk_mib=64,
            output=lambda _stream, data: output.append((guest.speaker, data.decode())),
        )  # fmt: skip
        try:
            await guest.start()
            yield Site(guest, output)
        finally:
            guest.close()


Play = Callable[[Callable[[Site], Coroutine[Any, Any, None]]], None]


@pytest.fixture
def play(prepared_cache: Path, tmp_path: Path) -> Play:
    """Runs a coroutine with a guest of its own."""

    def run(scene: Callable[[Site], Coroutine[Any, Any, None]], **env: str) -> None:
        async def main() -> None:
            async with site(prepared_cache, tmp_path, **env) as made:
                await scene(made)

        asyncio.run(main())

    return run


def test_the_scope_is_as_the_specification_wants_it(play):
    async def scene(site: Site) -> None:
        headers = (("host", "shop.localhost"), ("x-a", "1"), ("x-a", "\xe9"))
        found = (await site.ask("/scope?a=%20b", headers=headers, method="PUT")).json()
        begun = found["state"].pop("begun")
        assert begun > 0
        assert found == {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1", "method": "PUT", "scheme": "http", "path": "/scope",
            "raw_path": "/scope", "query_string": "a=%20b", "root_path": "",
            "headers": [["host", "shop.localhost"], ["x-a", "1"], ["x-a", "\xe9"]],
            "client": ["9.9.9.9", 0], "server": ["shop.localhost", 8080], "state": {},
            "extensions": {},
        }  # fmt: skip
        found = (await site.ask("/sc%6fpe", protocol="HTTP/2")).json()
        assert (found["path"], found["raw_path"]) == ("/scope", "/sc%6fpe")
        assert found["http_version"] == "2"

    play(scene)


def test_many_requests_wait_at_once_and_bodies_stream_both_ways(play):
    async def scene(site: Site) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        answers = await asyncio.gather(*(site.ask("/sleep?0.5") for _ in range(50)))
        assert {answer.body for answer in answers} == {b"slept"}
        assert loop.time() - began < 5  # one after the other: 25 s
        assert (await site.ask("/echo", b"x" * 1000, b"y" * 50)).body == b"1050 3"
        length = (("content-length", "1050"),)
        assert (await site.ask("/echo", b"x" * 1050, headers=length)).body == b"1050 1"
        assert (await site.ask("/echo")).body == b"0 1"

        # Each piece is answered before the next one is sent.
        exchange = site.guest.exchange()
        pieces: asyncio.Queue[bytes] = asyncio.Queue()

        async def read(_size: int) -> bytes:
            return await pieces.get()

        pieces.put_nowait(b"one")
        async with asyncio.timeout(60):
            response = await exchange.send(site.request("/both", True), read)
            assert response.body == b"one"
            for piece in (b"two", b"three"):
                pieces.put_nowait(piece)
                assert await exchange.next_chunk() == piece
            pieces.put_nowait(b"")
            assert await exchange.next_chunk() is None
            await exchange.finish()

    play(scene)


def test_an_app_sends_no_more_than_its_client_takes(play):
    async def scene(site: Site) -> None:
        exchange = site.guest.exchange()
        async with asyncio.timeout(60):
            response = await exchange.send(site.request("/big"), _nothing)
            sent = (await site.ask("/count")).json()
            assert 1 <= len(sent) <= 3  # of 200 KB each, and nobody has taken any
            size = len(response.body)
            while (piece := await exchange.next_chunk()) is not None:
                size += len(piece)
            await exchange.finish()
        assert size == 40 * 200_000 + 3

    play(scene)


def test_the_app_is_told_that_its_client_went(play):
    async def scene(site: Site) -> None:
        for path, said in (("/gone", "http.disconnect"), ("/stream", "ClientGone")):
            exchange = site.guest.exchange()
            asked = asyncio.create_task(exchange.send(site.request(path), _nothing))
            assert (await site.ask("/count")).json() == []  # it is there, and waits
            exchange.abandon()
            async with asyncio.timeout(60):
                with pytest.raises(GuestFailed, match="ended before its response did"):
                    await asked
                    while await exchange.next_chunk() is not None:
                        pass
                while not exchange.ended:
                    await asyncio.sleep(0)
            assert (await site.ask("/count")).json() == [said]
        # A body that broke off, and one that was refused.
        for error in (ClientDisconnected("gone"), BodyTooLarge("too large")):
            with pytest.raises(type(error)):
                await site.ask("/echo", b"x", error)
        assert site.guest.idle
        assert "Traceback" not in site.printed()

    play(scene)


def test_an_exchange_is_over_when_the_app_and_its_tasks_are(play):
    async def scene(site: Site) -> None:
        assert (await site.ask("/later")).body == b"at once"
        assert site.printed() == "the app was not done\n"
        assert (await site.ask("/spawned")).body == b"at once"
        assert site.printed() == "nor was its task\n"

    play(scene)


def test_output_says_whose_it_is(play):
    async def scene(site: Site) -> None:
        await asyncio.gather(*(site.ask(f"/say?{n}", request_id=f"id-{n}") for n in "abc"))
        found = [(name, line) for name, text in site.output for line in text.splitlines()]
        assert len(found) == 9
        assert all(name == f"id-{line.split()[0]}" for name, line in found)

    play(scene)


def test_what_would_need_a_thread_runs_at_once(play):
    async def scene(site: Site) -> None:
        refused, aside, mapped, awaited = (await site.ask("/threads")).json()
        assert "an instance has none" in refused
        assert (aside, mapped, awaited) == ("a loop of its own", [1, 2], 3)

    play(scene)


@pytest.mark.parametrize(
    ("path", "error", "said"),
    [
        ("/silent", GuestFailed, "returned without a response"),
        ("/half", GuestFailed, "before its response was complete"),
        ("/raises", GuestFailed, "ValueError: no"),
        ("/two_heads", GuestFailed, "'http.response.start' twice"),
        ("/no_head", GuestFailed, "before 'http.response.start'"),
        ("/nonsense", GuestFailed, "'websocket.accept', which is no part"),
        ("/split", GuestFailed, "holds a line break"),
        ("/exits", GuestFailed, "SystemExit: 3"),
        ("/bad_name", GuestProtocolError, ""),
        ("/raises_after", None, "ValueError: late"),
        ("/twice", None, "after its response was complete"),
    ],
)
def test_a_wrong_app_costs_its_request_alone(
    play: Play, path: str, error: type[IsopodError] | None, said: str
) -> None:
    async def scene(site: Site) -> None:
        beside = asyncio.create_task(site.ask("/sleep?0.2"))
        with pytest.raises(error) if error else _none():
            assert (await site.ask(path)).body in (b"whole", b"once")
        assert said in site.printed()
        assert (await beside).body == b"slept"
        assert (await site.ask("/echo")).status == 200

    play(scene)


@pytest.mark.parametrize("path", ["/never", "/stubborn", "/spin"])
def test_a_stopped_request_is_cancelled_and_one_that_goes_on_ends_the_instance(
    play: Play, path: str
) -> None:
    async def scene(site: Site) -> None:
        exchange = site.guest.exchange()
        asked = asyncio.create_task(exchange.send(site.request(path), _nothing))
        if path != "/spin":
            assert (await site.ask("/count")).json() == []
        exchange.stop()
        with pytest.raises(GuestFailed, match="the request was ended"):
            await asked
        if path == "/never":
            assert (await site.ask("/count")).json() == []
            assert exchange.ended
            assert site.guest.idle
        else:
            with pytest.raises(GuestFailed, match="the instance was ended"):
                await site.ask("/sleep?19")
            assert not site.guest.idle

    play(scene)


def test_a_guest_without_exchanges_does_not_run(play):
    async def scene(site: Site) -> None:
        exchange = site.guest.exchange()
        asked = asyncio.create_task(exchange.send(site.request("/sleep?0.01"), _nothing))
        await asked
        await exchange.finish()
        before = site.guest.cpu_ns
        await asyncio.sleep(0.1)  # a timer of the app's would have run by now
        assert site.guest.cpu_ns == before
        assert site.guest.waiting

    play(scene)


def test_lifespan_failures_are_the_apps_and_an_app_without_one_is_served(play):
    async def fine(site: Site) -> None:
        assert (await site.ask("/scope")).json()["state"] == {}

    play(fine, STARTUP="unsupported")
    for how, said in (("fails", "no database"), ("raises", "it will not start")):
        with pytest.raises(AppFailedToStart, match=said):
            play(fine, STARTUP=how)


async def _nothing(_size: int) -> bytes:
    return b""


class _none:
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...
