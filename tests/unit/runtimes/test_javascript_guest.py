"""Workers in real guests: requests, bodies, streams, timers, errors, limits."""

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.runtimes.apps import request
from tests.unit.runtimes.workers import Workshop, worker

from isopod.errors import (
    AppFailedToStart,
    AppSyntaxError,
    EntrypointNotCallable,
    EntrypointNotFound,
    GuestFailed,
    GuestProtocolError,
    MemoryLimitExceeded,
)
from isopod.runtimes.javascript import items

NO_MEMORY = "const all = []; for (;;) all.push(new Uint8Array(1 << 20).fill(1));"


@pytest.fixture(scope="module")
def shop(prepared_javascript: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    with Workshop(prepared_javascript, tmp_path_factory.mktemp("workers")) as made:
        yield made


def test_a_request_has_everything_and_the_answer_too(shop):
    app = shop.start(
        worker(
            """
            return Response.json(
              { method: request.method, url: request.url, two: request.headers.get("X-Two"),
                key: env.KEY, body: await request.text(),
                query: new URL(request.url).searchParams.get("a") },
              { status: 201, headers: [["set-cookie", "a=1"], ["set-cookie", "b=2"]] });
            """
        ),
        env={"KEY": "välue"},
    )
    status, headers, body = app.call("/p%20q?a=%C3%A4", body="hellö".encode())
    assert (status, headers["content-type"]) == (201, "application/json")
    assert json.loads(body) == {
        "method": "POST", "url": "https://x.test/p%20q?a=%C3%A4", "two": "a, b", "key": "välue",
        "body": "hellö", "query": "ä",
    }  # fmt: skip
    # Another request to the same instance; HEAD has no body.
    assert app.call("/", method="HEAD")[2] == b""


def test_bodies_stream_both_ways_whatever_their_size(shop):
    app = shop.start(
        worker(
            """
            if (request.method === "POST") return new Response(request.body);
            const size = 3_000_000;
            return new Response(new Uint8Array(size).fill(65));
            """
        )
    )
    sent = bytes(range(256)) * 4000
    assert app.call("/", body=sent)[2] == sent
    assert app.call("/")[2] == b"A" * 3_000_000


def test_a_stream_that_nobody_takes_waits_and_is_told_when_its_client_goes(shop):
    app = shop.start(
        worker(
            """
            let made = 0;
            return new Response(new ReadableStream({
              pull(c) { made++; c.enqueue(new Uint8Array(60000)); },
              cancel(why) { console.log("cancelled", made, why.message); } }));
            """
        )
    )

    async def leave() -> None:
        exchange = app.guest.exchange()
        assert (await exchange.send(request(), _no_body)).more
        assert await exchange.next_chunk()
        for _ in range(20):
            await asyncio.sleep(0)
        exchange.abandon()
        with pytest.raises(GuestFailed):
            while await exchange.next_chunk():
                pass

    shop.run(leave())
    said = app.said.split()
    assert said[0] == "cancelled" and int(said[1]) < 10, app.said
    assert not app.guest._exchanges


async def _no_body(_size: int) -> bytes:
    return b""


def test_wait_until_goes_on_when_the_client_has_everything(shop):
    app = shop.start(
        worker(
            """
            const after = (done) => setTimeout(() => { console.log("after"); done() }, 20);
            ctx.waitUntil(new Promise(after));
            return new Response("now");
            """
        )
    )

    async def watch() -> None:
        exchange = app.guest.exchange()
        response = await exchange.send(request(), _no_body)
        assert (response.body, response.more, exchange.ended) == (b"now", False, False)
        assert app.said == ""
        await exchange.finish()
        assert app.said == "after\n" and exchange.ended

    shop.run(watch())


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("export default {", AppSyntaxError, "SyntaxError"),
        ("export const x = 1", EntrypointNotFound, "no default export"),
        ("export default { get() {} }", EntrypointNotCallable, "no function fetch"),
        ("throw new TypeError('at import'); export default 1", AppFailedToStart, "at import"),
        ("await new Promise(() => {}); export default 1", AppFailedToStart, "never settles"),
        ("import x from 'other'; export default x", AppFailedToStart, "other"),
        (f"{NO_MEMORY} export default 1", MemoryLimitExceeded, "memory"),
    ],
)
def test_an_app_that_cannot_start_says_why(shop, source, error, message):
    with pytest.raises(error, match=message):
        shop.start(source)


def test_what_a_handler_throws_is_in_the_log_and_the_next_request_is_served(shop):
    app = shop.start(
        worker(
            """
            const { pathname } = new URL(request.url);
            if (pathname === "/throw") throw new TypeError("böse");
            if (pathname === "/nothing") return;
            if (pathname === "/later") { Promise.reject(new Error("nobody listens")); }
            if (pathname === "/handled") {
              const late = Promise.reject(1); await 0; late.catch(() => {}); }
            return new Response("fine");
            """
        )
    )
    with pytest.raises(GuestFailed) as thrown:
        app.call("/throw")
    assert thrown.value.details["summary"] == "TypeError: böse"
    assert "TypeError: böse" in app.said and "app.js:" in app.said
    with pytest.raises(GuestFailed) as nothing:
        app.call("/nothing")
    assert "fetch() gave nothing" in nothing.value.details["summary"]
    app.output.clear()
    assert app.text("/later") == "fine"
    assert app.text("/") == "fine"
    assert app.said.count("nobody listens") == 1
    app.output.clear()
    assert app.text("/handled") == "fine" and app.said == ""


def test_a_full_memory_is_an_error_that_the_app_can_see(shop):
    app = shop.start(
        worker(
            f"""
            if (new URL(request.url).pathname === "/caught") {{
              try {{ {NO_MEMORY} }} catch (error) {{ return new Response(error.message); }}
            }}
            {NO_MEMORY}
            """
        ),
        memory_mib=24,
    )
    assert app.text("/caught") == "out of memory"
    with pytest.raises(MemoryLimitExceeded, match="24 MiB"):
        app.call("/")


@pytest.mark.parametrize(
    "loop",
    ["for (;;) {}", "const f = () => Promise.resolve().then(f); f(); await new Promise(() => {})"],
)
def test_what_never_ends_can_be_ended_and_others_are_served_meanwhile(shop, loop):
    app, other = shop.start(worker(loop)), shop.start(worker("return new Response('other')"))

    async def race() -> None:
        stuck = asyncio.ensure_future(app.guest.exchange().send(request(), _no_body))
        for _ in range(3):
            response = await other.guest.exchange().send(request(), _no_body)
            assert response.body == b"other"
            await asyncio.sleep(0)  # its end
        assert not stuck.done()
        app.guest.close()
        with pytest.raises(GuestFailed):
            await stuck

    shop.run(race())


def test_timers_run_in_order_and_not_while_no_request_is_open(shop):
    app = shop.start(
        worker(
            """
            const { pathname } = new URL(request.url);
            if (pathname === "/set") { setInterval(() => ticks++, 1); return new Response("set"); }
            const seen = [];
            setTimeout(() => seen.push("b"), 100); setTimeout(() => seen.push("a"), 1);
            clearTimeout(setTimeout(() => seen.push("never"), 2));
            await new Promise((done) => setTimeout(done, 120));
            return new Response(seen.join("") + (ticks > 0));
            """,
            before="let ticks = 0;",
        )
    )
    assert app.text("/") == "abfalse"
    assert app.text("/set") == "set"
    before = app.guest.cpu_ns

    async def pause() -> None:
        await asyncio.sleep(0.03)  # the time itself is what is tested: nothing may happen in it

    shop.run(pause())
    assert app.guest.cpu_ns == before
    assert app.text("/") == "abtrue"


@pytest.mark.parametrize(
    "frame",
    [
        b"S",
        items.pack(b"S", 1, b"\xff\xff\xff\xff"),
        items.pack(b"S", 1, (3).to_bytes(4, "little") + b"999"),
        items.pack(b"D", 1, b"x"),
        items.pack(b"Q", 1),
        items.pack(b"!", 1),
        items.pack(b"L", 1, b"x" * 40_000),
        items.pack(b"D", 1, b"x")[:-1] + b"",
        (b"S" + bytes(4) + b"\xff" * 4),
    ],
)
def test_a_guest_that_says_what_it_may_not_is_ended(shop, frame):
    # Any worker can write what it wants into the outbox: here, the host pretends that it did.
    app = shop.start(worker("return new Response('x')"))

    async def say() -> None:
        exchange = app.guest.exchange()
        asked = asyncio.ensure_future(exchange.send(request(), _no_body))
        await asyncio.sleep(0)
        app.guest._on_call(frame)
        with pytest.raises(GuestProtocolError):
            await asked

    shop.run(say())
    assert not app.guest.idle


def test_what_a_guest_says_by_thousands_costs_the_host_little(shop, monkeypatch):
    app = shop.start(worker("return new Response('x')"))
    drawn: list[int] = []
    system = os.urandom
    monkeypatch.setattr(os, "urandom", lambda size: drawn.append(size) or system(size))

    async def say() -> None:
        exchange = app.guest.exchange()
        asked = asyncio.ensure_future(exchange.send(request(), _no_body))
        await asyncio.sleep(0)
        most = (1 << 16).to_bytes(4, "little")
        assert len(app.guest._take(items.pack(b"r", 0, most) * 10_000)) == 1 << 16
        assert sum(drawn) <= 1 << 17
        head = (3).to_bytes(4, "little") + b"200"
        pieces = items.pack(b"D", exchange.number) * 10_000
        app.guest._take(items.pack(b"H", exchange.number, head) + pieces)
        assert (await asked).more
        assert not exchange._chunks

    shop.run(say())


def test_requests_wait_together_and_one_is_ended_without_the_others(shop):
    app = shop.start(
        worker(
            """
            const { pathname } = new URL(request.url);
            if (pathname === "/never") await new Promise(() => {});
            await new Promise((done) => setTimeout(done, 30));
            return new Response(pathname);
            """
        )
    )

    async def many() -> None:
        made = [app.guest.exchange() for _ in range(20)]
        asked = [
            asyncio.ensure_future(one.send(request(f"/{at}"), _no_body))
            for at, one in enumerate(made)
        ]
        never = app.guest.exchange()
        waits = asyncio.ensure_future(never.send(request("/never"), _no_body))
        await asyncio.sleep(0)
        never.stop()
        with pytest.raises(GuestFailed):
            await waits
        answers = await asyncio.gather(*asked)
        assert [one.body for one in answers] == [b"/%d" % at for at in range(20)]

    shop.run(many())
    assert app.text("/next") == "/next"
