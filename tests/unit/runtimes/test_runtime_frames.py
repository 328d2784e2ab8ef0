"""What a guest sends is checked: the worst it gets is GuestProtocolError."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isopod.errors import (
    AppFailedToStart,
    AppSyntaxError,
    BadRequest,
    EntrypointNotFound,
    GuestProtocolError,
    IsopodError,
    MemoryLimitExceeded,
)
from isopod.runtimes import frames
from isopod.runtimes.guest import GuestRequest, GuestResponse


def frame(head: bytes, body: bytes = b"", *, operation: bytes = b"S") -> bytes:
    return operation + len(head).to_bytes(4, "little") + head + body


def parse(head: bytes, body: bytes = b"", *, more: bool = False) -> GuestResponse:
    return frames.parse_response(frame(head, body), more=more)


@given(st.binary(max_size=300), st.booleans())
def test_no_bytes_give_anything_but_a_protocol_error(data, more):
    try:
        frames.parse_response(data, more=more)
    except GuestProtocolError as error:
        assert len(error.message) < 500


HEADS = st.lists(
    st.sampled_from([b"200", b"200 OK", b"a", b":", b"content-length", b"3", b"\n", b"\r", b" ",
                     b"set-cookie", b"\0", b"\xff", b"\t", b"x" * 50]),
    max_size=20,
).map(b"".join)  # fmt: skip


@given(HEADS, st.binary(max_size=5), st.booleans())
def test_no_head_splits_a_response(head, body, more):
    try:
        response = parse(head, body, more=more)
    except GuestProtocolError:
        return
    assert 200 <= response.status <= 599
    for name, value in response.headers:
        assert name
        assert not set(name) & set(b" \t\r\n\0:")
        assert not set(value) & set(b"\r\n\0")


@pytest.mark.parametrize(
    "head",
    [
        b"200 OK\nx: a\rset-cookie: b=1",
        b"200 OK\nx: a\0b",
        b"200 OK\nx: a\x7f",
        b"200 OK\nx a: b",
        b"200 OK\nx\r: b",
        b"200 OK\n: b",
        b"200 OK\nno colon",
        b"200 OK\n",
        b"200 OK\nx\xe9: b",
        b"",
        b"OK",
        b"99 Low",
        b"600 High",
        b"2000",
        b"101 Switching Protocols",
        b"200 OK\ncontent-length: -1",
        b"200 OK\ncontent-length: 1, 2",
        b"200 OK\ncontent-length: 5\ncontent-length: 6",
        b"200 OK\ncontent-length: 5\ncontent-length: 5",
        b"200 OK\ncontent-length:",
        b"200 OK\n" + b"\n".join([b"x: y"] * 201),
        b"200 OK\nx: " + b"y" * 70_000,
    ],
)
def test_a_head_that_is_no_http_is_refused(head):
    with pytest.raises(GuestProtocolError):
        parse(head)


@pytest.mark.parametrize(
    "data", [b"", b"S", b"S\0\0\0", b"S\x05\0\0\0200", b"S\xff\xff\xff\xff200 OK"]
)
def test_a_frame_that_is_cut_short_is_refused(data):
    with pytest.raises(GuestProtocolError):
        frames.parse_response(data, more=False)


def test_a_response_is_read_as_it_was_sent():
    response = parse(b"404 Not Found\nX-A: b: c \nSet-Cookie:d=\xe9", b"body\n\0")
    assert response == GuestResponse(
        404, [(b"x-a", b"b: c"), (b"set-cookie", b"d=\xe9")], b"body\n\0", more=False
    )


@pytest.mark.parametrize(("body", "more"), [(b"abc", False), (b"ab", True), (b"abcd", True)])
def test_a_body_as_long_as_declared_is_whole(body, more):
    response = parse(b"200 OK\ncontent-length:3", body, more=True)
    assert (response.more, response.length) == (more, 3)


def request(**changes) -> GuestRequest:
    values = {
        "method": "GET", "path": "/", "query": "", "protocol": "HTTP/1.1", "scheme": "http",
        "host": "h", "port": 80, "client": "c", **changes,
    }  # fmt: skip
    return GuestRequest(**values)


@given(st.sampled_from(["method", "path", "query", "host", "client"]), st.text(max_size=20))
def test_no_part_of_a_request_becomes_another(part, text):
    try:
        sent = frames.request_frame(request(**{part: text, "headers": (("a", "b"),)}))
    except BadRequest:
        assert "\n" in text
        return
    lines = sent.split(b"\n")
    assert len(lines) == 10
    assert lines[-1] == b"a:b"


def test_a_header_cannot_add_another():
    with pytest.raises(BadRequest, match="line break"):
        frames.request_frame(request(headers=(("a", "b\nc:d"),)))


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("not_found", EntrypointNotFound),
        ("syntax", AppSyntaxError),
        ("memory", MemoryLimitExceeded),
        ("app", AppFailedToStart),
        ("__class__", AppFailedToStart),
        ("", AppFailedToStart),
    ],
)
def test_why_an_app_did_not_start(kind, error):
    told = frames.boot_error(f"{kind}\nno module named 'x'\nTraceback\n  line".encode())
    assert type(told) is error
    assert told.message == "no module named 'x'"
    assert told.details == {"traceback": "Traceback\n  line"}


@given(st.binary(max_size=100))
def test_no_boot_error_surprises_us(data):
    told = frames.boot_error(data)
    assert isinstance(told, IsopodError)
    assert told.message


def test_a_boot_error_has_a_bounded_text_with_the_end_of_the_traceback():
    told = frames.boot_error(b"app\n" + b"s" * 10_000 + b"\n" + b"t" * 1_000_000 + b"END")
    assert len(told.message) == 500
    assert len(told.details["traceback"]) == 64 << 10
    assert told.details["traceback"].endswith("END")


@pytest.mark.parametrize("said", [b"", b"[]", b"1", b"\xff", b"[" * 100_000])
def test_a_report_that_is_no_object_of_json_ends_the_guest(said):
    with pytest.raises(GuestProtocolError, match="not JSON"):
        frames.parse_report(said)
    assert frames.parse_report(b'{"drawn": true}') == {"drawn": True}
