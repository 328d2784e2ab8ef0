"""One WebSocket of a guest's, on the host's side (see `isopod.runtimes.guest.SocketExchange`)."""

from __future__ import annotations

from collections import deque

from isopod.errors import (
    ClientDisconnected,
    EngineError,
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
from isopod.runtimes.python.exchanges import Exchanges
from isopod.runtimes.python.http_exchange import WINDOW, HttpExchange

# As the guest counts them.
_EACH = 64
_MAX_REASON = 123  # RFC 6455 5.5
MAX_ATTACHMENT = 2048
_MAX_MESSAGE = 4 << 20
_FORBIDDEN = GuestResponse(403, [], b"", more=False)


class PythonSocket(HttpExchange):
    """A WebSocket is begun, stopped and given up as a request is; what is said in it differs."""

    def __init__(self, number: int, among: Exchanges) -> None:
        super().__init__(number, among)
        self.attachment: bytes | None = None
        self._accepted: SocketAccepted | None = None
        self._messages: deque[SocketMessage] = deque()
        self._said_all = False
        self._client_closed: SocketClosed | None = None
        self._read_message: MessageReader | None = None

    async def open(
        self, request: GuestRequest, read: MessageReader
    ) -> SocketAccepted | GuestResponse:
        self.request_id = request.request_id
        self._read_message = read
        frame = frames.request_frame(request)
        self._among.open(self)
        self._among.tell(b"w", self.number, frame)
        await self._until(lambda: (self._accepted or self._response) is not None)
        opened = self._accepted or self._response
        if opened is None:
            raise EngineError("a WebSocket was neither taken nor refused")
        return opened

    async def next_message(self) -> SocketMessage:
        if self._waits_for_client:
            self._waits_for_client = False
            self._end_wait()
        await self._until(lambda: bool(self._messages))
        message = self._messages.popleft()
        if not isinstance(message, SocketClosed):
            size = len(message if isinstance(message, bytes) else message.encode())
            self._take(size + _EACH)
            self._waits_for_client = True
            self._begin_wait()
        return message

    _waits_for_client = False

    # -- the guest's ------------------------------------------------------------------------

    def said(self, kind: bytes, payload: bytes) -> None:
        if kind == b"F":
            self.ended = True
            self._stop_reading()
            if self._client_closed is not None:
                self._messages.append(self._client_closed)
            elif not self._said_all:
                self._fail(GuestFailed("the app ended without closing its WebSocket"))
            self._wake()
            return
        if self._stopped or self._error is not None:
            return  # on its way while we gave up
        opened = self._accepted is not None
        if kind == b"X":
            if not self._said_all:
                self._fail(self._among.app_error(payload))
        elif kind == b"P":
            if len(payload) > MAX_ATTACHMENT:
                raise GuestProtocolError(f"the guest attached {len(payload)} bytes")
            self.attachment = payload
        elif kind == b"A" and not opened and self._response is None:
            self._accept(payload)
        elif kind == b"S" and not opened and self._response is None:
            self._said_all = True
            self._head(payload, more=False)
        elif kind == b"Z" and not self._said_all:
            self._close(payload, opened=opened)
        elif kind in (b"T", b"M") and opened and not self._said_all:
            self._say(payload, text=kind == b"T")
        elif kind == b"B" and opened and self._body_task is None:
            self._begin_wait()
            self._body_task = self._loop.create_task(self._feed_message())
        else:
            raise GuestProtocolError(f"the guest sent {kind!r} of a WebSocket that awaits it not")

    def _accept(self, payload: bytes) -> None:
        if len(payload) > frames.MAX_HEAD_BYTES:
            raise GuestProtocolError(f"the guest sent {len(payload):,} bytes of headers")
        subprotocol, *lines = payload.split(b"\n")
        self._accepted = frames.parse_accept(subprotocol, lines)
        self._wake()

    def _close(self, payload: bytes, *, opened: bool) -> None:
        self._said_all = True
        if len(payload) < 2 or len(payload) > 2 + _MAX_REASON:
            raise GuestProtocolError("the guest closed a WebSocket with a code that is none")
        reason = payload[2:].decode("utf-8", "replace")
        if opened:
            self._messages.append(SocketClosed(int.from_bytes(payload[:2], "little"), reason))
        else:
            self._response = _FORBIDDEN
        self._wake()

    def _say(self, payload: bytes, *, text: bool) -> None:
        if self._outstanding > WINDOW or len(payload) > _MAX_MESSAGE:
            raise GuestProtocolError("the guest sent more than it may before the client took it")
        self._outstanding += len(payload) + _EACH
        try:
            self._messages.append(payload.decode() if text else payload)
        except UnicodeDecodeError:
            raise GuestProtocolError("the guest sent a text message that is not UTF-8") from None
        self._wake()

    async def _feed_message(self) -> None:
        message: SocketMessage = SocketClosed(1006)
        try:
            if self._read_message is not None:
                with reading("the WebSocket"):
                    message = await self._read_message()
        except ClientDisconnected:
            pass
        except IsopodError as error:
            self._fail(error)
            return
        finally:
            self._body_task = None
            self._end_wait()
        if isinstance(message, SocketClosed):
            self._client_closed = message
            reason = message.reason.encode()
            self._among.tell(b"q", self.number, message.code.to_bytes(2, "little") + reason)
        elif isinstance(message, str):
            self._among.tell(b"m", self.number, message.encode())
        else:
            self._among.tell(b"y", self.number, message)
