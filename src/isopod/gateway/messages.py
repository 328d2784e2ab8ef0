"""ASGI messages as bytes, for a request that another worker answers (see `forward`).

A frame is two lengths, a JSON object and a payload. Both sides check what comes: a worker that was
taken over chooses every byte of it, and must gain nothing in the other. What is no message of its
type, too large or out of its direction is refused; headers must be ones that HTTP allows, so that
no worker can split another's responses.
"""

from __future__ import annotations

import asyncio
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from isopod.gateway.job_request import JOB_SCOPE, JobScope

_SIZES = struct.Struct("!II")  # of the JSON object, of the payload
SIZES_BYTES = _SIZES.size
MAX_HEAD_BYTES = 1 << 20  # a request's headers are bounded at 64 KiB, a response's by its guest
MAX_PAYLOAD_BYTES = 16 << 20  # a WebSocket message travels whole
_PIECE_BYTES = 256 << 10  # a body does not
_MAX_HEADERS = 4096
# RFC 9110 5.1 and 5.5, without what would end a line. HTTP/2 names are of the same kind.
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,1024}")
_VALUE = re.compile(rb"[^\x00\r\n]*")

Message = dict[str, Any]


class FrameInvalid(ValueError):
    """The other worker sent what is none of its messages."""


@dataclass(frozen=True, slots=True)
class Frame:
    head: Mapping[str, Any]
    payload: bytes = b""

    def pack(self) -> bytes:
        try:
            head = orjson.dumps(self.head)
        except TypeError as bad:  # a number beyond 64 bits, a text that is no Unicode
            raise FrameInvalid(f"the message cannot be forwarded: {bad}") from None
        if len(head) > MAX_HEAD_BYTES or len(self.payload) > MAX_PAYLOAD_BYTES:
            raise FrameInvalid("the message is too large to be forwarded")
        return _SIZES.pack(len(head), len(self.payload)) + head + self.payload

    @property
    def type(self) -> str:
        return str(self.head.get("type", ""))


@dataclass(slots=True)
class FrameReader:
    """A reading that is cancelled loses nothing: the next one goes on where it was."""

    reader: asyncio.StreamReader
    _sizes: tuple[int, int] | None = field(default=None, init=False)

    async def next(self) -> Frame:
        """Raises EOFError at the end, and FrameInvalid."""
        try:
            if self._sizes is None:
                head, payload = _SIZES.unpack(await self.reader.readexactly(SIZES_BYTES))
                if head > MAX_HEAD_BYTES or payload > MAX_PAYLOAD_BYTES:
                    raise FrameInvalid("a frame is too large")
                self._sizes = head, payload
            size, _ = self._sizes
            data = await self.reader.readexactly(sum(self._sizes))
        except OSError as bad:
            raise EOFError from bad
        self._sizes = None
        try:
            head = orjson.loads(data[:size])
        except ValueError:
            raise FrameInvalid("a frame's head is no JSON") from None
        if not isinstance(head, dict):
            raise FrameInvalid("a frame's head is no object")
        return Frame(head, data[size:])


# -- messages that an application sends, and that it receives ---------------------------------


def frames_of(message: Mapping[str, Any]) -> Iterator[Frame]:
    """Of one message: several for a large body, of which all but the last are marked "split"."""
    kind = message["type"]
    head = {key: value for key, value in message.items() if key not in ("body", "bytes", "text")}
    if "headers" in head:
        head["headers"] = [
            [bytes(name).decode("latin-1"), bytes(value).decode("latin-1")]
            for name, value in head["headers"]
        ]
    if kind in ("websocket.receive", "websocket.send"):
        text = message.get("text")
        head["text"] = text is not None
        payload = text.encode() if text is not None else bytes(message.get("bytes") or b"")
        yield Frame(head, payload)
        return
    body = message.get("body") or b""
    while len(body) > _PIECE_BYTES:
        yield Frame({**head, "more_body": True, "split": True}, bytes(body[:_PIECE_BYTES]))
        body = body[_PIECE_BYTES:]
    yield Frame(head, bytes(body))


def received(frame: Frame, protocol: str) -> Message:
    """What `receive` gives an application whose scope is of the type `protocol`."""
    return _parse(frame, _RECEIVED[protocol])


def sent(frame: Frame, protocol: str) -> Message:
    """What an application gave to `send`."""
    return _parse(frame, _SENT[protocol])


def _parse(frame: Frame, known: Mapping[str, Callable[[Frame], Message]]) -> Message:
    parse = known.get(frame.type)
    if parse is None:
        raise FrameInvalid(f"a frame of the type {frame.type[:80]!r} is not expected")
    return {"type": frame.type, **parse(frame)}


def _body(frame: Frame) -> Message:
    return {"body": frame.payload, "more_body": _flag(frame, "more_body")}


def _start(frame: Frame) -> Message:
    status = _number(frame, "status")
    if not 100 <= status <= 999:
        raise FrameInvalid("a status is none")
    return {"status": status, "headers": headers_of(frame.head.get("headers", []))}


def _data(frame: Frame) -> Message:
    if not _flag(frame, "text"):
        return {"bytes": frame.payload, "text": None}
    try:
        return {"bytes": None, "text": frame.payload.decode()}
    except UnicodeDecodeError:
        raise FrameInvalid("a text message is not UTF-8") from None


def _accept(frame: Frame) -> Message:
    chosen = frame.head.get("subprotocol")
    if chosen is not None and (
        not isinstance(chosen, str) or not chosen.isascii() or not _NAME.fullmatch(chosen.encode())
    ):
        raise FrameInvalid("a subprotocol is none")
    return {"subprotocol": chosen, "headers": headers_of(frame.head.get("headers", []))}


def _close(frame: Frame) -> Message:
    code = frame.head.get("code")
    if code is None:
        code = 1000  # as ASGI has it
    if type(code) is not int or not 1000 <= code <= 4999:
        raise FrameInvalid("a close code is none")
    return {"code": code, "reason": _text(frame, "reason")[:123]}


def _nothing(_frame: Frame) -> Message:
    return {}


_Known = Mapping[str, Mapping[str, Callable[[Frame], Message]]]
_RECEIVED: _Known = {
    "http": {"http.request": _body, "http.disconnect": _nothing},
    "websocket": {
        "websocket.connect": _nothing,
        "websocket.receive": _data,
        "websocket.disconnect": _close,
    },
}
_SENT: _Known = {
    "http": {"http.response.start": _start, "http.response.body": _body},
    "websocket": {
        "websocket.accept": _accept,
        "websocket.send": _data,
        "websocket.close": _close,
        "websocket.http.response.start": _start,
        "websocket.http.response.body": _body,
    },
}

# -- what a request is ------------------------------------------------------------------------

_SCOPE_TEXTS = ("http_version", "method", "scheme", "path")


def frame_of_scope(scope: Mapping[str, Any], *, request_id: str) -> Frame:
    address, port = scope.get("client") or ("", 0)
    head: dict[str, Any] = {name: str(scope.get(name, "")) for name in _SCOPE_TEXTS}
    # For people: what an app gets is raw_path, which need not be UTF-8.
    head["path"] = head["path"].encode(errors="replace").decode()
    raw_path = scope.get("raw_path")
    return Frame(
        head
        | {
            "type": scope["type"],
            "raw_path": None if raw_path is None else raw_path.decode("latin-1"),
            "query_string": scope["query_string"].decode("latin-1"),
            "headers": [
                [name.decode("latin-1"), value.decode("latin-1")]
                for name, value in scope["headers"]
            ],
            "client": [str(address), int(port)],
            "subprotocols": [str(one) for one in scope.get("subprotocols", ())],
            "request_id": request_id,
            "job": job.to_json() if (job := scope.get(JOB_SCOPE)) else None,
        }
    )


def scope_of(frame: Frame) -> tuple[Message, str]:
    """The scope, and the id that the request has already."""
    head = frame.head
    if frame.type not in _RECEIVED:
        raise FrameInvalid("a scope's type is unknown")
    scope: Message = {"type": frame.type, "asgi": {"version": "3.0", "spec_version": "2.3"}}
    for name in _SCOPE_TEXTS:
        scope[name] = _text(frame, name)
    client = head.get("client")
    if not (
        isinstance(client, list)
        and len(client) == 2
        and isinstance(client[0], str)
        and type(client[1]) is int
    ):
        raise FrameInvalid("a client is no address and port")
    raw_path = head.get("raw_path")
    subprotocols = head.get("subprotocols", [])
    if not isinstance(subprotocols, list) or not all(isinstance(one, str) for one in subprotocols):
        raise FrameInvalid("subprotocols are no texts")
    scope |= {
        "raw_path": None if raw_path is None else _bytes(raw_path),
        "query_string": _bytes(head.get("query_string")),
        "headers": headers_of(head.get("headers")),
        "client": (client[0], client[1]),
        "subprotocols": subprotocols,
    }
    request_id = _text(frame, "request_id")
    if not re.fullmatch(r"[0-9A-Za-z._-]{1,128}", request_id):
        raise FrameInvalid("a request id is none")
    try:
        job = JobScope.from_json(head.get("job"))
    except ValueError as error:
        raise FrameInvalid(str(error)) from error
    return scope | ({JOB_SCOPE: job} if job else {}), request_id


def headers_of(given: Any) -> list[tuple[bytes, bytes]]:
    if not isinstance(given, list) or len(given) > _MAX_HEADERS:
        raise FrameInvalid("headers are no list, or too long a one")
    found = []
    for one in given:
        if not isinstance(one, list) or len(one) != 2:
            raise FrameInvalid("a header is no name and value")
        name, value = _bytes(one[0]), _bytes(one[1])
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise FrameInvalid("a header is not one that HTTP allows")
        found.append((name, value))
    return found


def _bytes(value: Any) -> bytes:
    if isinstance(value, str):
        try:
            return value.encode("latin-1")
        except UnicodeEncodeError:
            pass
    raise FrameInvalid("a value holds more than bytes")


def _text(frame: Frame, name: str) -> str:
    value = frame.head.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise FrameInvalid(f"{name} is no text")
    return value


def _flag(frame: Frame, name: str) -> bool:
    return frame.head.get(name) is True


def _number(frame: Frame, name: str) -> int:
    value = frame.head.get(name)
    if type(value) is not int:
        raise FrameInvalid(f"{name} is no number")
    return value
