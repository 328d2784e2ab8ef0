"""Sockets of a real guest: `socket`, `select` and what is above them, unmodified."""

import asyncio
import contextlib
import socket
import struct
from pathlib import Path

import pytest
from tests.unit.host.world import allow, closed_port, echo, guests, here, made_broker, server

from isopod.errors import GuestFailed
from isopod.host.connections import ConnectionLimits


def run(
    code: str, cache: Path, folder: Path, *, serve=echo, port: int = 0, limits=None, serving=None
):
    """The result of `code` in one guest, before a server that runs `serve` on PORT, or before
    what `serving()` starts."""

    async def main():
        async with contextlib.AsyncExitStack() as stack:
            at = port or await stack.enter_async_context(serving() if serving else server(serve))
            listed = allow(f"127.0.0.1:{at}", f"localhost:{at}")
            broker = made_broker({"app": ("default", listed)}, here(at))
            stack.callback(broker.close)
            found = await stack.enter_async_context(guests(cache, folder, broker, limits=limits))
            guest = await found.start()
            try:
                result = await found.run(guest, code.replace("PORT", str(at)))
                guest.close()
            finally:
                print(b"".join(found.output).decode())
            assert not found.world.open_now.by_app
            return result

    return asyncio.run(main())


def test_a_guest_talks_over_tcp_and_closes_each_half(prepared_cache, tmp_path):
    result = run(
        """
import socket
with socket.create_connection(("localhost", PORT), timeout=60) as s:
    s.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    s.sendall(b"hello " * 100_000)
    s.shutdown(socket.SHUT_WR)
    data = b""
    while piece := s.recv(65536):
        data += piece
    result = [data == b"hello " * 100_000, s.getpeername(), s.getsockname()[0], s.gettimeout()]
""",
        prepared_cache,
        tmp_path,
        serve=late_echo,
    )
    assert result[0] is True
    assert result[1][0] == result[2] == "127.0.0.1"
    assert result[3] == 60


async def late_echo(reader, writer):
    """Answers when the other has said everything: its half is closed."""
    data = await reader.read()
    writer.write(data)
    await writer.drain()


def test_errors_are_those_of_the_operating_system(prepared_cache, tmp_path):
    with closed_port() as port:
        result = run(
            """
import errno, socket
result = {}
for name, call in {
    "refused": lambda: socket.create_connection(("127.0.0.1", PORT), timeout=60),
    "not connected": lambda: socket.socket().send(b"x"),
    "nobody": lambda: socket.getaddrinfo("127.0.0.300", 80),
    "datagram": lambda: socket.socket(type=socket.SOCK_DGRAM).connect(("127.0.0.1", 53)),
    "listen": lambda: socket.create_server(("", 8000)),
    "service": lambda: socket.getaddrinfo("localhost", "nonsense"),
    "negative": lambda: socket.socket().settimeout(-1),
}.items():
    try:
        call()
    except Exception as error:
        result[name] = [type(error).__name__, errno.errorcode.get(error.errno or 0, "")
                        if isinstance(error, OSError) else "", str(error)]
s = socket.socket()
result["connect_ex"] = errno.errorcode[s.connect_ex(("127.0.0.1", PORT))]
s.close()
try:
    s.recv(1)
except OSError as error:
    result["closed"] = errno.errorcode[error.errno]
""",
            prepared_cache,
            tmp_path,
            port=port,
        )
    print(result)
    assert result["refused"][:2] == ["ConnectionRefusedError", "ECONNREFUSED"]
    assert result["not connected"][1] == "ENOTCONN"
    assert result["nobody"][0] == "PermissionError"
    assert result["datagram"][1] == "EACCES"
    assert result["listen"][0] == "PermissionError"
    assert "entrypoint" in result["listen"][2]
    assert result["service"][0] == "gaierror"
    assert result["negative"][0] == "ValueError"
    assert result["connect_ex"] == "ECONNREFUSED"
    assert result["closed"] == "EBADF"


def test_a_reset_a_silent_and_an_endless_peer(prepared_cache, tmp_path):
    async def serve(reader, writer):
        asked = await reader.readexactly(1)
        if asked == b"r":
            made = writer.get_extra_info("socket")
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return
        while asked == b"e":
            writer.write(b"x" * 65536)
            await writer.drain()
        await reader.read()  # silent

    result = run(
        """
import socket, time
result = []
def ask(what):
    s = socket.create_connection(("127.0.0.1", PORT), timeout=60)
    s.sendall(what)
    s.settimeout(0.2 if what == b"s" else 60)
    return s
began = time.monotonic()
for what in (b"r", b"s"):
    s = ask(what)
    try:
        result.append(s.recv(10).decode())
    except OSError as error:
        result.append([type(error).__name__, str(error)])
    s.close()
s = ask(b"e")
got = 0
while got < 5_000_000:
    got += len(s.recv(1 << 20))
s.close()
result.append(time.monotonic() - began < 60)
""",
        prepared_cache,
        tmp_path,
        serve=serve,
    )
    assert result[0][0] == "ConnectionResetError"
    assert result[1] == ["TimeoutError", "timed out"]
    assert result[2] is True


def test_non_blocking_sockets_with_select_poll_and_selectors(prepared_cache, tmp_path):
    result = run(
        """
import errno, select, selectors, socket
result = {}
s = socket.socket()
s.setblocking(False)
result["connect_ex"] = errno.errorcode[s.connect_ex(("127.0.0.1", PORT))]
_, writable, _ = select.select([], [s], [], 5)
result["writable"] = writable == [s]
result["error"] = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
try:
    s.recv(1)
except BlockingIOError as error:
    result["empty"] = errno.errorcode[error.errno]
result["not ready"] = select.select([s], [], [], 0.01)
s.send(b"ping")
p = select.poll()
p.register(s, select.POLLIN)
result["poll"] = p.poll(5000) == [(s.fileno(), select.POLLIN)]
result["peek"] = s.recv(2, socket.MSG_PEEK).decode()
with selectors.DefaultSelector() as selector:
    selector.register(s, selectors.EVENT_READ | selectors.EVENT_WRITE, "it")
    result["selector"] = [(key.data, int(events)) for key, events in selector.select(5)]
buffer = bytearray(10)
result["into"] = [s.recv_into(buffer), buffer[:4].decode()]
s.close()
refused = socket.socket()
refused.setblocking(False)
refused.connect_ex(("127.0.0.1", 1))
select.select([], [refused], [], 5)
result["refused"] = errno.errorcode[refused.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)]
""",
        prepared_cache,
        tmp_path,
    )
    assert result == {
        "connect_ex": "EINPROGRESS",
        "writable": True,
        "error": 0,
        "empty": "EAGAIN",
        "not ready": [[], [], []],
        "poll": True,
        "peek": "pi",
        "selector": [["it", 3]],
        "into": [4, "ping"],
        "refused": "EACCES",  # port 1 is not on the list
    }


def test_a_pair_of_sockets_is_within_the_guest(prepared_cache, tmp_path):
    result = run(
        """
import select, socket
a, b = socket.socketpair()
a.sendall(b"hello")
result = [select.select([a, b], [], [], 0)[0] == [b], b.recv(3).decode(), b.recv(10).decode()]
a.close()
result.append(b.recv(1).decode())
try:
    b.send(b"x")
except BrokenPipeError:
    result.append("broken")
c, d = socket.socketpair()
c.settimeout(0.01)
try:
    c.recv(1)
except TimeoutError:
    result.append("timeout")
try:
    d.recv(1)
except OSError as error:
    result.append("for ever" if "only thread" in str(error) else str(error))
file = d.makefile("rwb")
c.sendall(b"line\\n")
result.append(file.readline().decode())
""",
        prepared_cache,
        tmp_path,
    )
    assert result == [True, "hel", "lo", "", "broken", "timeout", "for ever", "line\n"]


def test_an_instance_has_so_many_connections_and_no_more(prepared_cache, tmp_path):
    result = run(
        """
import errno, socket
held = []
try:
    while len(held) < 50:
        held.append(socket.create_connection(("127.0.0.1", PORT)))
except OSError as error:
    result = [len(held), errno.errorcode[error.errno]]
held.pop().close()
held.append(socket.create_connection(("127.0.0.1", PORT)))
result.append(len(held))
""",
        prepared_cache,
        tmp_path,
        limits=ConnectionLimits(per_instance=5),
    )
    assert result == [5, "EMFILE", 5]


def test_a_connection_is_kept_from_one_request_to_the_next(prepared_cache, tmp_path):
    async def main():
        async with contextlib.AsyncExitStack() as stack:
            connections = []

            async def serve(reader, writer):
                connections.append(1)
                await echo(reader, writer)

            port = await stack.enter_async_context(server(serve))
            broker = made_broker({"app": ("default", allow(f"127.0.0.1:{port}"))}, here(port))
            stack.callback(broker.close)
            found = await stack.enter_async_context(guests(prepared_cache, tmp_path, broker))
            guest = await found.start()
            code = f"""
import socket
s = kept.get("s")
if s is None:
    s = kept["s"] = socket.create_connection(("127.0.0.1", {port}))
s.sendall(b"again")
result = s.recv(5).decode()
"""
            answers = [await found.run(guest, code) for _ in range(3)]
            assert answers == ["again"] * 3
            assert len(connections) == 1
            assert guest.sent_bytes == 15
            guest.close()
            assert not found.world.open_now.by_app

    asyncio.run(main())


def test_guests_that_wait_for_a_slow_peer_hold_nobody_up(prepared_cache, tmp_path):
    count = 20  # 200 with snapshots: tests/e2e

    async def main():
        async with contextlib.AsyncExitStack() as stack:
            arrived, go = [], asyncio.Event()

            async def serve(reader, writer):
                await reader.readexactly(1)
                arrived.append(1)
                if len(arrived) == count:
                    go.set()
                await go.wait()
                writer.write(b"done")

            port = await stack.enter_async_context(server(serve))
            broker = made_broker({"app": ("default", allow(f"127.0.0.1:{port}"))}, here(port))
            stack.callback(broker.close)
            found = await stack.enter_async_context(guests(prepared_cache, tmp_path, broker))
            code = f"""
import socket
s = socket.create_connection(("127.0.0.1", {port}))
s.sendall(b"x")
result = s.recv(10).decode()
"""
            made = [await found.start() for _ in range(count)]
            answers = await asyncio.gather(*(found.run(guest, code) for guest in made))
            assert answers == ["done"] * count

    asyncio.run(main())


def test_a_guest_that_is_ended_while_it_waits_leaves_no_connection(prepared_cache, tmp_path):
    async def main():
        async with contextlib.AsyncExitStack() as stack:
            arrived, closed = asyncio.Event(), asyncio.Event()

            async def serve(reader, _writer):
                await reader.readexactly(1)
                arrived.set()
                await reader.read()
                closed.set()

            port = await stack.enter_async_context(server(serve))
            broker = made_broker({"app": ("default", allow(f"127.0.0.1:{port}"))}, here(port))
            stack.callback(broker.close)
            found = await stack.enter_async_context(guests(prepared_cache, tmp_path, broker))
            guest = await found.start()
            code = f"""
import socket
s = socket.create_connection(("127.0.0.1", {port}))
s.sendall(b"x")
s.recv(10)
"""
            running = asyncio.create_task(found.run(guest, code))
            await asyncio.wait_for(arrived.wait(), 60)
            assert guest.waiting
            guest.close()
            with pytest.raises(GuestFailed):
                await running
            await asyncio.wait_for(closed.wait(), 60)
            assert not found.world.open_now.by_app

    asyncio.run(main())


def test_key_derivation_is_the_hosts(prepared_cache, tmp_path):
    import hashlib

    result = run(
        """
import hashlib, hmac
def wrong(call):
    try:
        call()
    except (ValueError, TypeError) as error:
        return type(error).__name__
result = [
    hashlib.pbkdf2_hmac("sha256", b"pw", b"salt", 20_000).hex(),
    hashlib.scrypt(b"pw", salt=b"salt", n=1024, r=8, p=1).hex(),
    hashlib.new("sha256", b"x").hexdigest(), hmac.new(b"k", b"m", "sha256").hexdigest(),
    wrong(lambda: hashlib.pbkdf2_hmac("sha256", b"pw", b"salt", 10**9)),
    wrong(lambda: hashlib.pbkdf2_hmac("nonsense", b"pw", b"salt", 1)),
    wrong(lambda: hashlib.scrypt(b"pw", salt=b"s", n=1 << 24, r=8, p=1)),
    wrong(lambda: hashlib.pbkdf2_hmac("sha256", "pw", b"salt", 1)),
]
""",
        prepared_cache,
        tmp_path,
    )
    assert result[0] == hashlib.pbkdf2_hmac("sha256", b"pw", b"salt", 20_000).hex()
    assert result[1] == hashlib.scrypt(b"pw", salt=b"salt", n=1024, r=8, p=1).hex()
    assert result[2] == hashlib.sha256(b"x").hexdigest()
    assert result[4:] == ["ValueError", "ValueError", "ValueError", "TypeError"]
