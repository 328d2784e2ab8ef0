"""fetch() in real guests, before real servers of the test's own, through a broker."""

import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import h11
import pytest
from tests.unit.host.certificates import Authority
from tests.unit.host.world import allow, closed_port, here, made_broker, server
from tests.unit.runtimes.apps import App
from tests.unit.runtimes.workers import Workshop, worker

from isopod.errors import GuestProtocolError
from isopod.host.capabilities import World
from isopod.runtimes.javascript import fetching

ASK = worker(
    """
    try {
      const { url, init, read } = await request.json();
      const response = await fetch(url, init);
      const text = read === "status" ? "" : await response.text();
      return Response.json({ status: response.status, url: response.url, text,
                             kind: response.headers.get("content-type") });
    } catch (error) { return Response.json({ error: `${error.name}: ${error.message}` }); }
    """
)
BIG = 3_000_000


@pytest.fixture(scope="module")
def shop(prepared_javascript: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    with Workshop(prepared_javascript, tmp_path_factory.mktemp("fetch")) as made:
        yield made


async def serve(reader, writer):
    """Says what it was asked; some paths are special."""
    link = h11.Connection(h11.SERVER)
    request, body = None, b""
    while True:
        event = link.next_event()
        if event is h11.NEED_DATA:
            link.receive_data(await reader.read(65536))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        else:
            break
    path = request.target.decode()
    status, headers, answer = 200, [("content-type", "application/json")], b""
    if path.startswith("/to/"):
        status, headers = int(path[4:7]), [("location", path[7:] or "/")]
    elif path == "/loop":
        status, headers = 301, [("location", "/loop")]
    elif path == "/big":
        answer = b"x" * BIG
    elif path == "/garbage":
        writer.write(b"SSH-2.0-server\r\n\r\n")
        return
    elif path == "/half":
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
        return
    elif path == "/headers":
        writer.write(b"HTTP/1.1 200 OK\r\n" + b"x-y: z\r\n" * 50_000)
        return
    elif path == "/never":
        await reader.read()
        return
    else:
        said = {name.decode(): value.decode() for name, value in request.headers}
        answer = json.dumps(
            {"method": request.method.decode(), "path": path, "headers": said,
             "body": len(body), "begins": body[:20].decode()}
        ).encode()  # fmt: skip
    headers.append(("content-length", str(len(answer))))
    writer.write(link.send(h11.Response(status_code=status, headers=headers)))
    writer.write(link.send(h11.Data(answer)) + link.send(h11.EndOfMessage()))
    await writer.drain()


@contextlib.asynccontextmanager
async def reaching(shop: Workshop, *ports: int, extra: str = "") -> AsyncIterator[App]:
    """An app that may reach these ports of localhost."""
    listed = allow(*(f"localhost:{port}" for port in ports))
    broker = made_broker({"app": ("default", listed)}, here(*ports))
    world = World.make(broker, trust="", extra=extra, key_folder=shop.folder)
    made = shop.new(ASK, world=world, app="app")
    await made.guest.start()
    try:
        yield made
    finally:
        made.guest.close()
        assert not world.open_now.by_app
        world.close()


async def ask(app: App, url: str, read: str = "", **init: object) -> dict[str, object]:
    body = json.dumps({"url": url, "init": init, "read": read}).encode()
    return dict(json.loads((await app.ask("/", method="POST", body=body))[2]))


def test_requests_bodies_and_redirects(shop):
    async def main() -> None:
        async with server(serve) as port, reaching(shop, port) as app:
            base = f"http://localhost:{port}"
            got = await ask(app, f"{base}/a?b=%20", headers={"X-One": "1", "Host": "evil"})
            said = json.loads(str(got["text"]))
            assert (got["status"], said["method"], said["path"]) == (200, "GET", "/a?b=%20")
            assert said["headers"]["x-one"] == "1"
            assert said["headers"]["host"] == f"localhost:{port}"
            got = await ask(app, f"{base}/", method="POST", body="ä" * 100_000)
            said = json.loads(str(got["text"]))
            assert (said["body"], said["begins"]) == (200_000, "ä" * 10)
            assert said["headers"]["content-length"] == "200000"
            assert len(str((await ask(app, f"{base}/big"))["text"])) == BIG
            got = await ask(app, f"{base}/to/302/end", method="POST", body="x")
            said = json.loads(str(got["text"]))
            assert (got["url"], said["method"], said["body"]) == (f"{base}/end", "GET", 0)
            got = await ask(app, f"{base}/to/307/end", method="POST", body="x")
            assert json.loads(str(got["text"]))["method"] == "POST"
            got = await ask(app, f"{base}/to/302/end", "status", redirect="manual")
            assert got["status"] == 302
            assert app.guest.sent_bytes > 200_000

    shop.run(main())


def test_tls_is_verified(shop, tmp_path):
    authority = Authority(tmp_path)
    context = authority.server(authority.issue("localhost"))

    async def main() -> None:
        async with server(serve, ssl=context) as port:
            url = f"https://localhost:{port}/"
            async with reaching(shop, port, extra=authority.pem) as app:
                assert (await ask(app, url))["status"] == 200
            async with reaching(shop, port) as app:
                assert "TLS failed" in str((await ask(app, url))["error"])

    shop.run(main())


def test_what_fails_is_a_type_error_and_nothing_is_reached_by_default(shop):
    async def main() -> None:
        async with server(serve) as port, server(serve) as other:
            with closed_port() as closed:
                async with reaching(shop, port, closed) as app:
                    base = f"http://localhost:{port}"
                    for url, why in (
                        (f"http://localhost:{other}/", "isopod"),
                        (f"http://localhost:{closed}/", "fetch failed"),
                        (f"{base}/garbage", "HTTP failed"),
                        (f"{base}/half", "HTTP failed"),
                        (f"{base}/headers", "HTTP failed"),
                        (f"{base}/loop", "too many redirects"),
                        (f"{base}/to/302ftp://x/", "does not know ftp:"),
                        ("file:///etc/passwd", "does not know file:"),
                    ):
                        got = await ask(app, url)
                        assert "TypeError" in str(got.get("error")), (url, got)
                        assert why in str(got["error"]), (url, got)
                    assert (await ask(app, f"{base}/after"))["status"] == 200

    shop.run(main())


def test_an_abort_ends_the_connection(shop):
    source = worker(
        """
        const { url } = await request.json();
        try { await fetch(url, { signal: AbortSignal.timeout(30) }); return new Response("done") }
        catch (error) { return new Response(error.name) }
        """
    )

    async def main() -> None:
        async with server(serve) as port:
            listed = allow(f"localhost:{port}")
            broker = made_broker({"app": ("default", listed)}, here(port))
            world = World.make(broker, trust="", extra="", key_folder=shop.folder)
            app = shop.new(source, world=world, app="app")
            await app.guest.start()
            body = json.dumps({"url": f"http://localhost:{port}/never"}).encode()
            assert (await app.ask("/", method="POST", body=body))[2] == b"TimeoutError"
            assert not world.open_now.by_app
            app.guest.close()
            world.close()

    shop.run(main())


def test_an_app_that_is_built_has_no_network(shop):
    app = shop.start(ASK)
    answer = app.call(body=json.dumps({"url": "http://localhost/"}).encode())[2]
    assert "no network while the app is deployed" in json.loads(answer)["error"]


@pytest.mark.parametrize(
    "head",
    [
        b"GET",
        b"GET\nhttp\nlocalhost\n0\n/\n",
        b"GET\nhttp\nlocalhost\n80000\n/\n",
        b"GET\ngopher\nlocalhost\n80\n/\n",
        b"GET\nhttp\nlocal host\n80\n/\n",
        b"GET\nhttp\nlocalhost\n80\n/\n\nno colon",
        b"GET\nhttp\nlocalhost\n80\n/\n\n" + b"a:b\n" * 20_000,
    ],
)
def test_heads_that_no_fetch_of_ours_sends_are_refused(head):
    with pytest.raises(GuestProtocolError):
        fetching.parse(head)
