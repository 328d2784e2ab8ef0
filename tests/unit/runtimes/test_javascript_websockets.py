"""WebSockets of workers: pairs, messages of any size, closes; and what a guest may not say."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.runtimes.apps import App, request
from tests.unit.runtimes.workers import Workshop, worker

from isopod.errors import GuestFailed, GuestProtocolError
from isopod.runtimes.guest import GuestRequest, GuestResponse, SocketAccepted, SocketClosed
from isopod.runtimes.javascript.inbox import Inbox
from isopod.runtimes.javascript.socket import JavaScriptSocket

ECHO = worker(
    """
    const { pathname } = new URL(request.url);
    if (request.headers.get("upgrade") !== "websocket") return new Response("plain");
    if (pathname === "/refused") return new Response("not you", { status: 403 });
    if (pathname === "/throws") throw new TypeError("no");
    const [client, server] = Object.values(new WebSocketPair());
    server.accept();
    if (pathname === "/first") server.send("before the answer");
    let count = ctx.webSocket.attachment ?? 0;
    server.addEventListener("message", ({ data }) => {
      if (data === "close") return server.close(4000, "asked for");
      if (data === "bad") throw new TypeError("in a listener");
      if (data === "many") for (let at = 0; at < 3000; at++) server.send(`${at}`);
      if (data === "count") server.serializeAttachment(++count), server.send(String(count));
      else server.send(typeof data === "string" ? `text ${data.length}` : data);
    });
    server.addEventListener("close", ({ code, reason, wasClean }) =>
      console.log("closed", code, reason, wasClean, server.readyState));
    const protocol = pathname === "/protocol" ? "b" : pathname === "/other" ? "x" : null;
    const headers = protocol ? { "Sec-WebSocket-Protocol": protocol } : {};
    return new Response(null, { status: 101, webSocket: client, headers });
    """
)


@pytest.fixture(scope="module")
def shop(prepared_javascript: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    with Workshop(prepared_javascript, tmp_path_factory.mktemp("websockets")) as made:
        yield made


class Client:
    """Says what it was given, one message when the app asks; then it waits."""

    def __init__(self, *messages: str | bytes | SocketClosed) -> None:
        self.messages = asyncio.Queue[str | bytes | SocketClosed]()
        for one in messages:
            self.messages.put_nowait(one)

    async def read(self) -> str | bytes | SocketClosed:
        return await self.messages.get()


def asked(path: str = "/", attachment: bytes | None = None) -> GuestRequest:
    headers = (("sec-websocket-protocol", "a, b"),)
    return replace(request(path), scheme="wss", headers=headers, attachment=attachment)


async def opened(app: App, client: Client, path: str = "/") -> JavaScriptSocket:
    socket = app.guest.socket()
    assert await socket.open(asked(path), client.read) == SocketAccepted()
    return socket


def test_messages_of_both_kinds_and_any_size_come_and_go_in_order(shop):
    app = shop.start(ECHO)

    async def talk() -> None:
        big = bytes(range(256)) * 4000
        client = Client("ä" * 300_000, big, b"", "", "many")
        socket = await opened(app, client)
        assert await socket.next_message() == "text 300000"
        assert await socket.next_message() == big
        assert (await socket.next_message(), await socket.next_message()) == (b"", "text 0")
        assert [await socket.next_message() for _ in range(3001)][-2:] == ["2999", "text 4"]
        client.messages.put_nowait("close")
        assert await socket.next_message() == SocketClosed(4000, "asked for")
        await socket.finish()
        assert socket.ended and not app.guest._exchanges

    shop.run(talk())
    assert app.said == "closed 4000 asked for true 3\n"
    assert app.text("/") == "plain"


def test_a_client_that_closes_is_told_to_the_app(shop):
    app = shop.start(ECHO)

    async def leave() -> None:
        socket = await opened(app, Client("x", SocketClosed(1001, "tab")), "/first")
        assert await socket.next_message() == "before the answer"
        assert await socket.next_message() == "text 1"
        assert await socket.next_message() == SocketClosed(1001, "tab")
        await socket.finish()
        gone = await opened(app, Client())
        gone.abandon()
        with pytest.raises(GuestFailed, match="without closing"):
            await gone.next_message()

    shop.run(leave())
    assert app.said == "closed 1001 tab true 3\nclosed 1006  false 3\n"
    assert not app.guest._exchanges


def test_an_app_refuses_chooses_a_protocol_or_throws(shop):
    app = shop.start(ECHO)

    async def ask() -> None:
        socket = app.guest.socket()
        answer = await socket.open(asked("/refused"), Client().read)
        assert isinstance(answer, GuestResponse)
        assert (answer.status, answer.body) == (403, b"not you")
        await socket.finish()
        taken = await app.guest.socket().open(asked("/protocol"), Client().read)
        assert taken == SocketAccepted("b")
        for path in ("/other", "/throws"):
            with pytest.raises(GuestFailed):
                await app.guest.socket().open(asked(path), Client().read)
        socket = await opened(app, Client("bad", "x"))
        assert await socket.next_message() == "text 1"

    shop.run(ask())
    assert 'did not offer the subprotocol "x"' in app.said
    assert "TypeError: in a listener" in app.said


def test_what_is_attached_is_there_when_it_goes_on_in_another_instance(shop):
    one, two, three = (shop.start(ECHO) for _ in range(3))

    async def count() -> None:
        socket = await opened(one, Client("count", "count"))
        assert [await socket.next_message() for _ in range(2)] == ["1", "2"]
        later = two.guest.socket()
        await later.open(asked(attachment=socket.attachment), Client("count").read)
        assert await later.next_message() == "3"
        fresh = three.guest.socket()
        await fresh.open(asked(attachment=b""), Client("count").read)
        assert await fresh.next_message() == "1"

    shop.run(count())


def test_a_websocket_for_a_request_that_is_none_fails(shop):
    app = shop.start(
        worker(
            """
            const [client, server] = Object.values(new WebSocketPair());
            const status = new URL(request.url).pathname === "/end" ? 200 : 101;
            const out = [];
            const acts = [() => client.accept(), () => server.send("x"), () => server.close(1005),
              () => server.close(1000, "x".repeat(124)), () => new WebSocket("wss://x.test"),
              () => new Response("x", { webSocket: client })];
            for (const act of acts)
              try { act(); out.push("no error"); } catch (error) { out.push(error.name); }
            console.log(out.join(" "));
            if (status === 200) return new Response("x");
            return new Response(null, { status, webSocket: client });
            """
        )
    )
    assert app.text("/end") == "x"
    assert app.said == (
        "TypeError TypeError InvalidAccessError SyntaxError NotSupportedError TypeError\n"
    )
    with pytest.raises(GuestFailed) as failed:
        app.call("/")
    assert "for no WebSocket" in failed.value.details["summary"]


async def taken() -> JavaScriptSocket:
    socket = JavaScriptSocket(
        1, say=lambda *_: None, room=Inbox().room, stop=lambda _: None, memory_mib=8
    )
    opening = asyncio.create_task(socket.open(asked(), Client().read))
    await asyncio.sleep(0)
    socket.take(b"A", b"")
    assert await opening == SocketAccepted()
    return socket


@pytest.mark.parametrize(
    ("operation", "data"),
    [(b"A", b""), (b"S", b"\3\0\0\0200"), (b"W", b"\xff"), (b"N", bytes(2049)), (b"P", b""),
     (b"M", bytes((4 << 20) + 1)), (b"Z", b"\1"), (b"Z", bytes(126)), (b"D", b"x"), (b"H", b"")],
)  # fmt: skip
def test_what_no_websocket_says_ends_the_guest(operation, data):
    async def main() -> None:
        socket = await taken()
        with pytest.raises(GuestProtocolError):
            socket.take(operation, data)

    asyncio.run(main())


def test_a_guest_cannot_send_more_than_its_client_takes():
    async def main() -> None:
        for operation, data in ((b"M", b""), (b"P", bytes(60_000)), (b"W", b"x" * 60_000)):
            socket = await taken()
            with pytest.raises(GuestProtocolError):
                for _ in range(10_000):
                    socket.take(operation, data)

    asyncio.run(main())
