"""One client's WebSocket (RFC 6455), after its handshake: frames in, messages out, and back.

What a client sends is read as the app takes it: a few messages wait here, the rest in the kernel,
and then the client waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections import deque
from typing import cast

from websockets.exceptions import InvalidState
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import Protocol, Side, State

from isopod.errors import ClientDisconnected, ClientTooSlow
from isopod.gateway.body import CLIENT_IDLE_S
from isopod.runtimes.guest import SocketClosed, SocketMessage

# It says that each connection was closed.
_quiet = logging.getLogger(f"{__name__}.protocol")
_quiet.setLevel(logging.WARNING)
# What waits for the app, before the client has to.
_MAX_WAITING = 64
_MAX_WAITING_BYTES = 256 << 10
# So much is parsed at once: some thousand pings, while the loop does nothing else.
_SLICE = 8 << 10
# A part of a core that one client may use by frames that reach no app (pings, empty pieces), and
# what it may use at once.
_SHARE = 0.1
_BURST_S = 0.02
_WRITE_HIGH = 256 << 10
_CLOSE_S = 5.0  # for the client's part of the closing handshake
GONE = 1006  # RFC 6455 7.4.1: no closing handshake


class Wire(asyncio.Protocol):
    """`receive` and `send` for one task each. `host_ns`: time that parsing took."""

    __slots__ = (
        "_again",
        "_closed",
        "_closing",
        "_drained",
        "_ended",
        "_loop",
        "_opcode",
        "_paused",
        "_piece",
        "_protocol",
        "_receiver",
        "_socket",
        "_timer",
        "_transport",
        "_unparsed",
        "_used_until",
        "_waiting",
        "_waiting_bytes",
        "_writes_wait",
        "gone_at",
        "heard_at",
        "host_ns",
        "moved_at",
        "pinged_at",
        "received_bytes",
        "sent_bytes",
    )

    def __init__(self, link: socket.socket, *, max_message_bytes: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = link
        self._protocol = Protocol(Side.SERVER, max_size=max_message_bytes, logger=_quiet)
        self._transport: asyncio.Transport | None = None
        self._unparsed = b""
        self._opcode: Opcode | None = None  # of the message whose pieces come
        self._piece = bytearray()
        self._waiting: deque[SocketMessage] = deque()
        self._waiting_bytes = 0
        self._receiver: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._ended = False  # SocketClosed is among the messages, or was taken
        self._closing = False  # by us
        self._paused = False
        self._writes_wait = False
        self._again: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closed = self._loop.create_future()
        self._used_until = 0.0
        self.gone_at = 0.0  # 0: it is there
        self.heard_at = self.moved_at = self.pinged_at = self._loop.time()
        self.received_bytes = self.sent_bytes = self.host_ns = 0

    # -- for the app's side -----------------------------------------------------------------

    async def receive(self) -> SocketMessage:
        """The next message; SocketClosed at the end, and again if asked again."""
        while not self._waiting:
            if self._ended:
                return SocketClosed(GONE)
            self._receiver = self._loop.create_future()
            try:
                await self._receiver
            finally:
                self._receiver = None
        message = self._waiting.popleft()
        if not isinstance(message, SocketClosed):
            self._waiting_bytes -= len(message)
            self._go_on()
        return message

    async def send(self, message: str | bytes) -> None:
        """Until the client has taken most of it. Raises ClientDisconnected, ClientTooSlow."""
        # The protocol does not call that closed: an app that never receives would go on for ever.
        if self._transport is None or self._transport.is_closing():
            raise ClientDisconnected("the client went away")
        try:
            if isinstance(message, str):
                self._protocol.send_text(message.encode())
            else:
                self._protocol.send_binary(message)
        except InvalidState:
            raise ClientDisconnected("the client has closed the WebSocket") from None
        self.moved_at = self._loop.time()
        self._flush()
        if not self._writes_wait:
            return
        self._drained = self._loop.create_future()
        try:
            async with asyncio.timeout(CLIENT_IDLE_S):
                await self._drained
        except TimeoutError:
            self.abort()
            raise ClientTooSlow(f"the client took nothing for {CLIENT_IDLE_S:.0f} s") from None
        finally:
            self._drained = None

    def close(self, code: int, reason: str = "") -> None:
        """Begin the closing handshake, unless it has begun."""
        if self._protocol.state is State.OPEN:
            self._closing = True
            self._protocol.send_close(code, reason)
            self._flush()
            self._expect_the_end()

    def abort(self) -> None:
        """End the connection now. The HTTP server has it too: closing ours is not enough."""
        if self._transport is not None and not self._closed.done():
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            self._transport.abort()

    def ping(self) -> None:
        with contextlib.suppress(InvalidState):
            self._protocol.send_ping(b"")
            self.pinged_at = self._loop.time()
            self._flush()

    @property
    def waits_for_us(self) -> bool:
        """It is not read, as the app has not taken what came before: so it cannot be heard."""
        return self._paused and not self._writes_wait

    @property
    def held_bytes(self) -> int:
        """Of messages that are not whole yet, wait for the app, or for the client."""
        unsent = 0 if self._transport is None else self._transport.get_write_buffer_size()
        come = len(self._unparsed) + len(self._protocol.reader.buffer) + len(self._piece)
        return come + self._waiting_bytes + unsent

    async def closed(self) -> None:
        """Until the connection has ended."""
        await asyncio.shield(self._closed)

    # -- of the transport (see asyncio.Protocol) --------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_WRITE_HIGH)

    def data_received(self, data: bytes) -> None:
        self.heard_at = self._loop.time()
        self.received_bytes += len(data)
        self._unparsed = self._unparsed + data if self._unparsed else data
        if self._again is None:
            self._parse()

    def eof_received(self) -> None:
        self._protocol.receive_eof()
        self._flush()

    def connection_lost(self, _error: Exception | None) -> None:
        for handle in (self._again, self._timer):
            if handle is not None:
                handle.cancel()
        self._end()
        self.gone_at = self._loop.time()
        self._unparsed, self._piece = b"", bytearray()
        if self._drained is not None and not self._drained.done():
            self._drained.set_exception(ClientDisconnected("the client went away"))
        if not self._closed.done():
            self._closed.set_result(None)

    def pause_writing(self) -> None:
        self._writes_wait = True
        self._pause()

    def resume_writing(self) -> None:
        self._writes_wait = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self._go_on()

    # ---------------------------------------------------------------------------------------

    @property
    def _full(self) -> bool:
        return (
            len(self._waiting) >= _MAX_WAITING
            or self._waiting_bytes >= _MAX_WAITING_BYTES
            or self._writes_wait  # the answers to its pings, say
        )

    def _go_on(self) -> None:
        """Take more of the client, if there is room."""
        if self._again is not None or self._full:
            return
        if self._unparsed:
            self._again = self._loop.call_soon(self._parse)
        elif self._paused and self._transport is not None and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    def _pause(self) -> None:
        if not self._paused and self._transport is not None and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def _parse(self) -> None:
        """One slice; then the loop's turn."""
        self._again = None
        began_ns = time.monotonic_ns()
        data, self._unparsed = self._unparsed[:_SLICE], self._unparsed[_SLICE:]
        before = len(self._waiting)
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                self._take(event)
        if self._protocol.parser_exc is not None or self._protocol.close_rcvd is not None:
            self._end()
        self._flush()
        spent_ns = time.monotonic_ns() - began_ns
        self.host_ns += spent_ns
        if self._ended:
            self._unparsed = b""
            self._expect_the_end()
            return
        wait_s = self._pace(spent_ns / 1e9) if len(self._waiting) == before else 0.0
        if wait_s > 0:
            self._pause()
            self._again = self._loop.call_later(wait_s, self._rested)
        elif self._unparsed or self._full:
            self._pause()
            self._go_on()
        else:
            self._go_on()

    def _rested(self) -> None:
        self._again = None
        self._go_on()

    def _pace(self, spent_s: float) -> float:
        """How long to let the client wait, which used so much of ours and brought the app nothing.
        A large message that comes in many slices costs far less than its share."""
        now = self._loop.time()
        self._used_until = max(self._used_until, now - _BURST_S / _SHARE) + spent_s / _SHARE
        return max(0.0, self._used_until - now)

    def _take(self, frame: Frame) -> None:
        if frame.opcode is Opcode.CONT:
            self._piece += frame.data
        elif frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            self._opcode = frame.opcode
            if frame.fin:
                self._deliver(bytes(frame.data))
                return
            self._piece += frame.data
        else:
            return
        if frame.fin:
            whole = bytes(self._piece)
            self._piece = bytearray()
            self._deliver(whole)

    def _deliver(self, data: bytes) -> None:
        if self._ended or self._closing:  # nobody takes it any more
            return
        message: str | bytes = data
        if self._opcode is Opcode.TEXT:
            try:
                message = data.decode()
            except UnicodeDecodeError:
                self._protocol.fail(CloseCode.INVALID_DATA, "a text message is not UTF-8")
                self._end()
                return
        self.moved_at = self._loop.time()
        self._waiting.append(message)
        self._waiting_bytes += len(message)
        self._wake()

    def _end(self) -> None:
        """Nothing more comes. What has come is still taken."""
        if self._ended:
            return
        self._ended = True
        protocol = self._protocol
        if protocol.close_rcvd is not None:
            how = SocketClosed(int(protocol.close_rcvd.code), protocol.close_rcvd.reason)
        elif protocol.close_sent is not None and protocol.parser_exc is not None:
            how = SocketClosed(int(protocol.close_sent.code), protocol.close_sent.reason)
        else:
            how = SocketClosed(GONE)
        self._waiting.append(how)
        self._wake()

    def _wake(self) -> None:
        if self._receiver is not None and not self._receiver.done():
            self._receiver.set_result(None)

    def _flush(self) -> None:
        transport = self._transport
        for data in self._protocol.data_to_send():
            if transport is None or transport.is_closing():
                continue
            if data:
                self.sent_bytes += len(data)
                transport.write(data)
            else:
                transport.write_eof()

    def _expect_the_end(self) -> None:
        """The client has so long to take what is left and to close as well."""
        if self._timer is None and not self._closed.done():
            if self._paused and self._transport is not None:
                self._paused = False
                self._transport.resume_reading()  # to see its end
            self._timer = self._loop.call_later(_CLOSE_S, self.abort)
