"""HTTP and HTTPS from a real guest: urllib, http.client, httpx and requests, unmodified."""

import asyncio
import contextlib
import shutil
from pathlib import Path

import certifi
import httpcore
import httpx
import idna
import pip
import pytest
from tests.unit.host.certificates import Authority
from tests.unit.host.world import allow, guests, here, made_broker, server


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """httpx, and requests as pip carries it."""
    folder = tmp_path_factory.mktemp("packages")
    import anyio
    import h11

    for package in (httpx, httpcore, h11, certifi, idna, anyio):
        source = Path(package.__file__).parent
        shutil.copytree(source, folder / source.name)
    shutil.copytree(Path(pip.__file__).parent / "_vendor", folder / "pip" / "_vendor")
    shutil.copy(pip.__file__, folder / "pip")
    return folder


class Web:
    """A small HTTP/1.1 server that keeps connections."""

    def __init__(self) -> None:
        self.connections = 0
        self.redirect_to = ""

    async def __call__(self, reader, writer):
        self.connections += 1
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.split("\r\n")
            fields = {k.lower(): v.strip() for k, _, v in (one.partition(":") for one in lines)}
            body = await reader.readexactly(int(fields.get("content-length", 0)))
            path = first.split()[1]
            if path == "/redirect":
                answer = f"HTTP/1.1 302 Found\r\nlocation: {self.redirect_to}\r\n"
                writer.write(f"{answer}content-length: 0\r\n\r\n".encode())
            elif path == "/garbage":
                writer.write(b"\x00\xff not HTTP at all\r\n\r\n")
                return
            else:
                text = b"%s %d" % (path.encode(), len(body))
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(text) + text)
            await writer.drain()


def run(code, cache, folder, *, site=None, tls=None, web=None, listed="localhost"):
    """The result of `code`, with a server on PORT that is listed as `listed`."""

    async def main():
        async with contextlib.AsyncExitStack() as stack:
            port = await stack.enter_async_context(server(web or Web(), ssl=tls))
            allowed = allow(*(f"{host}:{port}" for host in listed.split()))
            names = lambda name: ["127.0.0.1"]  # noqa: E731
            broker = made_broker(
                {"app": ("default", allowed)},
                [*here(port), *(one for host in listed.split() for one in granted(host, port))],
                names,
            )
            stack.callback(broker.close)
            found = await stack.enter_async_context(guests(cache, folder, broker, site=site))
            guest = await found.start()
            try:
                return await found.run(guest, code.replace("PORT", str(port)))
            finally:
                print(b"".join(found.output).decode())
                guest.close()
                assert not found.world.open_now.by_app

    return asyncio.run(main())


def granted(host, port):
    from isopod.host.egress import PrivateGrant

    return [PrivateGrant.parse(f"{host}:{port}")]


def test_http_by_the_standard_library(prepared_cache, tmp_path):
    web = Web()
    result = run(
        """
import http.client, urllib.request
c = http.client.HTTPConnection("localhost", PORT, timeout=60)
result = []
for number in range(3):
    c.request("POST", f"/{number}", body=b"x" * 300_000)
    result.append(c.getresponse().read().decode())
result.append(urllib.request.urlopen("http://localhost:PORT/u", timeout=60).read().decode())
""",
        prepared_cache,
        tmp_path,
        web=web,
    )
    assert result == ["/0 300000", "/1 300000", "/2 300000", "/u 0"]
    assert web.connections == 2


def test_http_and_https_by_httpx_and_requests(prepared_cache, tmp_path, site, authority):
    code = f"""
import ssl
from pip._vendor import requests
import httpx
open("/tmp/ca.pem", "w").write({authority.pem!r})
result = []
with requests.Session() as session:
    session.verify = "/tmp/ca.pem"
    session.trust_env = False
    for number in range(3):
        result.append(session.post(f"https://localhost:PORT/{{number}}", data=b"y" * 200_000).text)
context = ssl.create_default_context(cafile="/tmp/ca.pem")
with httpx.Client(verify=context, trust_env=False) as client:
    for number in range(3):
        result.append(client.get(f"https://localhost:PORT/{{number}}").text)
"""
    web = Web()
    tls = authority.server(authority.issue("localhost"))
    result = run(code, prepared_cache, tmp_path, site=site, tls=tls, web=web)
    assert result == ["/0 200000", "/1 200000", "/2 200000", "/0 0", "/1 0", "/2 0"]
    assert web.connections == 2


def test_what_is_known_of_a_tls_connection(prepared_cache, tmp_path, authority):
    code = f"""
import socket, ssl
context = ssl.create_default_context(cadata={authority.pem!r})
context.set_alpn_protocols(["h2", "http/1.1"])
with socket.create_connection(("localhost", PORT), timeout=60) as raw:
    with context.wrap_socket(raw, server_hostname="localhost") as s:
        s.sendall(b"GET /hello HTTP/1.1\\r\\n\\r\\n")
        data = b""
        while not data.endswith(b"/hello 0"):
            data += s.recv(5)
        result = [s.version(), s.selected_alpn_protocol(), s.cipher()[0][:4],
                  s.getpeercert()["subjectAltName"], len(s.getpeercert(True)) > 100,
                  data.decode()[:15], s.server_hostname,
                  len(s.get_channel_binding("tls-unique") or b"") >= 0]
"""
    tls = authority.server(authority.issue("localhost"))
    result = run(code, prepared_cache, tmp_path, tls=tls)
    assert result[:2] == ["TLSv1.3", "http/1.1"]
    assert result[3] == [["DNS", "localhost"]]
    assert result[4:7] == [True, "HTTP/1.1 200 OK", "localhost"]


@pytest.mark.parametrize(
    ("certificate", "context", "reason"),
    [
        ("localhost", "create_default_context()", "unable to get local issuer certificate"),
        ("other.example", "create_default_context(cadata=CA)", "Hostname mismatch"),
        ("localhost/-5", "create_default_context(cadata=CA)", "certificate has expired"),
        ("localhost", "_create_unverified_context()", ""),
    ],
)
def test_a_wrong_certificate_is_refused_with_the_reason(
    prepared_cache, tmp_path, authority, certificate, context, reason
):
    host, _, days = certificate.partition("/")
    code = f"""
import ssl, urllib.request
CA = {authority.pem!r}
try:
    result = urllib.request.urlopen("https://localhost:PORT/", context=ssl.{context}).status
except urllib.error.URLError as error:
    cause = error.reason
    result = [type(cause).__name__, str(cause), cause.verify_code != 0, cause.verify_message]
"""
    tls = authority.server(authority.issue(host, days=int(days or 10)))
    result = run(code, prepared_cache, tmp_path, tls=tls)
    if not reason:
        assert result == 200
        return
    assert result[0] == "SSLCertVerificationError"
    assert reason in result[1]
    assert "CERTIFICATE_VERIFY_FAILED" in result[1]
    assert result[2] is True
    assert reason in result[3]


def test_a_client_shows_its_certificate(prepared_cache, tmp_path, authority):
    client = authority.issue("client.example", client=True).read_text()
    code = f"""
import ssl, urllib.request
open("/tmp/client.pem", "w").write({client!r})
context = ssl.create_default_context(cadata={authority.pem!r})
context.load_cert_chain("/tmp/client.pem")
result = [urllib.request.urlopen("https://localhost:PORT/", context=context).status]
context = ssl.create_default_context(cadata={authority.pem!r})
try:
    urllib.request.urlopen("https://localhost:PORT/", context=context).read()
except OSError as error:
    result.append("refused")
open("/tmp/client.pem", "w").write("no certificate")
try:
    context.load_cert_chain("/tmp/client.pem")
except ssl.SSLError:
    result.append("wrong")
"""
    tls = authority.server(authority.issue("localhost"), ask_clients=True)
    assert run(code, prepared_cache, tmp_path, tls=tls) == [200, "refused", "wrong"]
    assert not list(tmp_path.glob("*.pem"))


def test_tls_without_blocking_and_between_two_buffers(prepared_cache, tmp_path, authority):
    code = f"""
import select, socket, ssl
context = ssl.create_default_context(cadata={authority.pem!r})
raw = socket.create_connection(("localhost", PORT), timeout=60)
s = context.wrap_socket(raw, server_hostname="localhost", do_handshake_on_connect=False)
s.setblocking(False)
def again(call):
    for _ in range(1000):
        try:
            return call()
        except ssl.SSLWantReadError:
            select.select([s], [], [], 5)
        except ssl.SSLWantWriteError:
            select.select([], [s], [], 5)
again(s.do_handshake)
body = b"z" * 3_000_000
sent = memoryview(b"POST /big HTTP/1.1\\r\\ncontent-length: %d\\r\\n\\r\\n" % len(body) + body)
while sent:
    sent = sent[again(lambda: s.send(sent)):]
result = [again(lambda: s.recv(1000)).decode().split()[-2:]]
s.close()

incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
t = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
with socket.create_connection(("localhost", PORT), timeout=60) as raw:
    def step(call):
        while True:
            try:
                return call()
            except ssl.SSLWantReadError:
                raw.sendall(outgoing.read())
                incoming.write(raw.recv(65536))
    step(t.do_handshake)
    t.write(b"GET /bio HTTP/1.1\\r\\n\\r\\n")
    raw.sendall(outgoing.read())
    result.append(step(lambda: t.read(1000)).decode().split()[-2:])
"""
    tls = authority.server(authority.issue("localhost"))
    result = run(code, prepared_cache, tmp_path, tls=tls)
    assert result == [["/big", "3000000"], ["/bio", "0"]]


def test_a_redirect_to_a_private_address_is_a_new_connection_and_refused(
    prepared_cache, tmp_path, site
):
    web = Web()
    code = """
from pip._vendor import requests
result = []
for url in TARGETS:
    try:
        session = requests.Session()
        session.trust_env = False
        session.get("http://api.example.com:PORT/redirect", timeout=60)
    except requests.RequestException as error:
        result.append(str(error))
"""
    for target in ("http://169.254.169.254/", "http://127.0.0.1:1/", "http://metadata.internal/"):
        web.redirect_to = target
        result = run(
            code.replace("TARGETS", "[1]"),
            prepared_cache,
            tmp_path,
            site=site,
            web=web,
            listed="api.example.com",
        )
        assert "may not connect to" in result[0]


def test_what_is_not_tls_or_not_http_is_an_error(prepared_cache, tmp_path, authority):
    code = f"""
import http.client, ssl
result = []
context = ssl.create_default_context(cadata={authority.pem!r})
for made in (http.client.HTTPSConnection("localhost", PORT, timeout=60, context=context),
             http.client.HTTPConnection("localhost", PORT, timeout=60)):
    try:
        made.request("GET", "/garbage")
        made.getresponse()
    except Exception as error:
        result.append(type(error).__name__)
"""

    async def garbage(reader, writer):
        writer.write(b"\x00\xff this is neither of the two\r\n\r\n")
        await reader.read()

    result = run(code, prepared_cache, tmp_path, web=garbage)
    assert result == ["SSLError", "BadStatusLine"]


def test_a_context_that_the_host_does_not_know_any_more_is_described_again(
    prepared_cache, tmp_path, authority
):
    code = f"""
import ssl, urllib.request
context = ssl.create_default_context(cadata={authority.pem!r})
context._digest = "0" * 64  # as in an instance that was restored from an image
result = urllib.request.urlopen("https://localhost:PORT/", context=context).status
"""
    tls = authority.server(authority.issue("localhost"))
    assert run(code, prepared_cache, tmp_path, tls=tls) == 200
