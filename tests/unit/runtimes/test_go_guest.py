"""Programs in Go: built, started, kept in images; and what is no app, said with file and line."""

import asyncio
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.host.certificates import Authority
from tests.unit.host.world import server
from tests.unit.runtimes.reactors import Foundry, reaching

from isopod.errors import (
    AppFailedToStart,
    AppNotDetected,
    AppSyntaxError,
    DependencyFailed,
    DependencyInvalid,
    GuestFailed,
    IsopodError,
)
from isopod.manifest import Manifest
from isopod.model.app import WarmupRequest
from isopod.model.volume import VolumeMount
from isopod.runtimes.base import Claim
from isopod.runtimes.go import detect
from isopod.runtimes.go.building import explain
from isopod.runtimes.go.language import GoLanguage
from isopod.runtimes.reactor.runtime import MODULE

KITCHEN = Path(__file__).parents[2] / "guests" / "reactors" / "kitchen_go"
SDK = "github.com/isopod-cloud/isopod/sdk/go"
SERVE = f'package main\n\nimport isopod "{SDK}"\n\nfunc main() {{ isopod.Serve(nil) }}\n'


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Foundry]:
    with Foundry(tmp_path_factory.mktemp("go")) as made:
        yield made


@pytest.fixture(scope="module")
def kitchen(prepared_go: Path, lab: Foundry) -> bytes:
    return built(prepared_go, KITCHEN, lab.folder / "kitchen-site")


def built(cache: Path, folder: Path, site: Path) -> bytes:
    GoLanguage().install_dependencies(cache, folder, site)
    return (site / MODULE).read_bytes()


def program(folder: Path, main: str = SERVE, **others: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "go.mod").write_text(others.pop("mod", "module example/x\n\ngo 1.24\n"))
    (folder / "main.go").write_text(main)
    for name, text in others.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def failure(cache: Path, folder: Path) -> IsopodError:
    with pytest.raises(IsopodError) as failed:
        GoLanguage().install_dependencies(cache, folder, folder.with_name(f"{folder.name}-site"))
    return failed.value


def test_an_unmodified_handler_has_the_whole_request_and_its_settings(lab, kitchen):
    app = lab.start(kitchen, env={"KEY": "välue"})
    assert app.said == "setting up\n"
    status, headers, body = app.call("/p%20q?a=1")
    assert status == 201
    assert body.decode() == "GET /p q a=1 x.test 192.0.2.7:0 HTTP/1.1 välue välue 1"
    assert (headers["x-two"], headers["x-bad"]) == ("[a b]", "a  set-cookie: b")
    assert headers["content-type"] == "text/plain; charset=utf-8"
    sent = bytes(range(256)) * 2000
    _, headers, body = app.call("/echo", body=sent)
    assert (headers["x-length"], body) == ("-1", sent)
    assert app.call("/large")[2] == bytes(3_000_000)


def test_goroutines_wait_together(lab, kitchen):
    assert lab.start(kitchen).text("/together") == "true"


async def serve(reader, writer):
    """Requests of one connection, as many as come."""
    while line := await reader.readline():
        path = line.split()[1]
        while (await reader.readline()).strip():
            pass
        if path == b"/never":
            await reader.read()
        body = b"x" * 200_000 if path == b"/large" else path
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()


def test_an_unmodified_client_connects_to_what_is_listed(lab, kitchen, tmp_path):
    accepted = 0

    async def count(reader, writer):
        nonlocal accepted
        accepted += 1
        await serve(reader, writer)

    async def main() -> None:
        async with server(count) as port, reaching(lab, port) as world:
            app = lab.new(kitchen, world=world)
            await app.guest.start()

            async def fetch(path: str, more: str = "") -> str:
                url = f"/fetch?url=http://localhost:{port}{path}{more}"
                return (await app.ask(url))[2].decode()

            assert await fetch("/hello") == "/hello 200 OK 6 <nil>"
            assert (await fetch("/large")).endswith("x 200 OK 200000 <nil>")
            assert accepted == 1  # a connection serves as many requests as come
            assert app.guest.sent_bytes > 100
            assert "deadline exceeded" in await fetch("/never", "&within=50ms")
            app.output.clear()
            refused = (await app.ask("/fetch?url=http://localhost:1/"))[2].decode()
            assert "dial tcp localhost:1: connect: Permission denied" in refused
            assert 'write in isopod.toml: [network] allow = ["localhost:1"]' in app.said
            app.guest.close()
            assert not world.open_now.by_app

    lab.run(main())


def test_a_client_speaks_tls_by_the_host(lab, kitchen, tmp_path):
    authority = Authority(tmp_path)

    async def main() -> None:
        context = authority.server(authority.issue("localhost"))
        async with server(serve, ssl=context) as port:
            for extra, said in ((authority.pem, "/a 200 OK 2 <nil>"), ("", "protocol error")):
                async with reaching(lab, port, extra=extra) as world:
                    app = lab.new(kitchen, world=world)
                    await app.guest.start()
                    found = (await app.ask(f"/fetch?url=https://localhost:{port}/a"))[2].decode()
                    assert said in found.lower() or said in found
                    app.guest.close()

    lab.run(main())


def test_goroutines_wait_for_several_peers_at_once(lab, kitchen):
    async def main() -> None:
        second = asyncio.Event()

        async def in_turn(reader, writer):
            path = (await reader.readuntil(b"\r\n\r\n")).split()[1]
            if path == b"/second":
                second.set()
            await second.wait()
            writer.write(b"HTTP/1.0 200 OK\r\n\r\n" + path)

        async with server(in_turn) as port, reaching(lab, port) as world:
            app = lab.new(kitchen, world=world)
            await app.guest.start()
            said = (await app.ask(f"/both?url=http://localhost:{port}"))[2].decode()
            assert sorted(said.split()) == ["/first", "/second"]
            app.guest.close()

    lab.run(main())


def test_a_volume_is_a_folder_that_outlives_instances(lab, kitchen):
    volumes = (lab.volume("kept-by-go"),)
    app = lab.start(kitchen, volumes=volumes)
    assert app.text("/count") == "1 [- count] <nil>"
    app.guest.close()
    snapshot = lab.snapshot(kitchen, volumes=(VolumeMount("data", "/data"),))
    assert snapshot.verdict == "sound"
    assert lab.restore(kitchen, snapshot, volumes=volumes).text("/count") == "2 [- count] <nil>"
    assert "/data/count" in lab.start(kitchen).text("/count")


def test_where_it_is_built_there_is_no_network(lab, kitchen):
    app = lab.start(kitchen)
    assert "connect: Network is unreachable" in app.text("/fetch?url=http://localhost:1/")
    assert "connect in a request" in app.said


def test_a_client_that_goes_ends_the_request_s_context(lab, kitchen):
    app = lab.start(kitchen)
    lab.leave(app, "/large")
    assert "gone: net/http: abort Handler context canceled" in app.said
    assert app.call("/")[0] == 201


def test_a_panic_is_in_the_log_and_the_next_request_served(lab, kitchen):
    app = lab.start(kitchen)
    with pytest.raises(GuestFailed) as failed:
        app.call("/panic")
    assert failed.value.details["summary"] == "assignment to entry in nil map"
    assert "panic: assignment to entry in nil map" in app.said and "main.go:" in app.said
    assert app.call("/")[0] == 201


@pytest.mark.parametrize(
    ("path", "message", "said"),
    [("/deadlock", "aborted", "deadlock!"), ("/exit", "exited with status 3", "")],
)
def test_a_program_that_ends_is_ended_with_the_reason(lab, kitchen, path, message, said):
    app = lab.start(kitchen)
    with pytest.raises(GuestFailed, match=message):
        app.call(path)
    assert said in app.said and not app.guest.idle


def test_an_app_reads_its_own_files_and_no_others(lab, kitchen):
    app = lab.start(kitchen)
    (lab.folder / "app" / "hello.txt").write_text("of the app")
    assert app.text("/file?name=hello.txt") == "of the app"
    (lab.folder / "secret.txt").write_text("not of the app")
    assert app.call("/file?name=../secret.txt")[0] >= 400
    (lab.folder / "app" / "link.txt").symlink_to(lab.folder / "secret.txt")
    assert "not of" not in app.text("/file?name=link.txt")


def test_instances_of_one_image_have_randomness_time_and_settings_of_their_own(lab, kitchen):
    snapshot = lab.snapshot(kitchen, warmup=(WarmupRequest(path="/random", method="GET"),))
    assert (snapshot.verdict, snapshot.private) == ("sound", True)
    assert snapshot.blob_bytes < 2 << 20
    apps = [lab.restore(kitchen, snapshot, env={"KEY": str(n)}) for n in range(3)]
    drawn = [app.text("/random").split() for app in apps]
    for column in range(3):
        assert len({one[column] for one in drawn}) == 3, drawn
    assert all(0 <= int(one[3]) < 60_000 for one in drawn)
    assert [app.text("/").split()[-3:] for app in apps] == [[str(n), str(n), "1"] for n in range(3)]
    assert all(app.guest.private_bytes < 4 << 20 for app in apps)
    assert apps[0].text("/together") == "true"


def test_programs_are_found_where_they_usually_are(tmp_path):
    none = Manifest()
    assert detect.claim(tmp_path, none) is Claim.NO
    app = program(tmp_path / "app", mod="module x\n", main="// Copyright\n\npackage main\n")
    assert (detect.claim(app, none), detect.detect(app, none)) == (Claim.SURE, ".")
    (app / "main.go").unlink()
    assert detect.claim(app, none) is Claim.MAYBE
    with pytest.raises(AppNotDetected, match="no package main"):
        detect.detect(app, none)
    for name in ("one", "two"):
        (app / "cmd" / name).mkdir(parents=True)
        (app / "cmd" / name / "x.go").write_text("package main\n")
        if name == "one":
            assert detect.detect(app, none) == "./cmd/one"
    with pytest.raises(AppNotDetected, match="2 programs"):
        detect.detect(app, none)


def test_a_program_in_cmd_with_packages_of_its_own_is_built(prepared_go, lab, tmp_path):
    main = (
        f'package main\n\nimport (\n\t"fmt"\n\t"net/http"\n\n\t"example/x/greet"\n\n'
        f'\tisopod "{SDK}"\n)\n\nfunc main() {{\n\thttp.HandleFunc("/", func(w '
        "http.ResponseWriter, r *http.Request) { fmt.Fprint(w, greet.Text()) })\n"
        "\tisopod.Serve(nil)\n}\n"
    )
    text = 'package greet\n\nimport _ "embed"\n\n//go:embed text.txt\nvar text string\n\n'
    app = program(
        tmp_path / "app",
        "package lib\n",
        **{
            "cmd__server__main.go": main,
            "greet__greet.go": text + "func Text() string { return text }\n",
            "greet__text.txt": "embedded",
        },
    )
    assert lab.start(built(prepared_go, app, tmp_path / "site")).text() == "embedded"


@pytest.mark.parametrize(
    ("main", "error", "message"),
    [
        (
            "package main\n\nfunc main() {\n\tundefined()\n\tvar x int = y\n}\n",
            AppSyntaxError,
            r"^main.go:4: undefined: undefined \(and 2 more\)$",
        ),
        ("package main\n\nfunc main( {\n", AppSyntaxError, r"^main.go:3: syntax error"),
        ("package main\n\nfunc main() {}\n", AppSyntaxError, "nothing in it calls isopod.Serve"),
        (
            'package main\n\nimport "net/http"\n\nfunc main() {\n'
            '\thttp.ListenAndServe(":80", nil)\n}\n',
            AppSyntaxError,
            "^main.go:6: the program listens on a port",
        ),
        (
            'package main\n\nimport _ "no.such.host.invalid/x"\n\nfunc main() {}\n',
            DependencyInvalid,
            "no required module provides package no.such.host.invalid/x",
        ),
        (
            'package main\n\nimport "C"\n\nfunc main() {}\n',
            AppSyntaxError,
            "build constraints exclude all Go files",
        ),
    ],
)
def test_what_does_not_compile_is_said_with_file_and_line(
    prepared_go, tmp_path, main, error, message
):
    failed = failure(prepared_go, program(tmp_path / "app", main))
    assert type(failed) is error, failed
    assert re.search(message, failed.message), failed.message
    assert failed.hint or failed.details["file"] == "main.go"


MODES = f"""package main

import (
	"net/http"
	"os"

	isopod "{SDK}"
)

func main() {{
	mode, _ := os.ReadFile("/app/mode")
	switch string(mode) {{
	case "panic":
		panic("not today")
	case "block":
		select {{}}
	case "listen":
		http.ListenAndServe(":80", nil)
	case "serve":
		isopod.Serve(nil)
	}}
}}
"""


def test_a_main_that_does_not_come_to_serve_says_why(prepared_go, lab, tmp_path):
    module = built(prepared_go, program(tmp_path / "app", MODES), tmp_path / "site")
    mode = lab.folder / "app" / "mode"
    mode.parent.mkdir(exist_ok=True)
    for does, message in {
        "end": "setup failed: main ended without a call of isopod.Serve",
        "panic": "panic: not today",
        "block": "all goroutines are asleep",
        "listen": "the program listens on a port",
    }.items():
        mode.write_text(does)
        with pytest.raises(AppFailedToStart, match=message) as failed:
            lab.start(module)
        assert does == "end" or "main.main" in failed.value.details["traceback"]
    assert "isopod.Serve" in failed.value.hint
    mode.write_text("serve")
    assert lab.start(module).call("/")[0] == 404


def test_modules_come_from_a_proxy_and_are_those_of_go_sum(prepared_go, lab, tmp_path, monkeypatch):
    monkeypatch.setenv("GOPROXY", f"file://{proxy(tmp_path / 'proxy')}")
    monkeypatch.setenv("GONOSUMDB", "*")
    main = SERVE.replace("import isopod", 'import _ "example.org/lib"\n\nimport isopod')
    mod = "module example/x\n\ngo 1.24\n\nrequire example.org/lib v1.0.0\n"
    app = program(tmp_path / "app", main, mod=mod)
    failed = failure(prepared_go, app)
    assert isinstance(failed, DependencyInvalid) and "missing go.sum entry" in failed.message
    (app / "go.sum").write_text(
        "example.org/lib v1.0.0 h1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"
        "example.org/lib v1.0.0/go.mod h1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"
    )
    failed = failure(prepared_go, app)
    assert "checksum mismatch" in failed.details["traceback"]
    monkeypatch.setenv("GOPROXY", "off")
    assert isinstance(failure(prepared_go, app), DependencyFailed)
    # Those in vendor/ need no proxy.
    vendor = app / "vendor" / "example.org" / "lib"
    vendor.mkdir(parents=True)
    (vendor / "lib.go").write_text("package lib\n")
    (app / "vendor" / "modules.txt").write_text(
        "# example.org/lib v1.0.0\n## explicit; go 1.24\nexample.org/lib\n"
    )
    site = tmp_path / "vendored"
    done = GoLanguage().install_dependencies(prepared_go, app, site)
    assert done.distributions == (("example.org/lib", "v1.0.0"),)


def proxy(folder: Path) -> Path:
    """A module proxy's files for example.org/lib v1.0.0."""
    where = folder / "example.org" / "lib" / "@v"
    where.mkdir(parents=True)
    source = folder / "source" / "example.org" / "lib@v1.0.0"
    source.mkdir(parents=True)
    (source / "go.mod").write_text("module example.org/lib\n\ngo 1.24\n")
    (source / "lib.go").write_text("package lib\n")
    shutil.copy(source / "go.mod", where / "v1.0.0.mod")
    (where / "v1.0.0.info").write_text('{"Version": "v1.0.0"}')
    (where / "list").write_text("v1.0.0\n")
    shutil.make_archive(str(where / "v1.0.0"), "zip", folder / "source")
    return folder


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (
            "go: errors parsing go.mod:\n/data/x/source/go.mod:1: unknown directive: mod\n",
            "errors parsing go.mod: go.mod:1: unknown directive: mod",
        ),
        (
            "package x: build constraints exclude all Go files in /data/x/source\n",
            "package x: build constraints exclude all Go files in the app's folder",
        ),
        (
            "# x\nmain.go:2:8: no required module provides package y; to add it:\n\tgo get y\n",
            "main.go:2:8: no required module provides package y; to add it: go get y",
        ),
    ],
)
def test_a_complaint_is_whole_and_does_not_say_where_the_node_keeps_things(said, message):
    told = explain(said, source=Path("/data/x/source"))
    assert told.message == message
    assert "/data" not in str(told.details)
