"""What a hostile guest may say of its WebSockets."""

import asyncio

import pytest

from isopod.errors import GuestProtocolError
from isopod.runtimes.guest import GuestRequest, SocketAccepted, SocketClosed
from isopod.runtimes.python.exchanges import Exchanges
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


@pytest.mark.parametrize("payload", [b"a b", b"x\nbad name:1", b"\x00"])
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
