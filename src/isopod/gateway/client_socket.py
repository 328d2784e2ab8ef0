"""A client's WebSocket as ASGI messages: the HTTP server answers its handshake, a `Wire` the rest.

The same messages may come from another worker instead, so what is behind knows neither.
"""

from __future__ import annotations

from typing import Any

from isopod.gateway.body import Receive, Send
from isopod.gateway.headers import without_framing
from isopod.gateway.wire import Wire
from isopod.gateway.wires import Wires
from isopod.runtimes.guest import SocketClosed

Scope = dict[str, Any]
_NORMAL = 1000
# RFC 6455 7.4: what may be sent. 1005, 1006 and 1015 are only ever said of a connection.
_CODES = frozenset({*range(1000, 1004), *range(1007, 1015)})
_MAX_REASON_BYTES = 123


class ClientSocket:
    """ASGI's `receive` and `send` for one client; `end` follows."""

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        wires: Wires,
        max_message_bytes: int,
        max_idle_s: float,
        tenant: str,
    ) -> None:
        self._receive, self._send = receive, send
        self._wires = wires
        # Now, and not when the app takes it: the client may be gone then, and its port another's.
        self._connection = wires.find((str(scope["client"][0]), int(scope["client"][1])))
        self.deserted = False  # it has gone, its app did not end in time, and was ended
        self._max_message_bytes, self._max_idle_s = max_message_bytes, max_idle_s
        self._tenant = tenant
        self._wire: Wire | None = None
        self._connected = False

    @property
    def wire(self) -> Wire | None:
        """Once the app has taken it."""
        return self._wire

    async def receive(self) -> dict[str, Any]:
        if self._wire is None:
            if self._connected:
                raise RuntimeError("a WebSocket that is not accepted has no messages")
            self._connected = True
            message: dict[str, Any] = await self._receive()
            return message
        message_ = await self._wire.receive()
        if isinstance(message_, SocketClosed):
            return {
                "type": "websocket.disconnect",
                "code": message_.code,
                "reason": message_.reason,
            }
        if isinstance(message_, str):
            return {"type": "websocket.receive", "text": message_}
        return {"type": "websocket.receive", "bytes": message_}

    async def send(self, message: dict[str, Any]) -> None:
        """Raises ClientDisconnected, ClientTooSlow."""
        kind = message["type"]
        if kind == "websocket.accept" and self._wire is None:
            self._wire = await self._wires.open(
                self._connection,
                lambda: self._answer(message),
                max_message_bytes=self._max_message_bytes,
                max_idle_s=self._max_idle_s,
                tenant=self._tenant,
            )
        elif kind == "websocket.send" and self._wire is not None:
            text = message.get("text")
            await self._wire.send(message["bytes"] if text is None else text)
        elif kind == "websocket.close" and self._wire is not None:
            self._wire.close(*sendable(message.get("code", _NORMAL), message.get("reason") or ""))
        elif self._wire is None:  # a refusal
            if "headers" in message:
                message = {**message, "headers": without_framing(message["headers"])}
            await self._send(message)
        else:
            raise RuntimeError(f"a WebSocket that is open takes no {kind!r}")

    def _answer(self, message: dict[str, Any]) -> None:
        """The handshake. Cancelled at once, the server answers it all the same and then, if it had
        not yet begun, drops its side of the connection: otherwise it keeps 35 KiB of it."""
        subprotocol = message.get("subprotocol") or None
        answering: Any = self._send({"type": "websocket.accept", "subprotocol": subprotocol})
        answering.cancel()

    async def end(self) -> None:
        """The app has returned: until the client has all of it, and the connection has ended."""
        wire = self._wire
        if wire is None:
            return
        try:
            wire.close(_NORMAL)
            await wire.closed()
        finally:
            wire.abort()
            self._wires.forget(wire)


def sendable(code: int, reason: str) -> tuple[int, str]:
    """A close as it may go over the wire, whatever the app said."""
    if code not in _CODES and not 3000 <= code < 5000:
        code = _NORMAL if code == 1005 else 1011
    return code, reason.encode()[:_MAX_REASON_BYTES].decode(errors="ignore")
