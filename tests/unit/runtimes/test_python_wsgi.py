"""PEP 3333 through one real CPython guest, which must still serve when all is done."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from isopod.engine.scheduler import Scheduler
from isopod.errors import GuestFailed, GuestProtocolError, IsopodError
from isopod.runtimes.guest import GuestRequest
from isopod.runtimes.python.runtime import PythonRuntime
from isopod.runtimes.python.serve import PythonGuest

APP = Path(__file__).parents[2] / "guests" / "wsgi"


@dataclass
class Answer:
    status: int
    headers: list[tuple[bytes, bytes]]
    pieces: list[bytes]
    error: IsopodError | None = None

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)


@dataclass
class Site:
    """Boots a guest when there is none; an error of ours about it ends it."""

    runner: asyncio.Runner
    runtime: PythonRuntime
    scheduler: Scheduler
    tmp: Path
    guest: PythonGuest | None = None
    boots: int = 0
    output: list[tuple[str, bytes]] = field(default_factory=list)

    def ask(self, path="/environ", *, body: list[bytes] | None = None, **changes) -> Answer:
        return self.runner.run(self._ask(path, body, changes))

    async def _ask(self, path: str, body: list[bytes] | None, changes: dict) -> Answer:
        guest = await self.ready()
        path, _, query = path.partition("?")
        pieces = list(body or [])

        async def read(size: int) -> bytes:
            if not pieces:
                return b""
            data, pieces[0] = pieces[0][:size], pieces[0][size:]
            if not pieces[0]:
                pieces.pop(0)
            return data

        values = {
            "method": "GET", "path": path, "query": query, "protocol": "HTTP/1.1",
            "scheme": "http", "host": "shop.localhost", "port": 8080, "client": "9.9.9.9",
            "has_body": body is not None, **changes,
        }  # fmt: skip
        answer = Answer(0, [], [])
        try:
            async with asyncio.timeout(60):
                response = await guest.send(GuestRequest(**values), read)
                answer = Answer(response.status, response.headers, [response.body])
                if response.more:
                    while (piece := await guest.next_chunk()) is not None:
                        answer.pieces.append(piece)
                await guest.finish()
        except IsopodError as error:
            answer.error = error
        return answer

    async def ready(self) -> PythonGuest:
        if self.guest is not None and not self.guest.idle:
            self.guest.close()
            self.guest = None
        if self.guest is None:
            self.boots += 1
            self.guest = self.runtime.new_guest(
                scheduler=self.scheduler,
                app_tree=APP,
                site_tree=self.tmp / "site",
                tmp=self.tmp / "tmp",
                entrypoint="app:app",
                env={"GREETING": "hello"},
                memory_mib=128,
                disk_mib=64,
                output=lambda stream, data: self.output.append((stream, data)),
            )
            await self.guest.start()
        return self.guest

    def printed(self) -> str:
        said = b"".join(data for _, data in self.output).decode()
        self.output.clear()
        return said


@pytest.fixture(scope="module")
def site(prepared_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    tmp = tmp_path_factory.mktemp("guest")
    (tmp / "site").mkdir()
    (tmp / "tmp").mkdir()
    runtime = PythonRuntime(prepared_cache)
    with asyncio.Runner() as runner:

        async def open_scheduler() -> Scheduler:
            return await Scheduler(runtime.linkage.engine).__aenter__()

        scheduler = runner.run(open_scheduler())
        site = Site(runner, runtime, scheduler, tmp)
        yield site
        if site.guest is not None:
            site.guest.close()
        runner.run(scheduler.__aexit__(None, None, None))
        # Wrong apps cost requests, and only lies about HTTP cost instances.
        assert site.boots <= 9


def environ(site: Site, path: str = "/environ", **changes) -> dict[str, str]:
    return json.loads(site.ask(path, **changes).body)


def test_the_environ_is_as_the_pep_wants_it(site):
    found = environ(site, "/environ/x?a=%20b&c")
    expected = {
        "REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": "/environ/x",
        "QUERY_STRING": "a=%20b&c", "SERVER_NAME": "shop.localhost", "SERVER_PORT": "8080",
        "SERVER_PROTOCOL": "HTTP/1.1", "REMOTE_ADDR": "9.9.9.9", "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http", "wsgi.multithread": False, "wsgi.multiprocess": True,
        "wsgi.run_once": False, "wsgi.input_terminated": True,
    }  # fmt: skip
    assert {key: found[key] for key in expected} == {k: repr(v) for k, v in expected.items()}
    assert set(found) == {*expected, "wsgi.input", "wsgi.errors"}


@pytest.mark.parametrize(
    ("path", "info"),
    [
        ("/environ/a%2Fb%20c", "/environ/a/b c"),
        ("/environ/%C3%BC", "/environ/Ã¼"),  # bytes as latin-1, as the pep wants
        ("/environ/\xfc", "/environ/\xfc"),
        ("/environ/%zz%", "/environ/%zz%"),
        ("/environ/%0a%00", "/environ/\n\0"),
        ("/environ/a+b", "/environ/a+b"),
        ("*", "*"),
    ],
)
def test_paths_are_decoded_once(site, path, info):
    assert environ(site, path)["PATH_INFO"] == repr(info)


def test_headers_become_variables_and_doubles_are_joined(site):
    found = environ(
        site,
        headers=(
            ("content-type", "text/a"), ("content-length", "3"), ("x-one", "1"), ("x-one", "2"),
            ("cookie", "a=1"), ("cookie", "b=2"), ("x-latin", "\xe9"), ("x-colon", "a:b: c"),
            ("x-empty", ""),
        ),
    )  # fmt: skip
    expected = {
        "CONTENT_TYPE": "text/a", "CONTENT_LENGTH": "3", "HTTP_X_ONE": "1,2",
        "HTTP_COOKIE": "a=1; b=2", "HTTP_X_LATIN": "\xe9", "HTTP_X_COLON": "a:b: c",
        "HTTP_X_EMPTY": "",
    }  # fmt: skip
    assert {key: found[key] for key in expected} == {k: repr(v) for k, v in expected.items()}
    assert "HTTP_X_ONE" not in environ(site)


BODY = [b"ab\nc", b"d\n", b"\nlast"]


@pytest.mark.parametrize(
    ("how", "result"),
    [
        ("all", b"ab\ncd\n\nlast"),
        ("some", [b"ab\n", b"cd\n", b""]),
        ("line", [b"ab\n", b"cd", b"\n"]),
        ("lines", [b"ab\n", b"cd\n", b"\n", b"last"]),
        ("hint", [b"ab\n"]),
        ("iterate", [b"ab\n", b"cd\n", b"\n", b"last"]),
        ("after", [b"ab\ncd\n\nlast", b"", b"", []]),
        ("nothing", None),
        ("close", None),
    ],
)
def test_a_body_is_read_like_a_file(site, how, result):
    assert site.ask(f"/read?{how}", method="POST", body=BODY).body == repr(result).encode()


@pytest.mark.parametrize("how", ["all", "close"])
def test_a_request_without_a_body_reads_none_even_after_an_app_closed_it(site, how):
    assert site.ask(f"/read?{how}").error is None
    assert site.ask("/read?all").body == b"b''"


def test_a_large_body_arrives_whole(site):
    pieces = [bytes([n]) * 700_000 for n in range(6)]
    assert site.ask("/read?length", method="POST", body=pieces).body == b"4200000"


def test_what_is_written_is_sent_before_what_is_returned(site):
    assert site.ask("/write").pieces == [b"a", b"b", b"c"]
    answer = site.ask("/write_only")
    assert len(answer.body) == 600_000
    assert max(map(len, answer.pieces)) <= 256 << 10


def test_start_response_twice_is_an_error_but_not_with_exc_info(site):
    answer = site.ask("/twice")
    assert isinstance(answer.error, GuestFailed)
    assert "start_response was called twice" in site.printed()
    answer = site.ask("/replaced")
    assert (answer.status, answer.body) == (500, b"handled")
    assert answer.headers == [(b"content-type", b"text/plain")]


def test_exc_info_after_the_first_byte_is_raised_again(site):
    answer = site.ask("/too_late")
    assert (answer.status, answer.pieces) == (200, [b"begun"])
    assert answer.error.details["streaming"] is True
    assert "after the first byte" in site.printed()


def state(site: Site) -> dict:
    return json.loads(site.ask("/state").body)


def test_pieces_are_made_when_they_are_asked_for_and_the_iterable_is_closed(site):
    async def first_pieces() -> None:
        guest = await site.ready()
        request = GuestRequest(
            method="GET", path="/lazy", query="", protocol="HTTP/1.1", scheme="http", host="h",
            port=1, client="c",
        )  # fmt: skip

        async def no_body(_size: int) -> bytes:
            return b""

        response = await guest.send(request, no_body)
        assert (response.body, response.more) == (b"one", True)
        assert await guest.next_chunk() == b"two"
        guest.abandon()  # the client goes away: no third piece is made, and close is called
        assert await guest.next_chunk() is None
        assert guest.idle

    before = state(site)
    site.runner.run(first_pieces())
    after = state(site)
    assert after["made"][len(before["made"]) :] == ["one", "", "two"]
    assert len(after["closed"]) == len(before["closed"]) + 1


@pytest.mark.parametrize(
    ("path", "pieces"), [("/breaks", [b"one"]), ("/breaks_at_once", []), ("/empty", [b""])]
)
def test_an_iterable_is_closed_however_it_ends(site, path, pieces):
    before = len(state(site)["closed"])
    assert site.ask(path).pieces == pieces
    assert len(state(site)["closed"]) == before + 1


def test_start_response_may_be_called_by_a_generator(site):
    answer = site.ask("/late_start")
    assert (answer.status, answer.body) == (202, b"late")


def test_headers_keep_their_order_and_doubles(site):
    answer = site.ask("/many")
    assert answer.body == b"abcd"
    assert [v for n, v in answer.headers if n == b"set-cookie"] == [b"a=1", b"b=2"]
    assert site.ask("/latin").headers == [(b"x-name", b"caf\xe9")]
    assert site.ask("/iterator").headers == [(b"x-a", b"1")]


def test_a_large_body_of_one_piece_is_sent_in_several(site):
    answer = site.ask("/large")
    assert answer.body == bytes(range(256)) * 4096
    assert len(answer.pieces) == 4


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("status_int", "the status must be a str, not int"),
        ("status_break", "the status holds a line break"),
        ("header_int", "name and value must be str"),
        ("header_break", "holds a line break"),
        ("header_lone_cr", "holds a line break"),
        ("name_break", "holds a line break"),
        ("not_latin", "UnicodeEncodeError"),
        ("no_start", "before it called start_response"),
        ("body_str", "the body must be bytes, not str"),
        ("body_int", "the body must be bytes, not int"),
        ("body_none", "'NoneType' object is not iterable"),
    ],
)
def test_a_rule_that_an_app_breaks_is_named_in_its_log(site, how, said):
    boots = site.boots
    site.printed()
    answer = site.ask(f"/wrong?{how}")
    assert isinstance(answer.error, GuestFailed)
    assert answer.status == 0
    assert said in site.printed()
    assert site.ask("/write").status == 200
    assert site.boots == boots


@pytest.mark.parametrize("how", ["status_none", "name_space", "nul", "interim", "length"])
def test_what_is_no_http_never_leaves(site, how):
    answer = site.ask(f"/wrong?{how}")
    assert isinstance(answer.error, GuestProtocolError)
    assert answer.status == 0


def test_output_goes_to_the_log_with_its_stream(site):
    site.output.clear()
    site.ask("/prints")
    by_stream = {"stdout": b"", "stderr": b""}
    for stream, data in site.output:
        by_stream[stream] += data
    assert by_stream == {"stdout": b"to stdout\nno end", "stderr": b"to stderr\nto errors\n"}


def test_much_output_comes_in_pieces_of_which_none_holds_the_loop(site):
    site.output.clear()
    assert site.ask("/shouts").status == 200
    assert max(len(data) for _, data in site.output) <= 32 << 10
    assert len(site.printed()) == 300_100


@pytest.mark.parametrize(
    ("path", "summary"),
    [("/raises", "LookupError: no such thing second line"), ("/leaves", "SystemExit: 4")],
)
def test_an_app_that_raises_has_its_traceback_logged_and_serves_on(site, path, summary):
    boots = site.boots
    site.printed()
    answer = site.ask(path)
    assert answer.error.details["summary"] == summary
    assert "Traceback (most recent call last)" in site.printed()
    assert site.ask("/write").status == 200
    assert site.boots == boots


def test_a_guest_reaches_nothing_of_the_host_but_its_own_folders(site, monkeypatch):
    found = json.loads(site.ask("/reach").body)
    assert found["environ"] == {
        "GREETING": "hello", "HOME": "/tmp", "PYTHONTZPATH": "", "TMPDIR": "/tmp",
    }  # fmt: skip
    assert found["/tmp/x"] == "written"
    written = {path for path, what in found.items() if what == "written"}
    assert written == {"/tmp/x"}
    assert "read" not in found.values()
    assert (site.tmp / "tmp" / "x").read_text() == "x"


def test_a_client_that_fails_ends_the_request_not_the_process(site):
    async def fails() -> None:
        guest = await site.ready()

        async def broken(_size: int) -> bytes:
            raise ConnectionError("the server's own error")

        request = GuestRequest(
            method="POST", path="/read", query="all", protocol="HTTP/1.1", scheme="http",
            host="h", port=1, client="c", has_body=True,
        )  # fmt: skip
        async with asyncio.timeout(60):
            with pytest.raises(IsopodError, match="could not be read"):
                await guest.send(request, broken)

    site.runner.run(fails())


def test_a_guest_closed_in_the_middle_of_a_stream_has_not_ended_it(site):
    async def closed() -> None:
        guest = await site.ready()

        async def no_body(_size: int) -> bytes:
            return b""

        request = GuestRequest(
            method="GET", path="/lazy", query="", protocol="HTTP/1.1", scheme="http", host="h",
            port=1, client="c",
        )  # fmt: skip
        assert (await guest.send(request, no_body)).more
        guest.close()
        with pytest.raises(GuestFailed, match="was ended"):
            await guest.next_chunk()

    site.runner.run(closed())
