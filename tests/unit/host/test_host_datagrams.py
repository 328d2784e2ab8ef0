"""UDP of a real guest, and the relay that keeps the worker from having such a socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest
from tests.unit.host.test_host_sockets import run
from tests.unit.host.world import allow, here, made_broker

from isopod.host.broker import BrokerLimits
from isopod.host.outside import OutsideError


class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, address):
        self.transport.sendto(data, address)


@contextlib.asynccontextmanager
async def echoing() -> AsyncIterator[int]:
    """The port of a UDP server."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
    try:
        yield transport.get_extra_info("sockname")[1]
    finally:
        transport.close()


def in_guest(code, cache, folder):
    return run(code, cache, folder, serving=echoing)


def test_a_guest_asks_by_datagrams_as_a_resolver_does(prepared_cache, tmp_path):
    result = in_guest(
        """
import select, socket
result = {}
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.settimeout(5)
    s.bind(("0.0.0.0", 0))
    result["sent"] = s.sendto(b"one", ("localhost", PORT))
    result["whole"] = s.recvfrom(512)
    s.sendto(b"x" * 9000, ("127.0.0.1", PORT))
    result["cut"] = len(s.recvfrom(100)[0])
    for piece in (b"a", b"b"):
        s.sendto(piece, ("127.0.0.1", PORT))
    result["apart"] = [s.recv(10), s.recv(10)]
    s.settimeout(0.1)
    try:
        s.recvfrom(10)
    except TimeoutError as error:
        result["late"] = str(error)
with socket.socket(type=socket.SOCK_DGRAM) as s:
    s.connect(("127.0.0.1", PORT))
    s.send(b"two")
    result["ready"] = bool(select.select([s], [], [], 5)[0])
    result["connected"] = [s.recv(10), s.getpeername()]
    s.setblocking(False)
    try:
        s.recv(10)
    except BlockingIOError:
        result["nothing"] = True
    try:
        s.send(b"x" * 70_000)
    except OSError as error:
        result["large"] = error.strerror
import asyncio
class Client(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        transport.sendto(b"three")
    def datagram_received(self, data, address):
        answered.set_result([data, address])
async def ask():
    global answered
    loop = asyncio.get_running_loop()
    answered = loop.create_future()
    transport, _ = await loop.create_datagram_endpoint(Client, remote_addr=("127.0.0.1", PORT))
    result["loop"] = await asyncio.wait_for(answered, 60)
    transport.close()
asyncio.run(ask())
result = {name: repr(value) for name, value in result.items()}
""",
        prepared_cache,
        tmp_path,
    )
    port = result["whole"].rpartition(" ")[2].rstrip(")")
    peer = f"('127.0.0.1', {port})"
    assert result == {
        "sent": "3",
        "whole": f"(b'one', {peer})",
        "cut": "100",
        "apart": "[b'a', b'b']",
        "late": "'timed out'",
        "ready": "True",
        "connected": f"[b'two', {peer}]",
        "nothing": "True",
        "large": "'Message too long'",
        "loop": f"[b'three', {peer}]",
    }


def test_datagrams_go_nowhere_that_is_not_listed_and_nobody_is_an_error(prepared_cache, tmp_path):
    with socket.socket(type=socket.SOCK_DGRAM) as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        held.close()
        result = run(
            """
import socket
result = []
def attempt(call):
    try:
        call()
    except OSError as error:
        result.append([type(error).__name__, str(error)])
s = socket.socket(type=socket.SOCK_DGRAM)
s.settimeout(5)
attempt(lambda: s.sendto(b"x", ("127.0.0.1", 1)))
attempt(lambda: s.sendto(b"x", ("169.254.169.254", 53)))
attempt(lambda: s.sendto(b"x", ("127.0.0.1", PORT)) and s.recvfrom(10))
""",
            prepared_cache,
            tmp_path,
            port=port,
        )
    assert [kind for kind, _ in result] == [
        *("PermissionError", "PermissionError"),
        "ConnectionRefusedError",
    ]
    assert 'allow = ["127.0.0.1:1"]' in result[0][1]


def test_a_worker_is_handed_a_pair_and_no_socket_of_udp():
    async def main():
        async with echoing() as port:
            broker = made_broker(
                {"app": ("default", allow(f"127.0.0.1:{port}"))},
                here(port),
                limits=BrokerLimits(relays=2),
            )
            loop = asyncio.get_running_loop()
            made = [
                await broker.connect("app", ["127.0.0.1"], "", port, datagrams=True)
                for _ in range(2)
            ]
            assert {one.family for one in made} == {socket.AF_UNIX}
            with pytest.raises(OutsideError, match="EMFILE"):
                await broker.connect("app", ["127.0.0.1"], "", port, datagrams=True)
            await loop.sock_sendall(made[0], b"there")
            assert await loop.sock_recv(made[0], 100) == b"there"
            made.pop().close()
            for _ in range(100):  # the broker sees it with the next turns of its loop
                with contextlib.suppress(OutsideError):
                    made.append(
                        await broker.connect("app", ["127.0.0.1"], "", port, datagrams=True)
                    )
                    break
                await asyncio.sleep(0)
            assert len(made) == 2
            for one in made:
                one.close()
            broker.close()

    asyncio.run(main())


def test_many_apps_give_a_tenant_no_more_of_the_brokers_files():
    async def main():
        async with echoing() as port:
            mine = {f"app{n}": ("acme", allow(f"127.0.0.1:{port}")) for n in range(4)}
            broker = made_broker(
                mine | {"other": ("zoo", allow(f"127.0.0.1:{port}"))},
                here(port),
                limits=BrokerLimits(relays=2, of_a_tenant=3),
            )

            async def connect(app: str) -> socket.socket:
                return await broker.connect(app, ["127.0.0.1"], "", port, datagrams=True)

            made = [await connect(f"app{n}") for n in range(3)]
            with pytest.raises(OutsideError, match="a tenant may have 3"):
                await connect("app3")
            made.append(await connect("other"))
            for one in made:
                one.close()
            broker.close()

    asyncio.run(main())


def test_a_tenants_datagrams_have_a_pace_and_others_do_not_wait_for_it():
    async def main():
        async with echoing() as port:
            listed = allow(f"127.0.0.1:{port}")
            broker = made_broker(
                {"a": ("acme", listed), "b": ("acme", listed), "other": ("zoo", listed)},
                here(port),
                limits=BrokerLimits(datagrams_per_s=100),
            )
            loop = asyncio.get_running_loop()
            a, b, other = [
                await broker.connect(app, ["127.0.0.1"], "", port, datagrams=True)
                for app in ("a", "b", "other")
            ]

            async def ask(one: socket.socket, count: int) -> float:
                for number in range(count):
                    await loop.sock_sendall(one, b"%d" % number)
                for number in range(count):
                    assert await loop.sock_recv(one, 100) == b"%d" % number
                return loop.time()

            began = loop.time()
            async with asyncio.timeout(60):
                slow = [asyncio.create_task(ask(one, 10)) for one in (a, b)]
                await ask(other, 4)
                assert not any(one.done() for one in slow)
                # 40 pass, of which 10 at once.
                assert max([await one for one in slow]) - began >= 0.29
            for one in (a, b, other):
                one.close()
            while broker._relays:  # they see it when their pause is over
                await asyncio.sleep(0.01)
            broker.close()

    asyncio.run(main())
