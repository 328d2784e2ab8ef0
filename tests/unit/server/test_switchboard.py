"""Who may hand requests to whom."""

import asyncio
import json
import socket

from isopod.model.tenant import TenantName
from isopod.server.switchboard import Switchboard, goes_to

ACME, ZOO = TenantName("acme"), TenantName("zoo")
WORKERS = {0: None, 1: None, 2: ACME, 3: ZOO}


def test_shared_workers_reach_each_other_by_number_and_a_tenants_own_by_name():
    assert goes_to(0, 1, WORKERS) == 1
    assert goes_to(1, "acme", WORKERS) == 2
    assert goes_to(0, "zoo", WORKERS) == 3


def test_a_tenants_own_worker_reaches_nobody():
    for to in (0, 1, 2, 3, "acme", "zoo"):
        assert goes_to(2, to, WORKERS) is None


def test_nobody_reaches_itself_a_stranger_or_a_tenants_own_worker_by_its_number():
    for to in (0, 2, 3, 9, -1, True, 1.0, "nobody", "1", "", None, [1], {"to": 1}):
        assert goes_to(0, to, WORKERS) is None
    assert goes_to(9, 1, WORKERS) is None


def test_a_line_that_may_not_be_is_closed_and_one_that_waits_is_passed_on_later():
    async def main():
        board = Switchboard()
        ends = {}
        for index, tenant in ((0, None), (1, None), (2, ACME)):
            ours, ends[index] = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            ends[index].settimeout(5)
            board.add(index, ours, tenant=tenant)

        def ask(asks: int, packet: bytes) -> socket.socket:
            kept, given = socket.socketpair()
            kept.setblocking(False)
            socket.send_fds(ends[asks], [packet], [given.fileno()])
            given.close()
            return kept

        loop = asyncio.get_running_loop()
        for asks, packet in ((2, b'{"to": 0}'), (0, b'{"to": 7}'), (0, b"no JSON"), (0, b"[]")):
            with ask(asks, packet) as refused:
                async with asyncio.timeout(60):
                    assert await loop.sock_recv(refused, 1) == b""
        with ask(0, b'{"to": 1}') as kept:
            said = []
            while not (said and "from" in said[-1]):
                packet, handed, _, _ = await asyncio.to_thread(socket.recv_fds, ends[1], 1024, 1)
                said.append(json.loads(packet))
            # As each came, it was told how many there are; and who asks, at last.
            assert said == [{"processes": 2}, {"processes": 3}, {"from": 0}]
            with socket.socket(fileno=handed[0]) as given:
                given.sendall(b"hello")
                assert await loop.sock_recv(kept, 9) == b"hello"
        board.close()
        for end in ends.values():
            end.close()

    asyncio.run(main())
