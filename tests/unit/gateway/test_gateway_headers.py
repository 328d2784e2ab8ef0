import pytest
from hypothesis import given
from hypothesis import strategies as st

from isopod.errors import BadRequest
from isopod.gateway.headers import HOP_BY_HOP, Incoming, outgoing, read_incoming

HOST = (b"host", b"a.localhost")


def read(*headers: tuple[bytes, bytes], trusted: bool = False, http2: bool = False) -> Incoming:
    return read_incoming(
        [HOST, *headers], client="9.9.9.9", scheme="http", trusted=trusted, http2=http2
    )


def read_host(host: bytes) -> Incoming:
    return read_incoming(
        [(b"host", host)], client="9.9.9.9", scheme="http", trusted=False, http2=False
    )


def passed(incoming: Incoming, name: str) -> list[str]:
    return [value for given_name, value in incoming.headers if given_name == name]


def test_hop_by_hop_headers_stay_here():
    given_headers = [(name, b"chunked") for name in HOP_BY_HOP if name != b"connection"]
    incoming = read((b"connection", b"X-One, close"), (b"connection", b"x-two"), *given_headers,
                    (b"x-one", b"1"), (b"x-two", b"2"), (b"x-three", b"3"))  # fmt: skip
    names = {name for name, _ in incoming.headers}
    assert names == {
        "host", "x-three", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host",
        "x-request-id",
    }  # fmt: skip


def test_connection_cannot_name_away_what_frames_the_message():
    incoming = read(
        (b"connection", b"host, content-length, content-type, cookie"),
        (b"content-length", b"3"),
        (b"content-type", b"text/plain"),
        (b"cookie", b"a=1"),
    )
    for name in ("host", "content-length", "content-type", "cookie"):
        assert len(passed(incoming, name)) == 1


def test_a_strangers_word_about_itself_is_dropped():
    incoming = read(
        (b"x-forwarded-for", b"1.1.1.1"), (b"x-forwarded-proto", b"https"),
        (b"x-forwarded-host", b"bank.example"), (b"forwarded", b"for=1.1.1.1"),
        (b"x-real-ip", b"1.1.1.1"), (b"x-forwarded-port", b"443"), (b"x-request-id", b"mine"),
        (b"proxy", b"evil:80"), (b"x_forwarded_for", b"1.1.1.1"), (b"x-forwarded_for", b"1.1.1.1"),
    )  # fmt: skip
    assert passed(incoming, "x-forwarded-for") == ["9.9.9.9"]
    assert passed(incoming, "x-forwarded-proto") == ["http"]
    assert passed(incoming, "x-forwarded-host") == ["a.localhost"]
    assert passed(incoming, "x-request-id") == [incoming.request_id]
    assert incoming.request_id != "mine"
    assert len(incoming.headers) == 5


def test_what_apps_are_told_by_us_is_told_by_nobody_else():
    for trusted in (False, True):
        told = read(
            (b"x-isopod-job", b"tidy"), (b"x-isopod-warmup", b"1"), (b"x-isopod-", b"1"),
            trusted=trusted,
        )  # fmt: skip
        assert not [name for name, _ in told.headers if name.startswith("x-isopod-")]
    address = (b"cf-connecting-ip", b"1.1.1.1")
    assert passed(read(address), "cf-connecting-ip") == []
    assert passed(read(address, trusted=True), "cf-connecting-ip") == ["1.1.1.1"]


def test_cookies_that_came_apart_are_one():
    incoming = read((b"cookie", b"a=1"), (b"x", b"1"), (b"cookie", b"b=2; c=3"), http2=True)
    assert passed(incoming, "cookie") == ["a=1; b=2; c=3"]
    assert passed(read((b"cookie", b"a=1")), "cookie") == ["a=1"]


@pytest.mark.parametrize(
    "codings", [(b"gzip, chunked",), (b"chunked, chunked",), (b"chunked", b"chunked"), (b"",)]
)
def test_a_body_in_another_coding_is_refused_and_not_passed_on_as_it_is(codings):
    with pytest.raises(BadRequest, match="Transfer-Encoding"):
        read(*((b"transfer-encoding", coding) for coding in codings))


def test_a_trusted_proxy_is_believed_and_added_to():
    incoming = read(
        (b"x-forwarded-for", b"1.1.1.1"), (b"x-forwarded-for", b"2.2.2.2"),
        (b"x-forwarded-proto", b"https"), (b"x-forwarded-host", b"shop.example"),
        (b"x-request-id", b"id-1"), trusted=True,
    )  # fmt: skip
    assert passed(incoming, "x-forwarded-for") == ["1.1.1.1, 2.2.2.2, 9.9.9.9"]
    assert passed(incoming, "x-forwarded-proto") == ["https"]
    assert passed(incoming, "x-forwarded-host") == ["shop.example"]
    assert incoming.request_id == "id-1"


@pytest.mark.parametrize("identity", [b"", b"a b", b"<script>", b"x" * 129, b"a\r\nb: c"])
def test_a_strange_request_id_is_replaced_even_of_a_proxy(identity):
    assert len(read((b"x-request-id", identity), trusted=True).request_id) == 16


@pytest.mark.parametrize("length", [b"-1", b"+1", b"1,1", b"0x10", b" 1", b"", b"1" * 19, b"\xb2"])
def test_a_damaged_content_length_is_refused(length):
    with pytest.raises(BadRequest, match="Content-Length"):
        read((b"content-length", length))


def test_two_lengths_or_hosts_are_refused_and_equal_ones_are_one():
    with pytest.raises(BadRequest, match="more than one Content-Length"):
        read((b"content-length", b"5"), (b"content-length", b"6"))
    with pytest.raises(BadRequest, match="more than one Host"):
        read((b"host", b"b.localhost"))
    for same in (HOST[1], b""):
        with pytest.raises(BadRequest, match="more than one Host"):
            read((b"host", same))
    assert read(HOST, http2=True).host == "a.localhost"  # `:authority`, and what it stands for
    with pytest.raises(BadRequest, match="no Host"):
        read_incoming([], client="", scheme="http", trusted=False, http2=False)
    twice = read((b"content-length", b"5"), (b"content-length", b"5"))
    assert passed(twice, "content-length") == ["5"]


@pytest.mark.parametrize(
    "host",
    [
        *(b"a.localhost:80/evil?x", b"a.localhost:abc", b"a.localhost:65536", b"a.localhost:8 0"),
        *(b"me@a.localhost", b"a.localhost#", b"a.localhost\\", b"a.localhost:80:80", b":80"),
        *(b"a localhost", b"<a>.localhost", b"[::1", b"[a.localhost]", b"a.localhost:\xb2"),
    ],
)
def test_a_host_that_would_be_something_else_in_a_url_is_refused(host):
    with pytest.raises(BadRequest, match="not a host name"):
        read_host(host)


@pytest.mark.parametrize(
    "host",
    [b"A.localhost.", b"a.localhost:", b"a.localhost:65535", b"[::1]:80", b"b\xfccher", b"a_b!$"],
)
def test_a_host_is_a_name_or_an_address_and_may_have_a_port(host):
    assert read_host(host).host == host.decode("latin-1")


def test_chunks_win_over_a_length_which_the_app_does_not_see():
    incoming = read((b"content-length", b"5"), (b"transfer-encoding", b"chunked"))
    assert incoming.content_length is None
    assert incoming.has_body
    assert passed(incoming, "content-length") == []
    assert passed(incoming, "transfer-encoding") == []


@pytest.mark.parametrize(
    ("headers", "http2", "has_body"),
    [
        ([], False, False),
        ([(b"content-length", b"0")], False, False),
        ([(b"content-length", b"1")], False, True),
        ([(b"transfer-encoding", b" Chunked")], False, True),
        ([], True, True),
        ([(b"content-length", b"0")], True, False),
    ],
)
def test_whether_a_body_comes(headers, http2, has_body):
    assert read(*headers, http2=http2).has_body is has_body


NAME = st.sampled_from([
    b"connection", b"host", b"content-length", b"transfer-encoding", b"upgrade", b"cookie",
    b"x-forwarded-for", b"x-a", b"x_a", b"te", b"accept",
])  # fmt: skip


@given(st.lists(st.tuples(NAME, st.binary(max_size=30)), max_size=12), st.booleans())
def test_no_headers_surprise_the_gateway(headers, trusted):
    try:
        incoming = read(*headers, trusted=trusted)
    except BadRequest:
        return
    names = [name for name, _ in incoming.headers]
    for ours in ("host", "x-forwarded-for", "x-forwarded-host", "x-request-id"):
        assert names.count(ours) == 1
    assert not any(name.encode() in HOP_BY_HOP or "_" in name for name in names)


def test_what_a_guest_says_of_the_connection_stays_here():
    headers = outgoing(
        [
            (b"connection", b"keep-alive, x-mine"), (b"transfer-encoding", b"chunked"),
            (b"upgrade", b"websocket"), (b"keep-alive", b"1"), (b"x-mine", b"1"),
            (b"x-request-id", b"forged"), (b"server-timing", b"db;dur=1"),
            (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2"), (b"content-length", b"3"),
        ],
        "id-1",
        "guest;dur=1",
    )  # fmt: skip
    assert headers == [
        (b"server-timing", b"db;dur=1"),
        (b"set-cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
        (b"content-length", b"3"),
        (b"x-request-id", b"id-1"),
        (b"server-timing", b"guest;dur=1"),
    ]
