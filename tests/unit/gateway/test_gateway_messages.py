"""What one worker says to another, and what it may not."""

import asyncio
import contextlib
import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isopod.gateway.messages import (
    MAX_HEAD_BYTES,
    MAX_PAYLOAD_BYTES,
    Frame,
    FrameInvalid,
    FrameReader,
    frame_of_scope,
    frames_of,
    received,
    scope_of,
    sent,
)


def read(data: bytes) -> Frame:
    async def main() -> Frame:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        return await FrameReader(reader).next()

    return asyncio.run(main())


def there_and_back(message: dict, parse, protocol: str) -> list[dict]:
    return [parse(read(frame.pack()), protocol) for frame in frames_of(message)]


SCOPE = {
    "type": "http",
    "method": "POST",
    "path": "/ä",
    "raw_path": b"/%C3%A4",
    "query_string": b"a=\xff",
    "http_version": "2",
    "scheme": "https",
    "client": ("2001:db8::1", 4711),
    "headers": [(b"host", b"shop.localhost"), (b"x-a", b"\xe4\t")],
}


def test_a_scope_arrives_as_it_was():
    scope, request_id = scope_of(read(frame_of_scope(SCOPE, request_id="abc-1").pack()))
    assert request_id == "abc-1"
    assert {name: scope[name] for name in SCOPE} == SCOPE


def test_messages_arrive_as_they_were():
    start = {"type": "http.response.start", "status": 404, "headers": [(b"a", b"\xff b")]}
    assert there_and_back(start, sent, "http") == [start]
    text = {"type": "websocket.receive", "text": "grüße", "bytes": None}
    assert there_and_back(text, received, "websocket") == [text]
    binary = {"type": "websocket.send", "bytes": b"\xff\0"}
    assert there_and_back(binary, sent, "websocket") == [{**binary, "text": None}]
    accept = {"type": "websocket.accept", "subprotocol": "chat", "headers": []}
    assert there_and_back(accept, sent, "websocket") == [accept]
    close = {"type": "websocket.disconnect", "code": 1001, "reason": "bye"}
    assert there_and_back(close, received, "websocket") == [close]


def test_a_large_body_comes_in_pieces_of_which_the_last_says_whether_there_is_more():
    body = bytes(range(256)) * 4096
    for more in (True, False):
        message = {"type": "http.request", "body": body, "more_body": more}
        frames = [read(frame.pack()) for frame in frames_of(message)]
        pieces = [received(frame, "http") for frame in frames]
        assert b"".join(one["body"] for one in pieces) == body
        assert [one["more_body"] for one in pieces] == [True] * (len(pieces) - 1) + [more]
        assert [bool(frame.head.get("split")) for frame in frames] == [True] * (len(pieces) - 1) + [
            False
        ]


@pytest.mark.parametrize(
    "head",
    [
        {"type": "http.response.start", "status": 200, "headers": [["a", "b\r\nset-cookie: x"]]},
        {"type": "http.response.start", "status": 200, "headers": [["a b", "c"]]},
        {"type": "http.response.start", "status": 200, "headers": [["a", "€"]]},
        {"type": "http.response.start", "status": 200, "headers": [["a"]]},
        {"type": "http.response.start", "status": 200, "headers": {"a": "b"}},
        {"type": "http.response.start", "status": 200, "headers": [["a", "b"]] * 5000},
        {"type": "http.response.start", "status": 99, "headers": []},
        {"type": "http.response.start", "status": "200", "headers": []},
        {"type": "http.response.start", "status": True, "headers": []},
        {"type": "http.request"},
        {"type": "http.disconnect"},
        {"type": "websocket.accept"},
        {"type": "lifespan.startup"},
        {"type": ["http.response.body"]},
        {},
    ],
)
def test_what_an_application_cannot_send_is_refused(head):
    with pytest.raises(FrameInvalid):
        sent(read(Frame(head).pack()), "http")


@pytest.mark.parametrize(
    "change",
    [
        {"type": "lifespan"},
        {"client": ["x", 1, 2]},
        {"client": ["x", "1"]},
        {"client": None},
        {"headers": None},
        {"headers": [["host", "a\nb"]]},
        {"raw_path": 5},
        {"query_string": None},
        {"method": ["GET"]},
        {"subprotocols": "chat"},
        {"request_id": "a\nb"},
        {"request_id": ""},
        {"request_id": "x" * 200},
    ],
)
def test_a_scope_that_is_none_is_refused(change):
    head = {**frame_of_scope(SCOPE, request_id="abc").head, **change}
    with pytest.raises(FrameInvalid):
        scope_of(read(Frame(head).pack()))


def test_lengths_beyond_the_bounds_are_refused_before_anything_is_read():
    for head, payload in ((MAX_HEAD_BYTES + 1, 0), (2, MAX_PAYLOAD_BYTES + 1), (2**32 - 1,) * 2):
        with pytest.raises(FrameInvalid):
            read(struct.pack("!II", head, payload))


@given(st.binary(max_size=64), st.sampled_from(["http", "websocket"]))
def test_bytes_of_any_kind_are_a_message_or_refused(data, protocol):
    framed = struct.pack("!II", len(data) // 2, len(data) - len(data) // 2) + data
    for raw in (data, framed):
        for parse in (received, sent):
            with contextlib.suppress(EOFError, FrameInvalid):
                parse(read(raw), protocol)


_values = st.sampled_from(
    [None, True, 0, -1, 10**30, 1.5, "", "\ud800", "a\nb", "x" * 200, [], {}, ["a"], [["a", 1]]]
)
_names = st.sampled_from(
    ["type", "status", "headers", "code", "reason", "subprotocol", "text", "client", "raw_path"]
)
_types = st.sampled_from(
    ["http", "websocket", "http.response.start", "websocket.accept", "websocket.close"]
)


@given(st.dictionaries(_names, _values), _types)
def test_values_of_any_kind_are_a_message_or_refused(head, kind):
    said = json.dumps({**head, "type": kind}).encode()
    try:
        frame = read(struct.pack("!II", len(said), 0) + said)
    except FrameInvalid:  # half a surrogate pair
        return
    for parse in (
        lambda: received(frame, "websocket"),
        lambda: sent(frame, "websocket"),
        lambda: sent(frame, "http"),
        lambda: scope_of(frame),
    ):
        with contextlib.suppress(FrameInvalid):
            parse()


def test_a_reading_that_is_cancelled_loses_nothing():
    async def main() -> None:
        reader = asyncio.StreamReader()
        frames = FrameReader(reader)
        data = Frame({"type": "http.request"}, b"body").pack()
        for at in range(len(data)):
            reading = asyncio.ensure_future(frames.next())
            reader.feed_data(data[at : at + 1])
            for _ in range(3):
                await asyncio.sleep(0)
            if at < len(data) - 1:
                reading.cancel()
                await asyncio.wait({reading})
        assert (await reading).payload == b"body"

    asyncio.run(main())
