"""One WebSocket of a JavaScript guest, on the host's side. See `isopod.runtimes.guest`.

Items of its own, from the guest: A it is taken (subprotocol, and lines of headers) | P a piece of a
message | W its last, of a text | M its last, of bytes | Z it is closed (u16 code, reason) | N what
the app attaches. To the guest: o a WebSocket is asked for (a request) | p a piece of a message | m
its last, of a text | n its last, of bytes | q the client closed it (u16 code, reason).
"""

from __future__ import annotations

import asyncio
from collections import deque

from isopod.errors import (
    ClientDisconnected,
    GuestFailed,
    GuestProtocolError,
    IsopodError,
)
from isopod.runtimes import frames
from isopod.runtimes.client_wait import reading
from isopod.runtimes.guest import (
    GuestRequest,
    GuestResponse,
    MessageReader,
    SocketAccepted,
    SocketClosed,
    SocketMessage,
)
from isopod.runtimes.javascript.exchange import JavaScriptExchange

# As the guest counts them.
WINDOW = 256 << 10
_EACH = 64
_PIECE = 64 << 10
_MAX_MESSAGE = 4 << 20
_MAX_REASON = 123  # RFC 6455 5.5
_MAX_ATTACHMENT = 2048


class JavaScriptSocket(JavaScriptExchange):
    """A WebSocket is begun, stopped and given up as a request is; what is said in it differs."""

    attachment: bytes | None = None
    _opened = False
    _outstanding = 0  # bytes that the guest counts as on their way
    _sending = 0  # of them: of the message that the client is being sent
    _client_closed: SocketClosed | None = None
    _read_message: MessageReader | None = None

    async def open(
        self, request: GuestRequest, read: MessageReader
    ) -> SocketAccepted | GuestResponse:
        if self._error is not None:
            raise self._error
        self._read_message = read
        self._messages: deque[SocketMessage] = deque()
        self._partial = bytearray()
        frame = frames.request_frame(request)
        await self._room()
        if self._error is not None:
            raise self._error
        self._waiter = asyncio.get_running_loop().create_future()
        self._say(b"o", self.number, frame)
        opened: SocketAccepted | GuestResponse = await self._waiter
        return opened

    async def next_message(self) -> SocketMessage:
        """Asked for when the client has taken the one before: only then may the guest say more, so
        what it has said lies here within its window."""
        self._client_wait.end()
        self._taken()
        while not self._messages:
            if self._error is not None:
                raise self._error
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        message = self._messages.popleft()
        if not isinstance(message, SocketClosed):
            text = message if isinstance(message, bytes) else message.encode()
            self._sending = len(text) + _EACH
            self._client_wait.begin()
        return message

    def _taken(self) -> None:
        size, self._sending = self._sending, 0
        self._outstanding -= size
        if size and not self.ended:
            self._say(b"t", self.number, size.to_bytes(4, "little"))

    # -- the guest's side -------------------------------------------------------------------

    def take(self, operation: bytes, data: bytes) -> None:
        if operation == b"F":
            self._end()
        elif operation == b"N":
            if len(data) > _MAX_ATTACHMENT:
                raise GuestProtocolError(f"the guest attached {len(data)} bytes")
            self.attachment = data
        elif self._read_message is None:
            raise GuestProtocolError("the guest speaks for a WebSocket that is not open yet")
        elif self._error is not None or self._whole:
            return  # on its way while it was given up, or closed
        elif operation == b"X":
            self.fail(self._failure(data))
        elif operation == b"A" and not self._opened:
            if len(data) > frames.MAX_HEAD_BYTES:
                raise GuestProtocolError(f"the guest sent {len(data):,} bytes of headers")
            subprotocol, *lines = data.split(b"\n")
            accepted = frames.parse_accept(subprotocol, lines)
            self._opened = self._answered = True
            self._settle(accepted)
        elif operation == b"S" and not self._opened:
            response = frames.parse_response(operation + data, more=False)
            self._whole = True
            self._settle(response)
        elif operation in (b"P", b"W", b"M") and self._opened:
            self._take_piece(operation, data)
        elif operation == b"Z" and self._opened:
            self._take_close(data)
        elif operation == b"B" and self._opened and self._body_task is None:
            self._client_wait.begin()
            self._body_task = asyncio.get_running_loop().create_task(self._feed_message())
        else:
            raise GuestProtocolError(
                f"the guest sent operation {operation!r} of a WebSocket that awaits it not"
            )

    def _take_piece(self, operation: bytes, data: bytes) -> None:
        # Each counts: of empty ones there could be thousands. The rest of a message that was begun
        # is never too much.
        begins = not self._partial
        if begins and self._outstanding > WINDOW:
            raise GuestProtocolError("the guest sent more than it may before the client took it")
        self._partial += data
        if len(self._partial) > _MAX_MESSAGE or (operation == b"P" and not data):
            raise GuestProtocolError("the guest sent too large a message, or an empty piece of one")
        if operation == b"P":
            return
        message = bytes(self._partial)
        self._partial.clear()
        self._outstanding += len(message) + _EACH
        try:
            self._messages.append(message.decode() if operation == b"W" else message)
        except UnicodeDecodeError:
            raise GuestProtocolError("the guest sent a text message that is not UTF-8") from None
        self._settle(None)

    def _take_close(self, data: bytes) -> None:
        if not 2 <= len(data) <= 2 + _MAX_REASON:
            raise GuestProtocolError("the guest closed a WebSocket with a code that is none")
        self._whole = True
        reason = data[2:].decode("utf-8", "replace")
        self._messages.append(SocketClosed(int.from_bytes(data[:2], "little"), reason))
        self._settle(None)

    def _end(self) -> None:
        self.ended = True
        self._cancel_body()
        if not self._whole and self._error is None:
            self._whole = True
            if self._client_closed is not None:
                self._messages.append(self._client_closed)
                self._settle(None)
            else:
                self._error = GuestFailed("the app ended without closing its WebSocket")
                if self._waiter is not None and not self._waiter.done():
                    self._waiter.set_exception(self._error)
        if self._over is not None and not self._over.done():
            self._over.set_result(None)

    # -- what the client says ---------------------------------------------------------------

    async def _feed_message(self) -> None:
        try:
            await self._feed()
        finally:
            self._body_task = None
            self._client_wait.end()

    async def _feed(self) -> None:
        message: SocketMessage = SocketClosed(1006)
        try:
            if self._read_message is not None:
                with reading("the WebSocket"):
                    message = await self._read_message()
        except ClientDisconnected:
            pass
        except IsopodError as error:
            self.fail(error)
            return
        self._client_wait.end()
        await self._room()
        if isinstance(message, SocketClosed):
            self._client_closed = message
            reason = message.reason.encode()
            self._say(b"q", self.number, message.code.to_bytes(2, "little") + reason)
            return
        data = message.encode() if isinstance(message, str) else message
        while len(data) > _PIECE:
            self._say(b"p", self.number, data[:_PIECE])
            data = data[_PIECE:]
            await self._room()
        self._say(b"m" if isinstance(message, str) else b"n", self.number, data)
