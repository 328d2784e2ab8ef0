"""The process that connects goes on while workers come and go."""

import asyncio
import socket
from contextlib import contextmanager

import pytest
from tests.unit.host.world import allow, echo, here, made_broker, server

from isopod.host.channel import BrokerClient, BrokerServer
from isopod.host.outside import OutsideError
from isopod.server.egress_channels import GivenChannels, TakenChannels


def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


class Node:
    """A supervisor with its pair, and the processes that connect for its workers."""

    def __init__(self, broker) -> None:
        self.broker = broker
        ours, self.end = pair()
        self.given = GivenChannels(ours)
        self.served: list[str] = []

    @contextmanager
    def process(self):
        def serve(channel: socket.socket, tenant: str) -> BrokerServer:
            self.served.append(tenant)
            return BrokerServer(channel, self.broker)

        channels = TakenChannels(self.end.dup(), serve)
        try:
            yield channels
        finally:
            channels.close()

    def close(self) -> None:
        self.given.close()
        self.end.close()
        self.broker.close()


def test_a_worker_that_comes_later_is_served_and_nobody_elses_relay_ends():
    async def main():
        async with server(echo) as port, asyncio.timeout(60):
            node = Node(made_broker({"a": ("acme", allow(f"127.0.0.1:{port}"))}, here(port)))
            workers = [pair() for _ in range(2)]
            node.given.add(workers[0][1], tenant="")
            with node.process():
                first = BrokerClient(workers[0][0].dup())
                relay = await first.connect("a", ["127.0.0.1"], "", port, datagrams=True)
                number = node.given.add(workers[1][1], tenant="acme")
                second = BrokerClient(workers[1][0].dup())
                (await second.connect("a", ["127.0.0.1"], "", port)).close()
                assert relay.send(b"still there") == 11
                assert node.served == ["", "acme"]
                # One that goes takes its end along; the number is nobody's again.
                node.given.remove(number)
                second.close()
                for end in workers[1]:
                    end.close()
                (await first.connect("a", ["127.0.0.1"], "", port)).close()
                relay.close()
            # The next process has those that are left, each once.
            asked = asyncio.create_task(first.connect("a", ["127.0.0.1"], "", port))
            node.served.clear()
            with node.process():
                (await asked).close()
                assert node.served == [""]
                with pytest.raises(OutsideError):
                    await first.connect("nobody", ["127.0.0.1"], "", port)
            first.close()
            for end in workers[0]:
                end.close()
            node.close()
            for _ in range(5):  # the server's ends go in the next turns of the loop
                await asyncio.sleep(0)

    asyncio.run(main())
