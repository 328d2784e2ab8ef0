"""Who may open a WebSocket, when an instance may go, and what a client is told."""

import asyncio
import struct
from dataclasses import replace
from types import SimpleNamespace

import pytest
from tests.unit.gateway.conftest import ScriptedGuest, plain

from isopod.errors import GuestFailed, NodeBusy, NodeDraining, Overloaded, QuotaExceeded, WorkerGone
from isopod.gateway.admission import Admission
from isopod.gateway.app_pool import AppPool
from isopod.gateway.turns import Turns
from isopod.gateway.websocket import WebSocket, close_code
from isopod.gateway.websockets import may_hibernate
from isopod.model.tenant import Tenant, TenantName
from isopod.runtimes.guest import GuestRequest
from isopod.runtimes.python.exchanges import Exchanges
from isopod.runtimes.python.socket_exchange import PythonSocket


def test_an_instance_goes_only_when_all_that_it_has_rests():
    assert may_hibernate([5.0, 9.0], 2, keep_s=5.0)
    assert not may_hibernate([5.0, 4.9], 2, keep_s=5.0)
    assert not may_hibernate([5.0, None], 2, keep_s=5.0)
    assert not may_hibernate([5.0], 2, keep_s=5.0)  # a request, too


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (GuestFailed("x"), 1011),
        (NodeDraining("x"), 1012),
        (WorkerGone("x"), 1012),
        (Overloaded("x"), 1013),
        (NodeBusy("x"), 1013),
        (QuotaExceeded("x"), 1013),
    ],
)
def test_clients_are_told_whether_to_come_again(error, code: int):
    assert close_code(error) == code


# -- one WebSocket, and what becomes of its instance --------------------------------------------

REQUEST = GuestRequest("GET", "/", "", "HTTP/1.1", "ws", "a", 80, "127.0.0.1")


class SocketGuest(ScriptedGuest):
    """What its app says is put into the host's own exchanges."""

    def __init__(self) -> None:
        super().__init__(lambda *_: None, plain, None)
        self.capacity = 50
        self.told: list[bytes] = []
        self.among = Exchanges(self)  # type: ignore[arg-type]

    def socket(self) -> PythonSocket:
        return PythonSocket(self.among.next_number(), self.among)

    def answer(self, data: bytes) -> None:
        self.told.append(data)

    def connections(self) -> None:
        return None

    def says(self, *items: tuple[bytes, bytes]) -> None:
        said = b"".join(struct.pack("<cII", kind, 1, len(data)) + data for kind, data in items)
        self.among.on_wait(struct.pack("<cIH", b"W", 0xFFFFFFFF, 0) + said)

    def close(self) -> None:
        super().close()
        self.among.fail(GuestFailed("the guest was ended"))


class Scene:
    def __init__(self, stage, quotas, route) -> None:
        spec = replace(route().spec, hibernate=True)
        self.live = replace(route(), spec=spec)
        self.elsewhere = False
        self.guests: list[SocketGuest] = []
        self.inbox: asyncio.Queue = asyncio.Queue()
        self.sent: list = []
        self.usage: list = []
        stage.make = self.make
        self.pool = AppPool(self.live, stage.slot, Turns(1))
        self.one = WebSocket(
            REQUEST,
            self.inbox.get,
            self.send,
            route=self.live,
            find=lambda: self.live,
            elsewhere=lambda _route: self.elsewhere,
            fleet=SimpleNamespace(pool=lambda _route: self.pool),
            admission=Admission(quotas=quotas, lag_s=lambda: 0.0, tell=lambda *_: None),
            meter=self.usage.append,
            client_host_ns=lambda: self.client_host_ns,
        )
        self.client_host_ns = 1000
        self.client_says(type="websocket.connect")
        self.running = asyncio.create_task(self.one.run())

    async def make(self, _route, _output):
        self.guests.append(SocketGuest())
        return self.guests[-1], lambda: None

    async def send(self, message) -> None:
        self.sent.append(message)

    def client_says(self, **message) -> None:
        self.inbox.put_nowait(message)

    async def asked(self, count: int = 1) -> SocketGuest:
        """The instance of that number, once it has been told of the WebSocket."""
        await self.until(lambda: len(self.guests) == count and len(self.guests[-1].among))
        self.guests[-1].says()
        return self.guests[-1]

    async def sleeps(self) -> None:
        """With the attachment "x", after an instance that had to go."""
        guest = await self.asked()
        guest.says((b"A", b""), (b"P", b"x"), (b"B", b""))
        await self.until(lambda: self.one.rests_s is not None)
        self.one.slot.stop(NodeBusy("no memory"))
        await self.until(lambda: self.one.slot is None or self.running.done())

    async def until(self, so) -> None:
        async with asyncio.timeout(60):
            while not so():
                await asyncio.sleep(0)


@pytest.fixture
def play(stage, quotas, route):
    def run(scene) -> None:
        async def main() -> None:
            made = Scene(stage, quotas, route)
            try:
                await scene(made)
            finally:
                made.running.cancel()
                await asyncio.gather(made.running, return_exceptions=True)
                await made.pool.close()

        asyncio.run(main())

    return run


def test_one_that_only_waits_sleeps_when_its_instance_has_to_go(play):
    async def scene(made: Scene) -> None:
        await made.sleeps()
        assert not made.running.done()
        made.client_says(type="websocket.receive", text="hi", bytes=None)
        guest = await made.asked(2)
        assert guest.told[0].endswith(b"\n:" + b"x".hex().encode())

    play(scene)


def test_our_own_work_for_it_is_recorded_once(play):
    async def scene(made: Scene) -> None:
        await made.sleeps()
        made.client_host_ns += 500_000
        made.client_says(type="websocket.receive", text="hi", bytes=None)
        guest = await made.asked(2)
        made.one.cut_record()
        guest.says((b"A", b""))
        made.one.cut_record()
        first, second, third = [one for one in made.usage if one.kind == "request"]
        assert first.host_ns > 1000
        assert second.host_ns > 500_000
        assert 0 <= third.host_ns < 500_000

    play(scene)


def test_what_sleeps_is_nothing_to_the_next_owner_of_its_apps_name(play):
    async def scene(made: Scene) -> None:
        await made.sleeps()
        made.live = replace(made.live, tenant=TenantName("other"))
        made.client_says(type="websocket.receive", text="hi", bytes=None)
        with pytest.raises(GuestFailed, match="gone"):
            await made.running
        assert len(made.guests) == 1

    play(scene)


def test_what_sleeps_starts_nothing_that_another_worker_answers_for(play):
    async def scene(made: Scene) -> None:
        await made.sleeps()
        made.elsewhere = True
        made.client_says(type="websocket.receive", text="hi", bytes=None)
        with pytest.raises(NodeDraining):
            await made.running
        assert len(made.guests) == 1

    play(scene)


def test_one_that_is_stopped_while_its_app_takes_it_does_not_go_on(play):
    async def scene(made: Scene) -> None:
        guest = await made.asked()
        made.one.stop(NodeDraining("another version is live"))
        guest.says((b"A", b""))
        with pytest.raises(NodeDraining):
            await made.running
        assert not made.sent

    play(scene)


def test_a_tenant_that_is_suspended_keeps_no_websocket_open(play, quotas):
    async def scene(made: Scene) -> None:
        guest = await made.asked()
        guest.says((b"A", b""), (b"B", b""))
        await made.until(lambda: made.one.rests_s is not None)
        tenant = Tenant(made.live.tenant, suspended=True)
        quotas.follow({tenant.name: tenant})
        made.one.cut_record()
        await made.until(lambda: made.sent[-1]["type"] == "websocket.close")

    play(scene)
