"""A request that one worker passes on and another answers, over a real switchboard."""

import asyncio
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import uvloop
from tests.open_files import descriptors

from isopod.errors import Overloaded, WorkerGone, WorkerUnavailable
from isopod.gateway import forward, forwarded
from isopod.gateway.forward import FORWARDED, Forwarder, ResponseCut
from isopod.gateway.forwarded import ForwardedRequests
from isopod.gateway.lines import Lines
from isopod.gateway.messages import Frame, frame_of_scope
from isopod.server.switchboard import Switchboard

MIB = 1 << 20
SCOPE = {
    "type": "http",
    "method": "POST",
    "path": "/a",
    "raw_path": b"/a",
    "query_string": b"",
    "http_version": "1.1",
    "scheme": "https",
    "client": ("9.9.9.9", 1),
    "headers": [(b"host", b"shop.localhost")],
}


class Node:
    """Workers 0 and 1: 0 passes requests on to 1, where `app` answers them."""

    def __init__(self, app):
        self.board = Switchboard()
        self.mine = True
        self.ends, self.lines = {}, {}
        for index in (0, 1):
            ours, self.ends[index] = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self.board.add(index, ours, tenant=None)
            self.lines[index] = Lines(self.ends[index].dup(), told=lambda body: None)
        self.requests = ForwardedRequests(app, answers=self.answers)
        self.lines[1].take_with(self.requests.take)
        self.forwarder = Forwarder(self.lines[0])

    def answers(self, _scope) -> bool:
        return self.mine

    async def kill(self) -> None:
        """Worker 1: its sockets close."""
        await self.requests.close()
        self.lines.pop(1).close()

    def start_again(self, app) -> None:
        self.requests = ForwardedRequests(app, answers=self.answers)
        self.lines[1] = Lines(self.ends[1].dup(), told=lambda body: None)
        self.lines[1].take_with(self.requests.take)

    async def close(self) -> None:
        await self.requests.close()
        for lines in self.lines.values():
            lines.close()
        self.board.close()
        for end in self.ends.values():
            end.close()
        for _ in range(5):  # the loop closes streams in its next turns
            await asyncio.sleep(0)


@asynccontextmanager
async def node(app):
    made = Node(app)
    try:
        async with asyncio.timeout(60):
            yield made
    finally:
        await made.close()


@dataclass
class Client:
    messages: list = field(default_factory=list)
    sent: list = field(default_factory=list)
    takes: asyncio.Event | None = None
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    asked: int = 0

    async def receive(self):
        self.asked += 1
        if self.messages:
            return self.messages.pop(0)
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        if self.takes is not None and message["type"] == "http.response.body":
            await self.takes.wait()
        self.sent.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(one["body"] for one in self.sent[1:])


async def ask(made: Node, client: Client, *, tenant: str = "acme", **scope) -> None:
    assert await made.forwarder.forward(
        lambda: 1,
        {**SCOPE, **scope},
        client.receive,
        client.send,
        tenant=tenant,
        request_id="abc",
    )


async def echo(scope, receive, send):
    await send({"type": "http.response.start", "status": 201, "headers": [(b"a", b"b")]})
    while True:
        message = await receive()
        more = message.get("more_body", False)
        await send({"type": "http.response.body", "body": message["body"], "more_body": more})
        if not more:
            return


def body_of(*pieces: bytes) -> list:
    messages = [{"type": "http.request", "body": one, "more_body": True} for one in pieces]
    messages[-1]["more_body"] = False
    return messages


def test_a_request_and_its_answer_pass_through_whatever_their_size():
    seen = []

    async def app(scope, receive, send):
        seen.append(scope)
        await echo(scope, receive, send)

    async def main():
        async with node(app) as made:
            small, large = Client(body_of(b"", b"hi")), Client(body_of(b"x" * 5 * MIB, b"y" * MIB))
            await asyncio.gather(ask(made, small), ask(made, large))
            assert small.sent[0]["status"] == 201
            assert small.sent[0]["headers"] == [(b"a", b"b")]
            assert small.body == b"hi"
            assert large.body == b"x" * 5 * MIB + b"y" * MIB
            assert small.asked == 2
        for scope in seen:
            assert scope[FORWARDED] == "abc"
            assert scope["client"] == ("9.9.9.9", 1)
            assert (scope["scheme"], scope["headers"]) == ("https", SCOPE["headers"])

    uvloop.run(main())


def test_nothing_is_read_from_a_client_before_it_is_asked_for():
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"no", "more_body": False})

    async def main():
        async with node(app) as made:
            client = Client(body_of(b"x" * MIB))
            await ask(made, client)
            assert (client.body, client.asked) == (b"no", 0)

    uvloop.run(main())


def test_an_app_waits_for_a_client_that_takes_nothing():
    sent = 0

    async def app(scope, receive, send):
        nonlocal sent
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for at in range(64):
            await send({"type": "http.response.body", "body": bytes(MIB), "more_body": at < 63})
            sent += 1

    async def main():
        async with node(app) as made:
            client = Client(takes=asyncio.Event())
            asking = asyncio.create_task(ask(made, client))
            before = -1
            while sent != before:  # until it stands still
                before = sent
                for _ in range(2000):
                    await asyncio.sleep(0)
            assert sent <= 2
            client.takes.set()
            await asking
            assert len(client.body) == 64 * MIB

    uvloop.run(main())


def test_a_client_that_goes_away_is_told_to_the_app():
    told = asyncio.Event()

    async def app(scope, receive, send):
        if (await receive())["type"] == "http.disconnect":
            told.set()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def main():
        async with node(app) as made:
            polite, abrupt = Client(), Client()
            polite.gone.set()
            await ask(made, polite)
            assert told.is_set()
            told.clear()
            asking = asyncio.create_task(ask(made, abrupt))
            while not abrupt.asked:
                await asyncio.sleep(0)
            asking.cancel()  # its connection was closed, or this worker ends
            await told.wait()

    uvloop.run(main())


def test_an_app_that_does_not_ask_is_ended_when_its_websocket_is_cut(monkeypatch):
    monkeypatch.setattr(forwarded, "_DESERTED_S", 0.05)
    ended = asyncio.Event()
    began = asyncio.Event()

    async def deaf(scope, receive, send):
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def main() -> None:
        async with node(deaf) as made:
            asking = asyncio.create_task(ask(made, Client(), type="websocket"))
            await began.wait()
            asking.cancel()
            await ended.wait()

    asyncio.run(main())


def test_a_worker_that_ends_is_answered_for_or_cuts_the_response():
    begun, never = asyncio.Event(), asyncio.Event()

    async def app(scope, receive, send):
        if scope["path"] == "/late":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
        begun.set()
        await never.wait()

    async def main():
        async with node(app) as made:
            for path, error in (("/", WorkerGone), ("/late", ResponseCut)):
                client = Client()
                asking = asyncio.create_task(ask(made, client, path=path))
                await begun.wait()
                while path == "/late" and len(client.sent) < 2:
                    await asyncio.sleep(0)
                await made.kill()
                with pytest.raises(error):
                    await asking
                begun.clear()
                made.start_again(app)
            made.requests._app = echo
            client = Client(body_of(b"well again"))
            await ask(made, client)
            assert client.body == b"well again"

    uvloop.run(main())


def test_a_request_waits_for_a_worker_that_is_started_again():
    async def main():
        async with node(echo) as made:
            await ask(made, Client(body_of(b"first")))  # makes a line
            await made.kill()
            client = Client(body_of(b"patient"))
            asking = asyncio.create_task(ask(made, client))
            for _ in range(50):
                await asyncio.sleep(0)
            made.start_again(echo)
            await asking
            assert client.body == b"patient"

    uvloop.run(main())


def test_a_worker_that_is_not_there_or_does_not_begin_is_said_to_be_unavailable(monkeypatch):
    monkeypatch.setattr(forward, "TAKEN_S", 0.05)
    monkeypatch.setattr(forward, "THERE_S", 0.1)

    async def main():
        async with node(echo) as made:
            made.board.remove(1)
            with pytest.raises(WorkerUnavailable):
                await ask(made, Client())
        async with node(echo) as made:
            made.lines.pop(1).close()  # starting, for ever
            with pytest.raises(WorkerUnavailable):
                await ask(made, Client())

    uvloop.run(main())


def test_a_worker_that_was_given_up_begins_with_nothing(monkeypatch):
    """Its client got an error that says so, and may ask again: the app would do it twice."""
    begun, late = [], []

    async def app(scope, receive, send):
        begun.append(scope["path"])
        await echo(scope, receive, send)

    async def main():
        async with node(app) as made:
            monkeypatch.setattr(forward, "TAKEN_S", 0.05)
            made.lines[1].take_with(late.append)  # it has no time just now
            with pytest.raises(WorkerUnavailable):
                await ask(made, Client(body_of(b"x")))
            monkeypatch.undo()
            made.lines[1].take_with(made.requests.take)
            made.lines[0]._to[1].close()
            del made.lines[0]._to[1]  # another line: who takes it is another
            made.requests.take(late.pop())
            client = Client(body_of(b"x"))
            await ask(made, client, path="/b")
            assert client.body == b"x"
            while made.requests._tasks:
                await asyncio.sleep(0)
        assert begun == ["/b"]

    uvloop.run(main())


def test_a_worker_that_begins_as_it_is_given_up_may_have_done_it(monkeypatch):
    """It says so in the moment in which nobody waits for that any more."""
    monkeypatch.setattr(forward, "TAKEN_S", 0.01)

    class JustBefore(socket.socket):
        def shutdown(self, how):
            theirs.send(forward.TAKEN)
            super().shutdown(how)

    pair, theirs = socket.socketpair()
    ours = JustBefore(fileno=pair.detach())

    async def main():
        passing = forward._Passing("http", ours, *await forward.stream(ours))
        try:
            with pytest.raises(WorkerGone):
                await passing.taken()
            with pytest.raises(BrokenPipeError):  # nor may it begin from now on
                theirs.send(forward.TAKEN)
        finally:
            passing.close()
            theirs.close()
            for _ in range(5):  # as above
                await asyncio.sleep(0)

    uvloop.run(main())


def test_a_request_waits_for_a_worker_that_is_about_to_be_started():
    async def main():
        async with node(echo) as made:
            made.board.remove(1)
            client = Client(body_of(b"early"))
            asking = asyncio.create_task(ask(made, client))
            while not made.forwarder._open:
                await asyncio.sleep(0)
            ours, made.ends[2] = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            made.board.add(1, ours, tenant=None)
            made.lines.pop(1).close()
            made.ends[1].close()
            made.ends[1] = made.ends.pop(2)
            made.start_again(echo)
            await asking
            assert client.body == b"early"

    uvloop.run(main())


def test_a_request_comes_back_when_its_app_has_moved_here():
    async def main():
        async with node(echo) as made:
            made.board.remove(1)
            places = iter((1, 1, None))
            client = Client(body_of(b"mine"))
            assert not await made.forwarder.forward(
                lambda: next(places),
                SCOPE,
                client.receive,
                client.send,
                tenant="acme",
                request_id="abc",
            )
            assert (client.asked, client.sent) == (0, [])
            assert not made.forwarder._open

    uvloop.run(main())


def test_a_worker_that_is_not_the_one_any_more_begins_with_nothing():
    async def main():
        async with node(echo) as made:
            made.mine = False
            places = iter((1, 1, None))
            client = Client(body_of(b"mine"))
            assert not await made.forwarder.forward(
                lambda: next(places),
                SCOPE,
                client.receive,
                client.send,
                tenant="acme",
                request_id="abc",
            )
            assert (client.asked, client.sent) == (0, [])

    uvloop.run(main())


def test_no_more_than_a_bound_wait_for_one_worker_and_no_tenant_has_all_of_it(monkeypatch):
    monkeypatch.setattr(forward, "_MAX_TO_ONE", 9)
    never = asyncio.Event()

    async def app(scope, receive, send):
        await never.wait()

    async def main():
        async with node(app) as made:
            waiting = [asyncio.create_task(ask(made, Client())) for _ in range(8)]
            while made.forwarder._open[1].total() < 8:
                await asyncio.sleep(0)
            with pytest.raises(Overloaded, match="8 requests of tenant 'acme'"):
                await ask(made, Client())
            waiting.append(asyncio.create_task(ask(made, Client(), tenant="zoo")))
            while made.forwarder._open[1].total() < 9:
                await asyncio.sleep(0)
            with pytest.raises(Overloaded):
                await ask(made, Client(), tenant="zoo")
            for one in waiting:
                one.cancel()
            await asyncio.wait(waiting)
            assert not made.forwarder._open

    uvloop.run(main())


@pytest.mark.parametrize(
    "said",
    [
        Frame({"type": "isopod.end"}).pack(),
        Frame({"type": "http.response.body", "more_body": False}).pack(),
        Frame({"type": "http.response.start", "status": 200, "headers": [["a", "\r\n"]]}).pack(),
        Frame({"type": "http.request", "more_body": False}, b"forged").pack(),
        Frame({"type": "isopod.want"}).pack() * 1000 + b"\xff" * 8,
        b"\xff" * 100,
    ],
)
def test_a_worker_that_answers_nonsense_is_answered_for(said):
    async def main():
        async with node(echo) as made:

            def nonsense(request: socket.socket) -> None:
                request.sendall(Frame({"type": "isopod.taken"}).pack() + said)
                request.close()

            made.lines[1].take_with(nonsense)
            client = Client(body_of(b"x"))
            with pytest.raises(WorkerGone):
                await ask(made, client)
            assert client.sent == []
            assert client.asked <= 1

    uvloop.run(main())


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\xff" * 100,
        Frame({"type": "lifespan"}).pack(),
        Frame({**frame_of_scope(SCOPE, request_id="a").head, "headers": [["a\n", ""]]}).pack(),
    ],
)
def test_nonsense_that_is_handed_over_reaches_no_app(said):
    called = []

    async def app(scope, receive, send):
        called.append(scope)

    async def main():
        async with node(app) as made:
            ours, theirs = socket.socketpair()
            ours.sendall(said)
            ours.shutdown(socket.SHUT_WR)
            ours.setblocking(False)
            made.lines[0].hand_over(1, theirs)
            loop = asyncio.get_running_loop()
            with ours:
                while await loop.sock_recv(ours, 1024):
                    pass
            assert not called

    uvloop.run(main())


def test_a_worker_hands_nothing_back_on_the_line_it_was_given():
    async def main():
        async with node(echo) as made:
            await ask(made, Client(body_of(b"first")))
            (line,) = made.lines[1]._from.values()
            taken = []
            made.lines[0].take_with(taken.append)
            ours, theirs = socket.socketpair()
            line.hand_over(theirs)
            ours.setblocking(False)
            with ours:
                assert await asyncio.get_running_loop().sock_recv(ours, 1) == b""
            assert not taken

    uvloop.run(main())


def test_files_are_closed_after_many_requests():
    async def main():
        async with node(echo) as made:
            await ask(made, Client(body_of(b"x")))
            before = descriptors()
            for _ in range(20):
                await asyncio.gather(*(ask(made, Client(body_of(b"x"))) for _ in range(10)))
            for _ in range(10):
                await asyncio.sleep(0)
            assert descriptors() <= before

    uvloop.run(main())
