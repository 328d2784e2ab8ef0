"""What a program is told of a request, and what is made of what it writes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isopod.errors import BadRequest, GuestProtocolError, IsopodError
from isopod.runtimes.guest import GuestRequest
from isopod.runtimes.wasi.cgi import check_ended, environment, head_end, parse_head


def request(**more) -> GuestRequest:
    known = {
        "method": "POST",
        "path": "/a%20b/%C3%A4",
        "query": "x=1&y=%26",
        "protocol": "HTTP/1.1",
        "scheme": "https",
        "host": "shop.example.com:8443",
        "port": 8443,
        "client": "192.0.2.7",
    }
    return GuestRequest(**{**known, **more})


def test_a_request_is_rfc_3875s_variables_and_none_of_its_headers_is_another():
    headers = (
        ("content-type", "text/plain"), ("content-length", "5"), ("accept", "a"), ("accept", "b"),
        ("cookie", "a=1"), ("cookie", "b=2"), ("proxy", "http://evil"), ("x_y", "no"),
        ("x.y", "no"), ("x-request-id", "r1"), ("authorization", "Bearer t"),
        ("x-name", "J\u00c3\u00bcrgen"), ("x-latin", "J\u00fcrgen"),  # bytes, as latin-1
    )  # fmt: skip
    own = {"OWN": "1", "PATH_INFO": "no"}
    assert environment(request(headers=headers, has_body=True), own) == {
        "OWN": "1",
        "GATEWAY_INTERFACE": "CGI/1.1",
        "SERVER_SOFTWARE": "isopod",
        "SERVER_NAME": "shop.example.com",
        "SERVER_PORT": "8443",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REQUEST_METHOD": "POST",
        "REQUEST_SCHEME": "https",
        "REQUEST_URI": "/a%20b/%C3%A4?x=1&y=%26",
        "HTTPS": "on",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/a b/ä",
        "QUERY_STRING": "x=1&y=%26",
        "REMOTE_ADDR": "192.0.2.7",
        "REMOTE_HOST": "192.0.2.7",
        "CONTENT_TYPE": "text/plain",
        "CONTENT_LENGTH": "5",
        "HTTP_ACCEPT": "a, b",
        "HTTP_COOKIE": "a=1; b=2",
        "HTTP_X_REQUEST_ID": "r1",
        "HTTP_AUTHORIZATION": "Bearer t",
        "HTTP_X_NAME": "Jürgen",
        "HTTP_X_LATIN": "J\ufffdrgen",
    }


def test_every_variable_of_rfc_3875_is_there_or_left_out_on_purpose():
    found = environment(request(host="[2001:db8::1]:80", port=80, protocol="HTTP/2"), {})
    assert (found["SERVER_NAME"], found["SERVER_PROTOCOL"]) == ("[2001:db8::1]", "HTTP/2.0")
    left_out = {"AUTH_TYPE", "PATH_TRANSLATED", "REMOTE_IDENT", "REMOTE_USER"}
    of_a_body = {"CONTENT_LENGTH", "CONTENT_TYPE"}
    assert not (left_out | of_a_body | {"HTTP_PROXY"}) & set(found)


def test_a_nul_in_a_path_is_a_bad_request():
    with pytest.raises(BadRequest, match="NUL"):
        environment(request(path="/a%00b"), {})


@pytest.mark.parametrize(
    ("written", "status", "headers", "body"),
    [
        (b"A: b\n\nbody", 200, [(b"a", b"b")], b"body"),
        (b"A: b\r\n\r\n\r\nx", 200, [(b"a", b"b")], b"\r\nx"),
        (b"Status: 404 Not Found\nA:b\n\n", 404, [(b"a", b"b")], b""),
        (b"Location: /x\n\n", 302, [(b"location", b"/x")], b""),
        (b"Location: /x\nStatus: 201\n\n", 201, [(b"location", b"/x")], b""),
    ],
)
def test_a_response_is_headers_an_empty_line_and_the_body(written, status, headers, body):
    end = head_end(written)
    made = parse_head(written[:end], written[end:], more=False)
    assert (made.status, made.headers, made.body) == (status, headers, body)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (b"", "without a response"),
        (b"<html>\n\n", "'<html>' where a header belongs"),
        (b"\nA: b\n\n", "empty line before any header"),
        (b"A: b\nB", "middle of its headers"),
        (b"A: b\n", "middle of its headers"),
        (b"A: b\0c\n\n", "control byte"),
        (b"A: b\n c\n\n", "where a header belongs"),
        (b"\x80\xff\x00", "where a header belongs"),
        (b"Status: abc\n\n", "the status 'abc'"),
        (b"Status: 200\nstatus: 201\n\n", "Status twice"),
        (b"Status: 100\n\n", "interim status"),
        (b"Content-Length: 1\nContent-Length: 2\n\n", "not one number"),
        (b"A: b\n" * 300 + b"\n", "300 headers"),
        (b"A: b\n" * 20_000, "without an end of its headers"),
    ],
)
def test_what_is_no_response_is_said_in_the_programs_own_words(written, message):
    with pytest.raises(GuestProtocolError, match=message):
        end = head_end(written)
        if not end:
            check_ended(written)
        parse_head(written[:end], written[end:], more=False)


@given(st.binary(max_size=200).map(lambda tail: b"A: b\n" + tail), st.integers(1, 7))
def test_a_head_that_comes_in_pieces_ends_where_it_does_as_a_whole(written, step):
    def end_of(pieces):
        seen, end = bytearray(), 0
        for piece in pieces:
            before = len(seen)
            seen += piece
            end = end or head_end(seen, before)
        return end

    pieces = [written[at : at + step] for at in range(0, len(written), step)]
    assert end_of(pieces) == end_of([written])


@given(st.binary(max_size=200))
def test_whatever_is_written_is_a_response_or_an_error_of_ours(written):
    try:
        end = head_end(written)
        if not end:
            check_ended(written)
        made = parse_head(written[:end], written[end:], more=False)
    except IsopodError:
        return
    assert 200 <= made.status <= 599
    assert written.endswith(made.body)
