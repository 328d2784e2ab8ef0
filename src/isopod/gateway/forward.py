"""A request that another worker answers: this worker passes its messages on, both ways.

The other worker runs it through its own gateway, which admits, meters and bounds it; here it is a
client's connection and no more. Nothing is read from the client before the other worker asks for
it, and nothing is taken from that worker before the client has taken what came before: each side
is as fast as the slower one.

A worker that ends in the middle ends the response (the client sees it cut), or is answered for
with an error when nothing was sent. A request is handed over again only while no worker has begun
with it; and who gives up waiting for a worker to begin takes from it the means to: it says so over
a socket by which nobody listens any more, is told, and lets the request be.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from isopod.errors import Overloaded, WorkerGone, WorkerUnavailable
from isopod.gateway.lines import Lines, Peer
from isopod.gateway.messages import (
    Frame,
    FrameInvalid,
    FrameReader,
    Message,
    frame_of_scope,
    frames_of,
    sent,
)
from isopod.gateway.room import may_take

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
# In a scope: the id of a request that another worker handed over. It is not handed over again.
FORWARDED = "isopod.forwarded"
# What the other worker says beside its application's messages.
_TAKEN, _WANT, _END = "isopod.taken", "isopod.want", "isopod.end"
TAKEN, WANT, END = (Frame({"type": kind}).pack() for kind in (_TAKEN, _WANT, _END))
# For the other worker to begin: one that is started anew needs some seconds.
TAKEN_S = 20.0
# For it to be there: a tenant's own is started when control has said so, and one may just have
# ended. Asked again after longer and longer, as all that wait ask at once.
THERE_S = 10.0
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.02, 0.5
_WRITE_BUFFER = 64 << 10
# At once, to one worker: it may take as many requests of all others together. Of one tenant no more
# than leaves room for the others.
_MAX_TO_ONE = 2048


class ResponseCut(Exception):
    """Raised into the server: it closes the connection (HTTP/2: resets the stream)."""


class Forwarder:
    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._open: defaultdict[Peer, Counter[str]] = defaultdict(Counter)

    async def forward(
        self,
        where: Callable[[], Peer | None],
        scope: Message,
        receive: Receive,
        send: Send,
        *,
        tenant: str,
        request_id: str,
    ) -> bool:
        """Whether another worker answered; returns when its response is complete. `where` says
        which one has to, None: this one, and is asked again while that is not there. Raises
        Overloaded, WorkerUnavailable (nothing has begun), WorkerGone (nothing was sent, but
        perhaps done) and ResponseCut."""
        if (to := where()) is None:
            return False
        if FORWARDED in scope:  # never on and on
            raise WorkerUnavailable("this app is answered by another worker by now")
        first = frame_of_scope(scope, request_id=request_id).pack()
        with self._one_more(to, tenant):
            end, wait_s = time.monotonic() + THERE_S, _FIRST_WAIT_S
            while to is not None:
                if await self._passed_on(to, scope["type"], first, receive, send):
                    return True
                if time.monotonic() >= end:
                    raise WorkerUnavailable(
                        "the worker that answers this app is not there just now"
                    )
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
                to = where()
        return False

    @contextlib.contextmanager
    def _one_more(self, to: Peer, tenant: str) -> Iterator[None]:
        of_tenants = self._open[to]
        mine, in_all = of_tenants[tenant], of_tenants.total()
        # To a tenant's own worker nobody else goes.
        if in_all >= _MAX_TO_ONE or not (to == tenant or may_take(mine, in_all, _MAX_TO_ONE)):
            raise Overloaded(
                f"{mine:,} requests of tenant {tenant!r}, {in_all:,} in all, wait for another "
                "worker already"
            )
        of_tenants[tenant] += 1
        try:
            yield
        finally:
            of_tenants[tenant] -= 1
            if not of_tenants[tenant]:
                del of_tenants[tenant]
            if not of_tenants:
                self._open.pop(to, None)

    async def _passed_on(
        self, to: Peer, protocol: str, first: bytes, receive: Receive, send: Send
    ) -> bool:
        """False: the worker has not begun with it."""
        passing = await _Passing.begin(self._lines, to, protocol, first)
        try:
            if not await passing.taken():
                return False
            await passing.run(receive, send)
            return True
        finally:
            passing.close()


class _Passing:
    """One request on its way."""

    def __init__(
        self,
        protocol: str,
        link: socket.socket,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._protocol = protocol
        self._link = link
        self._frames = FrameReader(reader)
        self._writer = writer
        self._asking: asyncio.Task[None] | None = None
        self._started = self._ended = False

    @classmethod
    async def begin(cls, lines: Lines, to: Peer, protocol: str, first: bytes) -> _Passing:
        ours, theirs = socket.socketpair()
        try:
            lines.hand_over(to, theirs)
            passing = cls(protocol, ours, *await stream(ours))
        except BaseException:
            ours.close()
            raise
        passing._writer.write(first)
        return passing

    def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
        # Not `close`: what the other worker has not read by now it does not need.
        self._writer.transport.abort()

    async def taken(self) -> bool:
        """Whether the other worker has begun. False: it never will. Raises WorkerUnavailable: nor
        will it; WorkerGone: it may have."""
        try:
            async with asyncio.timeout(TAKEN_S):
                return (await self._frames.next()).type == _TAKEN
        except EOFError:
            return False
        except (TimeoutError, FrameInvalid):
            pass
        # From here on it cannot say that it begins, and so does not. What it said before this is
        # still to be read.
        with contextlib.suppress(OSError):
            self._link.shutdown(socket.SHUT_RD)
        try:
            await self._frames.next()
        except EOFError:
            raise WorkerUnavailable("the worker that answers this app does not begin") from None
        except FrameInvalid:
            pass
        raise WorkerGone("the worker that answers this app began with the request too late")

    async def run(self, receive: Receive, send: Send) -> None:
        while True:
            try:
                frame = await self._frames.next()
                if frame.type == _END:
                    self._done()
                    return
                if frame.type == _WANT:
                    self._ask(receive)
                    continue
                message = self._checked(sent(frame, self._protocol))
            except (EOFError, FrameInvalid) as bad:
                if self._ended:  # the client has all of it
                    return
                raise self._broken(str(bad)) from bad
            await send(message)

    def _ask(self, receive: Receive) -> None:
        if self._asking is None or self._asking.done():  # else it asks twice for one
            self._asking = asyncio.get_running_loop().create_task(self._bring(receive))

    async def _bring(self, receive: Receive) -> None:
        """The next message of the client's. A side that ended meanwhile is seen by `run`."""
        try:
            message = await receive()
            for frame in frames_of(message):
                self._writer.write(frame.pack())
                await self._writer.drain()
        except (OSError, FrameInvalid):
            self._writer.transport.abort()

    def _checked(self, message: Message) -> Message:
        """A response begins once and ends once, whatever the other worker says."""
        kind = message["type"]
        if kind == "http.response.start":
            if self._started:
                raise FrameInvalid("a response began twice")
            self._started = True
        elif kind == "http.response.body":
            if not self._started or self._ended:
                raise FrameInvalid("a body without a response")
            self._ended = not message["more_body"]
        else:
            self._started = True
        return message

    def _done(self) -> None:
        if self._protocol == "http" and not self._ended:
            raise self._broken("it ended without an answer")

    def _broken(self, why: str) -> Exception:
        if self._started:
            return ResponseCut(why)
        return WorkerGone("the worker that answered this request ended")


async def stream(link: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Writers wait for the other side once so much lies here; what is less goes out together, in
    one piece for small answers."""
    link.setblocking(False)
    reader, writer = await asyncio.open_unix_connection(sock=link)
    writer.transport.set_write_buffer_limits(high=_WRITE_BUFFER)
    return reader, writer
