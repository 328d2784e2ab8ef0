"""asyncio's sockets from real guests: many at once in one, with TLS, and in a WSGI app."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest
from tests.unit.host.certificates import Authority
from tests.unit.host.world import allow, guests, here, made_broker, server

from isopod.runtimes.guest import GuestRequest

APP = Path(__file__).parents[2] / "guests" / "asgi"
AT_ONCE = 20


@pytest.mark.parametrize("with_tls", [False, True])
def test_one_guest_waits_for_many_peers_at_once(prepared_cache, tmp_path, with_tls):
    authority = Authority(tmp_path)
    tls = authority.server(authority.issue("localhost")) if with_tls else None

    async def main():
        arrived, go = [], asyncio.Event()

        async def serve(reader, writer):
            said = await reader.read(100)
            arrived.append(said)
            if len(arrived) == AT_ONCE:
                go.set()
            await go.wait()  # nobody is answered before all are there
            writer.write(said + b"!")
            await writer.drain()
            await reader.read(1)

        async with contextlib.AsyncExitStack() as stack:
            port = await stack.enter_async_context(server(serve, ssl=tls))
            allowed = allow(f"localhost:{port}")
            broker = made_broker({"app": ("default", allowed)}, here(port), lambda _: ["127.0.0.1"])
            stack.callback(broker.close)
            found = await stack.enter_async_context(guests(prepared_cache, tmp_path, broker))
            guest = found.runtime.new_guest(
                scheduler=found.scheduler, app_tree=APP, site_tree=tmp_path / "site",
                tmp=tmp_path / "tmp", entrypoint="app:app", env={}, memory_mib=128, disk_mib=64,
                output=lambda _stream, data: found.output.append(data), share=("default", "app"),
                world=found.world, app="app",
            )  # fmt: skip
            found.made.append(guest)
            await guest.start()
            what = f"{port}\n{authority.pem if with_tls else ''}".encode()

            async def ask(number: int) -> bytes:
                sent = [what]

                async def read(_size: int) -> bytes:
                    return sent.pop() if sent else b""

                exchange = guest.exchange()
                request = GuestRequest(
                    "POST", "/dial", f"n{number}", "HTTP/1.1", "http", "x", 80, "1.1.1.1", (), True
                )
                response = await exchange.send(request, read)
                await exchange.finish()
                return response.body

            try:
                async with asyncio.timeout(60):
                    answers = await asyncio.gather(*(ask(number) for number in range(AT_ONCE)))
            finally:
                print(b"".join(found.output).decode())
            assert answers == [b"n%d!" % number for number in range(AT_ONCE)]
            assert guest.sent_bytes > AT_ONCE
            guest.close()
            assert not found.world.open_now.by_app

    asyncio.run(main())


def test_a_wsgi_app_may_run_a_loop_of_its_own(prepared_cache, tmp_path):
    async def serve(reader, writer):
        writer.write(await reader.read(100) + b"!")

    async def main():
        async with contextlib.AsyncExitStack() as stack:
            port = await stack.enter_async_context(server(serve))
            broker = made_broker({"app": ("default", allow(f"127.0.0.1:{port}"))}, here(port))
            stack.callback(broker.close)
            found = await stack.enter_async_context(guests(prepared_cache, tmp_path, broker))
            guest = await found.start()
            code = f"""
import asyncio

async def one(number):
    await asyncio.sleep(0.01)
    reader, writer = await asyncio.open_connection("127.0.0.1", {port})
    writer.write(b"%d" % number)
    said = await reader.read(10)
    writer.close()
    return said.decode()

async def all_of_them():
    return await asyncio.gather(*(one(number) for number in range(5)))

result = asyncio.run(all_of_them())
"""
            assert await found.run(guest, code) == [f"{number}!" for number in range(5)]

    asyncio.run(main())
