"""Between a worker and the broker: real pairs of sockets, and brokers that die."""

import asyncio
import contextlib
import json
import socket

import pytest
from tests.open_files import descriptors
from tests.unit.host.world import allow, echo, here, made_broker, server

from isopod.host.channel import BrokerClient, BrokerServer
from isopod.host.outside import OutsideError


class Pair:
    """As the supervisor holds it: each end is handed on as a copy."""

    def __init__(self) -> None:
        self.ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def worker(self) -> socket.socket:
        return self.ends[0].dup()

    def broker(self) -> socket.socket:
        return self.ends[1].dup()

    def close(self) -> None:
        for end in self.ends:
            end.close()


async def down_to(count: int) -> None:
    """The server's ends of what was closed go in the next turns of the loop."""
    async with asyncio.timeout(60):
        while descriptors() > count:
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def channel():
    """(pair, broker, port of a server that echoes)"""
    async with server(echo) as port:
        broker = made_broker({"app": ("default", allow(f"127.0.0.1:{port}"))}, here(port))
        pair = Pair()
        try:
            yield pair, broker, port
        finally:
            pair.close()
            broker.close()


def test_a_connection_is_handed_over(tmp_path):
    async def main():
        async with channel() as (pair, broker, port):
            client, serving = BrokerClient(pair.worker()), BrokerServer(pair.broker(), broker)
            made = await client.connect("app", ["127.0.0.1"], "", port)
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(made, b"hello")
            assert await loop.sock_recv(made, 10) == b"hello"
            made.close()
            assert await client.resolve("app", "127.0.0.1", port) == ["127.0.0.1"]
            with pytest.raises(OutsideError) as refused:
                await client.connect("app", ["127.0.0.1"], "", 1)
            assert refused.value.name == "EACCES"
            assert "allow = " in refused.value.text
            with pytest.raises(OutsideError):
                await client.connect("other", ["127.0.0.1"], "", port)
            client.close()
            serving.close()

    asyncio.run(main())


def test_what_a_broker_that_died_did_not_answer_the_next_one_does():
    async def main():
        async with channel() as (pair, broker, port):
            client = BrokerClient(pair.worker())
            asked = [
                asyncio.create_task(client.connect("app", ["127.0.0.1"], "", port))
                for _ in range(5)
            ]
            dead = pair.broker()
            dead.setblocking(True)
            await asyncio.sleep(0)
            assert dead.recv(65536)  # it took one, and died
            dead.close()
            serving = BrokerServer(pair.broker(), broker)
            for made in await asyncio.wait_for(asyncio.gather(*asked), 60):
                made.close()
            client.close()
            serving.close()

    asyncio.run(main())


def test_a_new_worker_is_not_given_the_answers_of_its_predecessor():
    async def main():
        async with channel() as (pair, broker, port):
            client = BrokerClient(pair.worker())
            asked = asyncio.create_task(client.connect("app", ["127.0.0.1"], "", port))
            await asyncio.sleep(0)
            asked.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asked
            client.close()
            serving = BrokerServer(pair.broker(), broker)
            before = descriptors()
            follower = BrokerClient(pair.worker())
            made = await follower.connect("app", ["127.0.0.1"], "", port)
            made.close()
            follower.close()
            await down_to(before)
            serving.close()

    asyncio.run(main())


def test_a_worker_that_was_taken_over_sends_nonsense_and_others_are_served():
    nonsense = [
        b"\xff", b"[]", b"{}", b'{"id": "x"}', b'{"id": 1}', b'{"id": 1, "app": 1, "port": "x"}',
        b'{"id": 1, "app": "app", "port": 1, "connect": 7, "address": ""}',
        b'{"id": 1, "app": "app", "port": 1, "resolve": {}}', b"[" * 60_000,
        json.dumps({"id": 1, "app": "a" * 60_000, "port": 1, "resolve": "x"}).encode(),
    ]  # fmt: skip

    async def main():
        async with channel() as (pair, broker, port):
            bad, serving_bad = pair.worker(), BrokerServer(pair.broker(), broker)
            other = Pair()
            client, serving = BrokerClient(other.worker()), BrokerServer(other.broker(), broker)
            before = descriptors()
            for data in nonsense:
                socket.send_fds(bad, [data], [bad.fileno()])
                (await client.connect("app", ["127.0.0.1"], "", port)).close()
            await down_to(before)
            for one in (client, serving, serving_bad, bad, other):
                one.close()

    asyncio.run(main())


def test_more_answers_than_the_pair_holds_arrive_in_the_end():
    async def main():
        async with channel() as (pair, broker, port):
            client, serving = BrokerClient(pair.worker()), BrokerServer(pair.broker(), broker)
            asked = [client.resolve("app", "127.0.0.1", port) for _ in range(2000)]
            assert set(map(tuple, await asyncio.gather(*asked))) == {("127.0.0.1",)}
            client.close()
            serving.close()

    asyncio.run(main())


def test_a_worker_that_asks_and_does_not_read_fills_no_memory():
    async def main():
        async with channel() as (pair, broker, port):
            serving = BrokerServer(pair.broker(), broker)
            loop, asking = asyncio.get_running_loop(), pair.worker()
            asking.setblocking(False)
            for number in range(6000):
                body = {"id": number, "app": "app", "resolve": "127.0.0.1", "port": port}
                await loop.sock_sendall(asking, json.dumps(body).encode())
            for _ in range(100):
                await asyncio.sleep(0)
            # What was being answered when it was full is answered too.
            assert 4096 <= len(serving._unsent) <= 4096 + 64
            asking.close()
            serving.close()

    asyncio.run(main())
