import asyncio

import pytest

from isopod.errors import BodyTooLarge, ClientDisconnected, ClientTooSlow
from isopod.gateway import body as body_module
from isopod.gateway.body import RequestBody

GONE = {"type": "http.disconnect"}


def piece(data: bytes, *, more: bool = True) -> dict:
    return {"type": "http.request", "body": data, "more_body": more}


class Client:
    """An ASGI `receive`; messages can be added while it waits. Counts overlapping calls."""

    def __init__(self, *messages: dict) -> None:
        self.messages: asyncio.Queue[dict] = asyncio.Queue()
        for message in messages:
            self.messages.put_nowait(message)
        self.calls = self.most = self.taken = 0

    async def receive(self) -> dict:
        self.calls += 1
        self.most = max(self.most, self.calls)
        try:
            message = await self.messages.get()
            self.taken += 1
            return message
        finally:
            self.calls -= 1


def body_of(client: Client, *, limit: int = 1000, has_body: bool = True) -> RequestBody:
    return RequestBody(client.receive, has_body=has_body, limit_bytes=limit)


async def read_all(body: RequestBody, size: int) -> list[bytes]:
    pieces = []
    while data := await body.read(size):
        pieces.append(data)
    return pieces


def test_a_body_is_read_as_asked_for():
    async def main() -> None:
        body = body_of(Client(piece(b"abcde"), piece(b""), piece(b"fg", more=False)))
        assert await read_all(body, 2) == [b"ab", b"cd", b"e", b"fg"]
        assert await body.read(2) == b""

    asyncio.run(main())


def test_nothing_is_received_before_the_guest_asks():
    async def main() -> None:
        client = Client(piece(b"x", more=False))
        body = body_of(client)
        await asyncio.sleep(0)
        assert client.taken == 0
        assert await body.read(10) == b"x"
        assert await body_of(client, has_body=False).read(10) == b""

    asyncio.run(main())


def test_a_body_past_its_limit_is_refused_however_it_comes():
    async def main() -> None:
        body = body_of(Client(*[piece(b"x" * 400)] * 3))
        with pytest.raises(BodyTooLarge):
            await read_all(body, 1000)
        watched = body_of(Client(*[piece(b"x" * 400)] * 3))
        with pytest.raises(BodyTooLarge):
            await watched.disconnected()

    asyncio.run(main())


def test_a_client_that_leaves_in_the_middle_is_an_error_after_what_it_sent():
    async def main() -> None:
        body = body_of(Client(piece(b"half"), GONE))
        assert await body.read(10) == b"half"
        with pytest.raises(ClientDisconnected):
            await body.read(10)

    asyncio.run(main())


@pytest.mark.parametrize("watched", [False, True])
def test_a_silent_client_is_given_up(monkeypatch, watched):
    monkeypatch.setattr(body_module, "CLIENT_IDLE_S", 0.02)

    async def main() -> None:
        body = body_of(Client())
        watch = asyncio.create_task(body.disconnected()) if watched else None
        await asyncio.sleep(0)
        async with asyncio.timeout(60):
            with pytest.raises(ClientTooSlow):
                await body.read(10)
        if watch is not None:
            watch.cancel()

    asyncio.run(main())


def test_the_watch_and_the_reader_take_turns():
    async def main() -> None:
        client = Client()
        body = body_of(client)
        watch = asyncio.create_task(body.disconnected())
        reader = asyncio.create_task(read_all(body, 100))
        await asyncio.sleep(0)
        for message in (piece(b"a"), piece(b"b"), piece(b"c", more=False)):
            client.messages.put_nowait(message)
        assert b"".join(await reader) == b"abc"
        assert not watch.done()
        client.messages.put_nowait(GONE)
        await watch
        assert client.most == 1

    asyncio.run(main())


def test_the_watch_buffers_a_bounded_part_and_goes_on_when_that_is_read(monkeypatch):
    monkeypatch.setattr(body_module, "_WATCH_BUFFER", 10)

    async def main() -> None:
        client = Client(*[piece(b"x" * 6)] * 4, GONE)
        body = body_of(client)
        watch = asyncio.create_task(body.disconnected())
        while client.taken < 2:
            await asyncio.sleep(0)
        for _ in range(5):
            await asyncio.sleep(0)
        assert client.taken == 2
        assert not watch.done()
        assert await body.read(100) == b"x" * 12
        while client.taken < 4:
            await asyncio.sleep(0)
        assert await body.read(100) == b"x" * 12
        await asyncio.wait_for(watch, 60)

    asyncio.run(main())
