"""What reaches an app and what it gives back: the issue's "must show" 4."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections import Counter

from tests.e2e.nodes import get, log, messages, text, until
from tests.e2e.wire import wire

from tools.http_calls import Caller

MIB = 1 << 20
BLOCK = bytes(range(256)) * 1024
# The issue asks for 30 s: ISOPOD_E2E_LOAD_S=30.
LOAD_S = float(os.environ.get("ISOPOD_E2E_LOAD_S", "5"))
CLIENTS = 200


def test_wsgiref_validate_reports_nothing(node, validated):
    with Caller(node.gateway_port, validated) as caller:
        assert caller.call("/").text == "hello\n"
        assert caller.call("/echo?a=1", "HEAD").status == 200
        for method in ("POST", "PUT", "PATCH"):
            posted = caller.call("/echo", method, b"x" * 100_000)
            assert posted.json()["length"] == 100_000
        for method in ("DELETE", "OPTIONS"):
            assert caller.call("/echo", method).json()["method"] == method
        assert caller.call("/upload", "POST", BLOCK * 4).status == 200
        assert b"".join(caller.pieces("/stream")) == b"".join(
            b"piece %d\n" % number for number in range(5)
        )
        assert caller.call("/write").text == "written first, then returned"
        assert caller.call("/download?1").body == BLOCK * 4
        assert caller.call("/empty").status == 204
        assert caller.call("/say").text == "said"
    said = [line for line in log(node, validated) if line["stream"] in ("stderr", "isopod")]
    assert [line["message"] for line in said] == ["said on stderr", "said on wsgi.errors"]


def test_streamed_pieces_arrive_as_they_are_made(caller):
    def apart(path: str, expected: int) -> bool:
        times = [time.monotonic() for _ in caller.iter_pieces(path)]
        assert len(times) >= expected, times
        # The app sleeps 0.1 s between pieces: the first was here before the last was made.
        return times[-1] - times[0] > 0.08

    for path, expected in (("/stream", 5), ("/write", 2)):
        # This process may have been asleep meanwhile, and found them all together.
        until("they come apart", lambda path=path, expected=expected: apart(path, expected))


def test_10_mib_upload_has_the_right_sha256(caller):
    body = os.urandom(10 * MIB)
    expected = f"{len(body)} {hashlib.sha256(body).hexdigest()}"
    assert caller.call("/upload", "POST", body).text == expected


def test_chunked_upload_has_the_right_sha256(node, kitchen):
    body = os.urandom(3 * MIB + 17)
    with wire(node, kitchen) as line:
        line.send("POST /upload HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n")
        for start in range(0, len(body), 70_001):
            piece = body[start : start + 70_001]
            line.send(b"%x\r\n%s\r\n" % (len(piece), piece))
        line.send("0\r\n\r\n")
        answer = line.response()
    assert answer.body.decode() == f"{len(body)} {hashlib.sha256(body).hexdigest()}"


def test_50_mib_download_has_the_right_sha256(caller):
    seen, size = hashlib.sha256(), 0
    for piece in caller.iter_pieces("/download?50"):
        seen.update(piece)
        size += len(piece)
    assert size == 50 * MIB
    assert seen.hexdigest() == hashlib.sha256(BLOCK * 200).hexdigest()


def test_output_is_in_the_log_with_the_request_s_id(node, kitchen, caller):
    answer = caller.call("/say")
    request_id = answer["X-Request-Id"]

    def lines() -> list[tuple[str, str]]:
        return [
            (line["stream"], line["message"])
            for line in log(node, kitchen)
            if line["request_id"] == request_id
        ]

    assert sorted(until("three lines", lambda: len(lines()) == 3 and lines())) == [
        ("stderr", "said on stderr"),
        ("stderr", "said on wsgi.errors"),
        ("stdout", "said on stdout"),
    ]


def test_the_environ_holds_what_was_asked(node, kitchen):
    with wire(node, kitchen) as line:
        line.send(
            "GET /a%20b/%C3%BC?x=%20&y HTTP/1.1\r\nHost: HOST\r\nCookie: a=1\r\nCookie: b=2\r\n\r\n"
        )
        import json

        found = json.loads(line.response().body)
    assert found["path"].encode("latin-1").decode() == "/a b/ü"
    assert found["query"] == "x=%20&y"
    assert found["headers"]["HTTP_COOKIE"] == "a=1; b=2"
    assert found["client"] == "127.0.0.1" and found["scheme"] == "http"


async def _client(port: int, host: str, end: float, seen: Counter[str]) -> None:
    """One keep-alive connection that asks until the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    question = f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    try:
        while time.monotonic() < end:
            writer.write(question)
            head = await reader.readuntil(b"\r\n\r\n")
            fields = head.lower().split(b"content-length: ")
            length = int(fields[1].split(b"\r\n")[0]) if len(fields) == 2 else -1
            body = await (reader.readexactly(length) if length >= 0 else _chunked(reader))
            seen[f"{head.split(b' ', 2)[1].decode()} {body.decode().strip()}"] += 1
    finally:
        writer.close()


async def _chunked(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return body


def test_200_concurrent_clients_see_no_error(node, kitchen):
    text(node, kitchen)
    seen: Counter[str] = Counter()
    host = f"{kitchen}.localhost:{node.gateway_port}"

    async def load() -> None:
        end = time.monotonic() + LOAD_S
        await asyncio.gather(*(_client(node.gateway_port, host, end, seen) for _ in range(CLIENTS)))

    asyncio.run(load())
    print(f"SEEN 200 clients for {LOAD_S} s: {dict(seen)}")
    assert set(seen) == {"200 hello"}
    assert seen["200 hello"] > CLIENTS


def test_a_client_that_hangs_up_cancels_the_guest(node, kitchen):
    with wire(node, kitchen) as line:
        line.send("GET /endless HTTP/1.1\r\nHost: HOST\r\n\r\n")
        got = b""
        while b"more" not in got:  # the head may come by itself
            got += line.link.recv(1 << 16)
    until(
        "no busy instance",
        lambda: all(i["state"] != "busy" for i in node.instances() if i["app"] == kitchen),
    )
    assert "the endless stream was closed" in messages(node, kitchen)
    with wire(node, kitchen) as line:  # one that has sent nothing yet
        line.send("GET /sleep?60 HTTP/1.1\r\nHost: HOST\r\n\r\n")
        until(
            "it sleeps",
            lambda: any(i["state"] == "busy" for i in node.instances() if i["app"] == kitchen),
        )
    until(
        "no busy instance",
        lambda: all(i["state"] != "busy" for i in node.instances() if i["app"] == kitchen),
    )
    assert get(node, kitchen).text == "hello\n"
