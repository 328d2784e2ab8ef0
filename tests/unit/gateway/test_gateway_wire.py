"""WebSockets between the real HTTP server and real clients."""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from granian.constants import Interfaces
from granian.server.embed import Server
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode

from isopod.errors import ClientDisconnected
from isopod.gateway import wire as wire_module
from isopod.gateway import wires
from isopod.gateway.client_socket import ClientSocket, sendable
from isopod.gateway.taken import find, take
from isopod.gateway.wires import Quiet, Wires, chore, too_many

App = Callable[[ClientSocket], Awaitable[None]]
_UPGRADE = (
    "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s\r\n"
)


class Place:
    """A server whose every WebSocket is given to `app`."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.quota_bytes = 0
        self.wires = Wires(port=port, memory_bytes=lambda _: self.quota_bytes)
        self.app: App = echo
        self.ended: list[BaseException | None] = []
        self.max_message_bytes = 1 << 20

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    async def serve(self, scope, receive, send) -> None:
        if scope["type"] != "websocket":
            return
        client = ClientSocket(
            scope,
            receive,
            send,
            wires=self.wires,
            max_message_bytes=self.max_message_bytes,
            max_idle_s=3600,
            tenant="acme",
        )
        error: BaseException | None = None
        try:
            assert (await client.receive())["type"] == "websocket.connect"
            await self.app(client)
        except Exception as found:
            error = found
        finally:
            with contextlib.suppress(RuntimeError):
                await client.end()
            self.ended.append(error)


async def echo(client: ClientSocket) -> None:
    await client.send({"type": "websocket.accept"})
    while (message := await client.receive())["type"] == "websocket.receive":
        await client.send({**message, "type": "websocket.send"})


@asynccontextmanager
async def place() -> AsyncIterator[Place]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    here = Place(port)
    server = Server(here.serve, port=port, interface=Interfaces.ASGINL, log_enabled=False)
    serving = asyncio.create_task(server.serve())
    try:
        await until(lambda: _answers(port))
        yield here
        await until(lambda: not len(here.wires))
        assert not here.wires.clients
    finally:
        server.stop()
        await asyncio.wait_for(serving, 60)


def _answers(port: int) -> bool:
    with socket.socket() as link:
        return link.connect_ex(("127.0.0.1", port)) == 0


async def until(so: Callable[[], object], within_s: float = 60) -> None:
    async with asyncio.timeout(within_s):
        while not so():
            await asyncio.sleep(0.01)


def run(test: Callable[[Place], Awaitable[None]]) -> None:
    async def all_of_it() -> None:
        async with asyncio.timeout(60), place() as here:
            await test(here)

    asyncio.run(all_of_it())


def raw(here: Place, headers: str = "") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return asyncio.open_connection("127.0.0.1", here.port)  # type: ignore[return-value]


async def opened(here: Place, headers: bytes = b""):
    reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
    writer.write((_UPGRADE % "").encode()[:-2] + headers + b"\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    return reader, writer, head


def frame(opcode: Opcode, data: bytes, *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=True)


def test_text_binary_empty_and_large_messages_come_back_as_they_went():
    async def test(here: Place) -> None:
        messages = ["hi", "é€😀", "", b"", bytes(range(256)), "x" * 500_000, os.urandom(900_000)]
        async with connect(here.url) as client:
            for message in messages:
                await client.send(message)
                assert await client.recv() == message
            await client.send(["in ", "pieces", " of", "", " text"])
            assert await client.recv() == "in pieces of text"

    run(test)


def test_pings_are_answered_while_the_app_is_busy_with_something_else():
    async def test(here: Place) -> None:
        go_on = asyncio.Event()

        async def busy(client: ClientSocket) -> None:
            await client.send({"type": "websocket.accept"})
            await go_on.wait()

        here.app = busy
        async with connect(here.url) as client:
            async with asyncio.timeout(60):
                await (await client.ping())
            go_on.set()

    run(test)


def test_the_clients_close_code_and_reason_reach_the_app():
    async def test(here: Place) -> None:
        said: list = []

        async def app(client: ClientSocket) -> None:
            await client.send({"type": "websocket.accept"})
            said.append(await client.receive())

        here.app = app
        async with connect(here.url) as client:
            await client.close(4321, "enough")
        await until(lambda: said)
        assert said == [{"type": "websocket.disconnect", "code": 4321, "reason": "enough"}]

    run(test)


def test_the_apps_close_code_and_reason_reach_the_client_though_it_is_being_read():
    async def test(here: Place) -> None:
        async def app(client: ClientSocket) -> None:
            await client.send({"type": "websocket.accept"})
            reading = asyncio.create_task(client.receive())
            await asyncio.sleep(0)
            await client.send({"type": "websocket.close", "code": 4001, "reason": "go"})
            assert (await reading)["code"] == 4001

        here.app = app
        async with connect(here.url) as client:
            with pytest.raises(ConnectionClosed):
                await client.recv()
            assert (client.close_code, client.close_reason) == (4001, "go")
        await until(lambda: here.ended)
        assert here.ended == [None]

    run(test)


def test_a_client_that_vanishes_is_told_as_1006():
    async def test(here: Place) -> None:
        said: list = []

        async def app(client: ClientSocket) -> None:
            await client.send({"type": "websocket.accept"})
            said.append(await client.receive())

        here.app = app
        _, writer, _ = await opened(here)
        writer.transport.abort()
        await until(lambda: said)
        assert said[0] == {"type": "websocket.disconnect", "code": 1006, "reason": ""}

    run(test)


def test_an_app_that_only_sends_is_told_that_its_client_has_gone():
    async def test(here: Place) -> None:
        async def app(client: ClientSocket) -> None:
            await client.send({"type": "websocket.accept"})
            assert client.wire is not None
            await client.wire.closed()
            await client.send({"type": "websocket.send", "text": "are you there?"})

        here.app = app
        _, writer, _ = await opened(here)
        reset = struct.pack("ii", 1, 0)  # and no end of what it said
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        writer.transport.abort()
        await until(lambda: here.ended)
        assert isinstance(here.ended[0], ClientDisconnected)

    run(test)


def test_a_message_that_is_too_large_ends_with_1009_before_it_is_read():
    async def test(here: Place) -> None:
        here.max_message_bytes = 1000
        for pieces in (["x" * 1001], ["x" * 600, "x" * 600]):
            async with connect(here.url) as client:
                with contextlib.suppress(ConnectionClosed):
                    await client.send(pieces)
                with pytest.raises(ConnectionClosed):
                    await client.recv()
                assert client.close_code == 1009

    run(test)


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"\x81\x02hi", 1002),  # not masked
        (b"\xc1\x80abcd", 1002),  # a reserved bit
        (frame(Opcode.CONT, b"what?"), 1002),
        (frame(Opcode.TEXT, b"\xff\xfe"), 1007),
        (frame(Opcode.TEXT, b"a", fin=False) + frame(Opcode.TEXT, b"b"), 1002),
        (b"\x89\xfe\x00\x80" + bytes(132), 1002),  # a long ping
    ],
    ids=["unmasked", "reserved", "orphan", "no UTF-8", "begun twice", "long ping"],  # masks differ
)
def test_frames_that_break_the_rules_end_with_the_code_that_says_so(sent: bytes, code: int):
    async def test(here: Place) -> None:
        reader, writer, _ = await opened(here)
        writer.write(sent)
        answer = await reader.read()
        assert answer[0] == 0x88
        assert int.from_bytes(answer[2:4], "big") == code
        writer.close()

    run(test)


def test_a_client_that_floods_waits_for_the_app():
    async def test(here: Place) -> None:
        seen: list[Place] = []
        go_on = asyncio.Event()
        taken = 0

        async def app(client: ClientSocket) -> None:
            nonlocal taken
            await client.send({"type": "websocket.accept"})
            seen.append(client)
            await go_on.wait()
            while (await client.receive())["type"] == "websocket.receive":
                taken += 1

        here.app = app
        _, writer, _ = await opened(here)
        # The kernel's buffers may hold megabytes, if it is let: too little to be kept waiting.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        count = 200_000
        sending = asyncio.create_task(_send_all(writer, frame(Opcode.TEXT, b"x" * 50), count))
        await until(lambda: seen)
        wire = seen[0].wire
        # It has stopped being read when nothing more comes for some looks.
        last = -1
        while last != (last := wire.received_bytes):
            await asyncio.sleep(0.1)
        assert wire.received_bytes < 2 << 20
        assert len(wire._waiting) < 1000
        assert not sending.done()
        go_on.set()
        await sending
        writer.write(frame(Opcode.CLOSE, b""))
        await until(lambda: here.ended)
        assert taken == count
        writer.close()

    run(test)


async def _send_all(writer: asyncio.StreamWriter, data: bytes, count: int) -> None:
    for _ in range(count // 1000):
        writer.write(data * 1000)
        await writer.drain()


def test_a_flood_of_pings_gets_a_small_part_of_the_loop():
    async def test(here: Place) -> None:
        seen: list[ClientSocket] = []

        async def app(client: ClientSocket) -> None:
            await client.send({"type": "websocket.accept"})
            seen.append(client)
            await client.receive()

        here.app = app
        reader, writer, _ = await opened(here)
        sending = asyncio.create_task(_send_all(writer, frame(Opcode.PING, b""), 50_000_000))
        reading = asyncio.create_task(_drop(reader))
        await until(lambda: seen)
        began = asyncio.get_running_loop().time()
        wire = seen[0].wire
        before_ns = wire.host_ns
        await until(lambda: wire.host_ns - before_ns > 200_000_000)
        took_s = asyncio.get_running_loop().time() - began
        assert (wire.host_ns - before_ns) / 1e9 < 0.2 * took_s + 0.1
        for task in (sending, reading):
            task.cancel()
        writer.transport.abort()

    run(test)


async def _drop(reader: asyncio.StreamReader) -> None:
    while await reader.read(1 << 16):
        pass


def test_a_client_that_takes_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(wire_module, "CLIENT_IDLE_S", 0.3)

    async def test(here: Place) -> None:
        async def app(client: ClientSocket) -> None:
            await client.send({"type": "websocket.accept"})
            while True:
                await client.send({"type": "websocket.send", "bytes": bytes(1 << 20)})

        here.app = app
        _, writer, _ = await opened(here)
        writer.transport.pause_reading()
        await until(lambda: here.ended)
        assert here.ended[0].code == "client_too_slow"
        writer.transport.abort()

    run(test)


def test_many_at_once_each_get_their_own_answers():
    async def test(here: Place) -> None:
        async def one(number: int) -> None:
            async with connect(here.url) as client:
                for turn in range(3):
                    await client.send(f"{number}.{turn}")
                    assert await client.recv() == f"{number}.{turn}"

        await asyncio.gather(*(one(number) for number in range(100)))

    run(test)


def test_an_app_may_refuse_with_a_response_of_its_own():
    async def test(here: Place) -> None:
        async def app(client: ClientSocket) -> None:
            headers = [(b"x-why", b"full")]
            await client.send(
                {"type": "websocket.http.response.start", "status": 418, "headers": headers}
            )
            await client.send({"type": "websocket.http.response.body", "body": b"no"})

        here.app = app
        with pytest.raises(InvalidStatus) as refused:
            await connect(here.url)
        assert refused.value.response.status_code == 418
        assert refused.value.response.headers["x-why"] == "full"
        assert refused.value.response.body == b"no"

    run(test)


def test_a_subprotocol_header_of_any_bytes_leaves_the_server_whole():
    """PYSEC-2026-2503: it made a worker of granian panic."""

    async def test(here: Place) -> None:
        for value in (b"\xff\xfe", b"\xc3\xa9", b",,,", b"", b"a" * 4000):
            _, writer, head = await opened(here, b"Sec-WebSocket-Protocol: " + value + b"\r\n")
            assert head.startswith(b"HTTP/1.1 101"), (value, head)
            writer.close()
        async with connect(here.url) as client:
            await client.send("still there")
            assert await client.recv() == "still there"

    run(test)


def test_a_handshake_that_is_none_gets_400():
    async def test(here: Place) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
        writer.write(
            b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 400")
        writer.close()

    run(test)


def test_what_is_done_about_a_quiet_one():
    assert chore(Quiet(1, 1, 1), max_idle_s=100) == ""
    assert chore(Quiet(31, 31, 31), max_idle_s=100) == "ping"
    assert chore(Quiet(31, 5, 31), max_idle_s=100) == ""
    assert chore(Quiet(91, 5, 91), max_idle_s=100) == "abort"
    assert chore(Quiet(1, 1, 101), max_idle_s=100) == "close"


def test_a_quiet_client_is_pinged_and_an_idle_one_closed():
    async def test(here: Place) -> None:
        async with connect(here.url) as client:
            await client.send("x")
            await client.recv()
            (wire,) = here.wires._wires
            wire.heard_at -= 40
            wire.pinged_at -= 40
            here.wires.look()
            await until(lambda: wire.heard_at > asyncio.get_running_loop().time() - 10)
            wire.moved_at -= 3601
            here.wires.look()
            await client.wait_closed()
            assert (client.close_code, client.close_reason) == (1001, "idle")

    run(test)


def test_messages_on_their_way_are_their_tenants_memory_and_within_its_quota():
    async def test(here: Place) -> None:
        _, writer, _ = await opened(here)
        writer.write(frame(Opcode.TEXT, b"x" * 200_000, fin=False))
        await until(lambda: len(here.wires) == 1)
        (large,) = here.wires._wires
        await until(lambda: large.held_bytes >= 200_000)
        here.wires.look()
        assert here.wires.held_bytes("acme") >= 200_000
        assert here.wires.held_bytes("zoo") == 0
        here.quota_bytes = 100_000
        here.wires.look()
        await until(lambda: large.gone_at)
        here.wires.look()
        assert here.wires.held_bytes("acme") == 0
        writer.close()

    run(test)


def test_all_together_hold_no_more_than_they_may_and_the_largest_go(
    monkeypatch: pytest.MonkeyPatch,
):
    assert too_many([("a", 5), ("a", 1), ("a", 4)], most=10) == []
    assert too_many([("a", 5), ("a", 1), ("a", 4), ("a", 1)], most=10) == [0, 2]
    # Not the largest of all: of who has most.
    assert too_many([("a", 5), *[("b", 2)] * 6], most=12) == [6, 5, 4, 3, 0]
    monkeypatch.setattr(wires, "MAX_HELD_BYTES", 100_000)

    async def test(here: Place) -> None:
        _, writer, _ = await opened(here)
        # The first part of a message that never ends, a frame of it and a part of another.
        writer.write(frame(Opcode.TEXT, b"x" * 60_000, fin=False))
        writer.write(frame(Opcode.CONT, b"x" * 60_000)[:50_000])
        async with connect(here.url) as other:
            await until(lambda: len(here.wires) == 2)
            (large, small) = here.wires._wires
            await until(lambda: large.held_bytes > 100_000)
            here.wires.look()
            await until(lambda: large.gone_at)
            assert large.held_bytes < 60_000 and not small.gone_at
            await other.send("x")
            assert await other.recv() == "x"
        writer.close()

    run(test)


def test_only_codes_that_may_be_sent_are_sent():
    assert sendable(1000, "ok") == (1000, "ok")
    assert sendable(4999, "é" * 100)[1] == "é" * 61
    for code in (0, 999, 1004, 1006, 1015, 2999, 5000, 70000):
        assert sendable(code, "")[0] == 1011
    assert sendable(1005, "")[0] == 1000


def test_a_refusal_frames_nothing_itself():
    """Who has the next answer over the same connection, behind a proxy, is somebody else."""

    async def test(here: Place) -> None:
        framing = [(b"content-length", b"2"), (b"transfer-encoding", b"chunked")]

        async def app(client: ClientSocket) -> None:
            headers = [*framing, (b"connection", b"x-hop"), (b"x-hop", b"1"), (b"x-kept", b"1")]
            start = {"type": "websocket.http.response.start", "status": 200, "headers": headers}
            await client.send(start)
            await client.send({"type": "websocket.http.response.body", "body": b"no" + b"EVIL"})

        here.app = app
        reader, writer, head = await opened(here)
        head = head.lower()
        assert b"content-length: 6" in head and b"content-length: 2" not in head
        assert b"chunked" not in head and b"x-hop" not in head and b"x-kept: 1" in head
        assert await reader.readexactly(6) == b"noEVIL"
        writer.close()

    run(test)


def test_a_port_that_a_client_left_to_another_is_not_taken_for_its_connection():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        to, port = listener.getsockname(), listener.getsockname()[1]
        first = socket.create_connection(to)
        mine = first.getsockname()
        accepted = listener.accept()[0]
        found = find(mine, port, known=())
        assert found is not None
        copy = take(found)
        assert copy is not None
        os.close(copy)
        for link in (first, accepted):  # a reset: the port is free at once
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            link.close()
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind(mine)
            other.connect(to)
            with listener.accept()[0] as again:
                assert again.fileno() == found.number
                assert take(found) is None


def test_connections_of_ipv6_are_found():
    with (
        socket.create_server(("::1", 0), family=socket.AF_INET6) as listener,
        socket.create_connection(listener.getsockname()[:2]) as client,
        listener.accept()[0] as accepted,
    ):
        found = find(client.getsockname()[:2], listener.getsockname()[1], known=())
        assert found is not None and found.number == accepted.fileno()


def test_a_client_that_waits_for_the_app_is_not_taken_for_gone():
    async def test(here: Place) -> None:
        seen: list[ClientSocket] = []
        go_on = asyncio.Event()

        async def app(client: ClientSocket) -> None:
            await client.send({"type": "websocket.accept"})
            seen.append(client)
            await go_on.wait()
            while (await client.receive())["type"] != "websocket.disconnect":
                taken.append(1)

        taken: list[int] = []
        here.app = app
        _, writer, _ = await opened(here)
        await until(lambda: seen)
        wire = seen[0].wire
        writer.write(frame(Opcode.TEXT, b"x") * 200)
        await until(lambda: wire.waits_for_us)
        wire.heard_at -= 100
        here.wires.look()
        go_on.set()
        writer.write(frame(Opcode.TEXT, b"x"))
        await until(lambda: len(taken) == 201)
        writer.close()

    run(test)
