"""What a hostile guest may say of its WebSockets."""

import asyncio
import struct

import pytest

from isopod.errors import GuestProtocolError
from isopod.runtimes.guest import GuestRequest, SocketAccepted, SocketClosed
from isopod.runtimes.python.exchanges import Exchanges
from isopod.runtimes.python.http_exchange import HttpExchange
from isopod.runtimes.python.socket_exchange import PythonSocket

REQUEST = GuestRequest("GET", "/", "", "HTTP/1.1", "ws", "a", 80, "127.0.0.1")


class Told:
    """Takes what the host says."""

    def __init__(self) -> None:
        self.said: list[bytes] = []

    def answer(self, data: bytes) -> None:
        self.said.append(data)

    def connections(self) -> None:
        return None


async def read() -> SocketClosed:
    return await asyncio.Event().wait()  # type: ignore[return-value]


async def opened() -> PythonSocket:
    among = Exchanges(Told())  # type: ignore[arg-type]
    socket = PythonSocket(among.next_number(), among)
    opening = asyncio.create_task(socket.open(REQUEST, read))
    await asyncio.sleep(0)
    socket.said(b"A", b"")
    assert await opening == SocketAccepted()
    return socket


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (b"A", b""),  # twice
        (b"S", b"\x03\x00\x00\x00200"),
        (b"T", b"\xff"),
        (b"P", bytes(2049)),
        (b"M", bytes((4 << 20) + 1)),
        (b"Z", b"\x01"),
        (b"Z", bytes(2 + 124)),
        (b"D", b"x"),
        (b"?", b""),
    ],
)
def test_what_no_websocket_says_ends_the_guest(kind: bytes, payload: bytes):
    async def main() -> None:
        socket = await opened()
        with pytest.raises(GuestProtocolError):
            socket.said(kind, payload)

    asyncio.run(main())


@pytest.mark.parametrize("payload", [b"a b", b"x\nbad name:1", b"\x00", b"\n" * 70_000])
def test_a_handshake_may_hold_no_bad_header(payload: bytes):
    async def main() -> None:
        among = Exchanges(Told())  # type: ignore[arg-type]
        socket = PythonSocket(among.next_number(), among)
        opening = asyncio.create_task(socket.open(REQUEST, read))
        await asyncio.sleep(0)
        with pytest.raises(GuestProtocolError):
            socket.said(b"A", payload)
        opening.cancel()

    asyncio.run(main())


def test_a_guest_cannot_send_more_than_its_client_takes():
    async def main() -> None:
        socket = await opened()
        with pytest.raises(GuestProtocolError):
            for _ in range(100_000):
                socket.said(b"M", b"")

    asyncio.run(main())


# -- and of its requests ----------------------------------------------------------------------


def waits(*said: tuple[bytes, int, bytes], sockets: int = 0) -> bytes:
    items = b"".join(struct.pack("<cII", kind, one, len(data)) + data for kind, one, data in said)
    return struct.pack("<cIH", b"W", 0xFFFFFFFF, sockets) + bytes(5 * sockets) + items


async def asked(told: Told) -> tuple[Exchanges, HttpExchange, asyncio.Task]:
    among = Exchanges(told)  # type: ignore[arg-type]
    exchange = among.new()
    asking = asyncio.create_task(exchange.send(REQUEST, read))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    return among, exchange, asking


HEAD = b"\x03\x00\x00\x00200"


def test_what_would_hold_up_or_fill_the_host_ends_the_guest():
    async def main() -> None:
        for said, sockets in (
            ([(b"H", 1, HEAD + b"x"), (b"D", 1, b"")], 0),  # costs us more than the guest
            ([(b"S", 1, HEAD + bytes(300_000))], 0),
            ([(b"H", 1, HEAD), *[(b"X", 1, b"")] * 10_000], 0),
            ([], 60_000),
        ):
            among, _, asking = await asked(Told())
            with pytest.raises(GuestProtocolError):
                among.on_wait(waits(*said, sockets=sockets))
            asking.cancel()

    asyncio.run(main())


def test_a_guest_with_no_request_is_not_run_for_what_is_over():
    async def main() -> None:
        told = Told()
        among, exchange, asking = await asked(told)
        among.on_wait(waits())
        assert len(told.said) == 1  # the request
        among.tell(b"t", exchange.number, bytes(4))  # while it computes
        among.on_wait(waits((b"S", 1, HEAD), (b"F", 1, b"")))
        assert (await asking).status == 200
        assert len(told.said) == 1

    asyncio.run(main())
