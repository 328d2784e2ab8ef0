"""A WebSocket of an ASGI app: https://asgi.readthedocs.io/en/stable/specs/www.html#websocket

One that was open before this instance began (its app hibernates) is a WebSocket like any other: the
app is called with its scope, gets `websocket.connect` and accepts, which its client does not see.
"""

import isopod_asgi
import isopod_frames as frames

_NORMAL = 1000
_EACH = 64  # beside its bytes, so that empty messages are counted too
# One host call takes 8 MiB.
_MAX_MESSAGE = 4 << 20


class WebSocket(isopod_asgi.Exchange):
    def __init__(self, server, number):
        super().__init__(server, number)
        self._told_connect = False
        self._accepted = False
        self._closed = False  # by the app, or it has refused
        self._messages = []
        self._asked = False
        self._head = None  # of a response that refuses
        self._body = []

    # -- from the host

    def message(self, kind, data):
        self._asked = False
        if kind == b"m":
            self._messages.append({"type": "websocket.receive", "text": data.decode()})
        elif kind == b"y":
            self._messages.append({"type": "websocket.receive", "bytes": data})
        else:
            self._end(int.from_bytes(data[:2], "little"), data[2:].decode())
        self.wake()

    def _end(self, code, reason):
        self.gone = True
        self._messages.append({"type": "websocket.disconnect", "code": code, "reason": reason})

    # -- the app's

    async def receive(self):
        if not self._told_connect:
            self._told_connect = True
            return {"type": "websocket.connect"}
        while not self._messages:
            if self.gone:
                self._end(1006, "")
            elif self._closed:
                self._end(_NORMAL, "")
            else:
                if self._accepted and not self._asked:
                    self._asked = True
                    self.say(b"B")
                await self.wait()
        return self._messages.pop(0)

    async def send(self, message):
        kind = message["type"]
        if self._closed:
            raise RuntimeError(f"the app sent {kind!r} after it closed the WebSocket")
        if self.gone:
            raise isopod_asgi.ClientGone("the client is gone")
        if kind == "websocket.accept" and not self._accepted:
            self._accepted = True
            self.say(b"A", _accept(message))
            self.wake()
        elif kind == "websocket.send" and self._accepted:
            await self._send(message)
        elif kind == "websocket.close":
            self._closed = True
            reason = (message.get("reason") or "").encode()[:123].decode(errors="ignore")
            code = int(message.get("code") or _NORMAL)
            self.say(b"Z", code.to_bytes(2, "little") + reason.encode())
            self.wake()
        elif kind == "websocket.http.response.start" and not self._accepted and not self._head:
            self._head = isopod_asgi._head(str(int(message["status"])), message.get("headers", ()))
        elif kind == "websocket.http.response.body" and self._head:
            self._refuse(message)
        else:
            raise RuntimeError(f"the app sent {kind!r}, which does not fit here")
        # At once: what the app does next may take its time.
        self.server.tell()

    async def _send(self, message):
        text = message.get("text")
        data = bytes(message["bytes"]) if text is None else text.encode()
        if len(data) > _MAX_MESSAGE:
            raise ValueError(f"a message of {len(data)} bytes; {_MAX_MESSAGE} is the most")
        await self.send_window()
        self.unacknowledged += len(data) + _EACH
        self.say(b"M" if text is None else b"T", data)

    def _refuse(self, message):
        self._body.append(bytes(message.get("body", b"")))
        if sum(map(len, self._body)) > frames.CHUNK:
            raise ValueError(f"the response is larger than {frames.CHUNK} bytes")
        if not message.get("more_body", False):
            self._closed = True
            self.say(b"S", self._head + b"".join(self._body))
            self.wake()

    def check_complete(self):
        if self._closed or self.gone:
            return
        if not self._accepted:
            raise RuntimeError("the app returned before it accepted or refused the WebSocket")
        self._closed = True
        self.say(b"Z", _NORMAL.to_bytes(2, "little"))


def _accept(message):
    lines = [(message.get("subprotocol") or "").encode("latin-1")]
    for name, value in message.get("headers", ()):
        lines.append(bytes(name) + b":" + bytes(value))
    for line in lines:
        if b"\n" in line or b"\r" in line:
            raise ValueError("a header holds a line break")
    return b"\n".join(lines)


def start(server, number, frame):
    """A `w` frame."""
    scope, _, _ = isopod_asgi.scope_of(frame, server.state)
    attachment, offered = None, []
    if scope["headers"] and scope["headers"][-1][0] == b"":
        attachment = bytes.fromhex(scope["headers"].pop()[1].decode())
    for name, value in scope["headers"]:
        if name == b"sec-websocket-protocol":
            offered += [one.strip() for one in value.decode("latin-1").split(",")]
    del scope["method"]
    socket = WebSocket(server, number)

    def attach(data):
        """What the next instance is given, if this one is gone when the next message comes."""
        data = bytes(data)
        if len(data) > frames.ATTACHMENT:
            raise ValueError(f"{len(data)} bytes; {frames.ATTACHMENT} is the most to attach")
        socket.say(b"P", data)

    scope |= {
        "type": "websocket",
        "subprotocols": [one for one in offered if one],
        "extensions": {
            "websocket.http.response": {},
            "isopod.websocket": {
                "resumed": attachment is not None,
                "attachment": attachment or b"",
                "attach": attach,
            },
        },
    }
    server.start(socket, scope)
