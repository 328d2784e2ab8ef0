"""Static sites on one node: real HTTP, limits and the meter."""

import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.e2e.nodes import Failed, folder, get, until, up
from tests.e2e.wire import wire

from tools.node import Node

CSS = "body { color: red }\n" * 500
BIG = 3 << 20


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with up(tmp_path_factory.mktemp("static") / "data") as node:
        yield node


@pytest.fixture(scope="module")
def site(node: Node, tmp_path_factory: pytest.TempPathFactory) -> str:
    files = {
        "index.html": "<p>home",
        "404.html": "<p>not here",
        "docs/index.html": "<p>docs",
        "style.css": CSS,
        "assets/main.3f2a1b9c.js": "x()",
        ".secret": "no",
        ".well-known/security.txt": "Contact: x",
        "_redirects": "/old/* /docs/:splat 301\n/any/* /index.html 200\n",
        "_headers": "/*\n  X-Frame-Options: DENY\n",
    }
    app = folder(tmp_path_factory.mktemp("site") / "site", files)
    (app / "big.bin").write_bytes(bytes(range(256)) * (BIG >> 8))
    done = node.run("deploy", str(app))
    assert done.returncode == 0, done.stderr
    assert "7 files, 3.0 MiB; 1 compressed" in done.stderr and "3 not served" in done.stderr
    assert "no instances" in done.stderr
    return "site"


def test_files_are_served_with_what_caches_need(node, site):
    answer = get(node, site, "/style.css", Accept_Encoding="gzip")
    assert (answer.status, gzip.decompress(answer.body).decode()) == (200, CSS)
    assert answer["Content-Encoding"] == "gzip" and answer["Vary"] == "Accept-Encoding"
    assert answer["Content-Type"] == "text/css; charset=utf-8"
    assert answer["X-Content-Type-Options"] == "nosniff" and answer["X-Frame-Options"] == "DENY"
    again = get(node, site, "/style.css", Accept_Encoding="gzip", If_None_Match=answer["ETag"])
    assert (again.status, again.body, again["ETag"]) == (304, b"", answer["ETag"])
    since = get(node, site, "/style.css", If_Modified_Since=answer["Last-Modified"])
    assert since.status == 304
    plain = get(node, site, "/style.css")
    assert plain.text == CSS and plain["ETag"] != answer["ETag"]
    hashed = get(node, site, "/assets/main.3f2a1b9c.js")
    assert hashed["Cache-Control"] == "public, max-age=31536000, immutable"


def test_paths_lead_where_they_should(node, site):
    assert get(node, site, "/").text == "<p>home"
    moved = get(node, site, "/docs?a=b")
    assert (moved.status, moved["Location"]) == (301, "/docs/?a=b")
    old = get(node, site, "/old/a%20b")
    assert (old.status, old["Location"]) == (301, "/docs/a%20b")
    assert get(node, site, "/any/thing").text == "<p>home"
    missing = get(node, site, "/nope")
    assert (missing.status, missing.text) == (404, "<p>not here")
    assert get(node, site, "/.well-known/security.txt").status == 200
    for hidden in ("/.secret", "/_headers", "/_redirects", "/index.json", "/files/index.html"):
        assert get(node, site, hidden).status == 404


def test_no_path_leads_out_of_a_site(node, site):
    paths = ["/../state.db", "/..%2f..%2fstate.db", "/%2e%2e/%2e%2e/token", "/\\..\\token",
             "//etc/passwd", "/docs/../../index.json", "/%00", "/style.css%00.html",
             "/%c0%ae%c0%ae/token"]  # fmt: skip
    for path in paths:
        with wire(node, site) as line:
            line.send(f"GET {path} HTTP/1.1\r\nHost: HOST\r\n\r\n")
            assert line.response().status in (400, 404), path


def test_parts_of_a_file(node, site):
    whole = bytes(range(256)) * (BIG >> 8)
    assert get(node, site, "/big.bin").body == whole
    part = get(node, site, "/big.bin", Range="bytes=1000-1003")
    assert (part.status, part.body) == (206, whole[1000:1004])
    assert part["Content-Range"] == f"bytes 1000-1003/{BIG}"
    assert get(node, site, "/big.bin", Range="bytes=-700000").body == whole[-700000:]
    many = get(node, site, "/big.bin", Range="bytes=0-1,100-101")
    assert many.status == 206 and many["Content-Type"].startswith("multipart/byteranges")
    beyond = get(node, site, "/big.bin", Range=f"bytes={BIG}-")
    assert (beyond.status, beyond["Content-Range"]) == (416, f"bytes */{BIG}")
    old = get(node, site, "/big.bin", Range="bytes=0-1", If_Range='"old"')
    assert (old.status, len(old.body)) == (200, BIG)


def test_head_and_other_methods_on_one_connection(node, site):
    with wire(node, site) as line:
        line.send("HEAD /style.css HTTP/1.1\r\nHost: HOST\r\n\r\n")
        head = line.response(method="HEAD")
        assert (head.status, head.headers["content-length"]) == (200, str(len(CSS)))
        line.send("POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 2\r\n\r\nhi")
        refused = line.response()
        assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
    with wire(node, site) as line:
        line.send("OPTIONS / HTTP/1.1\r\nHost: HOST\r\n\r\n")
        assert line.response().status == 204
        line.send("GET / HTTP/1.1\r\nHost: HOST\r\n\r\n")
        assert line.response().body == b"<p>home"


def test_it_needs_no_instance_and_is_metered(node, site):
    before = usage(node, site)
    sent = sum(len(get(node, site, "/big.bin").body) for _ in range(3))

    def metered() -> dict[str, Any] | None:
        """The requests of other tests may come into the ledger just now, too."""
        now = more(usage(node, site), before, 3)
        return now if now and int(now["bytes_out"]) - int(before["bytes_out"]) >= sent else None

    after = until("three more are metered", metered)
    assert int(after["cpu_ns"]) == 0 and after["starts"] == 0
    assert int(after["host_ns"]) > int(before["host_ns"]) and int(after["wall_ns"]) > 0
    shown = node.json("app", site)
    assert shown["instances"] == [] and shown["app"]["requests"] >= 3
    assert shown["snapshot"]["verdict"] == "unneeded" and not shown["app"]["needs_instances"]
    assert "none: the gateway serves it" in node.cli("app", site)
    assert site not in {one["app"] for one in node.json("status")["instance_list"]}
    assert site not in {one["app"] for one in node.instances()}


def usage(node: Node, app: str) -> dict:
    return node.json("usage", "--app", app)["total"]["usage"]


def more(now: dict, before: dict, count: int) -> dict | None:
    return now if now["requests"] >= before["requests"] + count else None


def test_quotas_and_limits_hold(node, tmp_path):
    app = folder(tmp_path / "s", {"index.html": "hi"})
    (app / "big.bin").write_bytes(bytes(2 << 20))
    (app / "isopod.toml").write_text("[limits]\nmax_response_mib = 1\n")
    node.cli("tenants", "create", "few", "--quota", "egress_mib_per_day=1")
    node.cli("deploy", str(app), "--name", "few", "--tenant", "few")
    large = get(node, "few", "/big.bin")
    assert (large.status, large["X-Isopod-Error"]) == (502, "response_too_large")
    for _ in range(3):
        assert get(node, "few", "/big.bin", Range="bytes=0-500000").status in (206, 403)
    refused = get(node, "few")
    assert (refused.status, refused["X-Isopod-Error"]) == (403, "quota_exceeded")
    node.cli("tenants", "suspend", "few")
    held = until("suspended", lambda: suspended(get(node, "few")["X-Isopod-Error"]))
    assert held == "tenant_suspended"


def suspended(code: str) -> str:
    return code if code == "tenant_suspended" else ""


def test_a_new_version_is_served_at_once_and_the_old_one_after_a_rollback(node, tmp_path):
    app = folder(tmp_path / "v", {"index.html": "one"})
    node.cli("deploy", str(app))
    assert get(node, "v").text == "one"
    (app / "index.html").write_text("two")
    node.cli("deploy", str(app))
    assert get(node, "v").text == "two"
    node.cli("rollback", "v")
    assert get(node, "v").text == "one"
    assert node.json("deploy", str(app), "--strict")["version"] == 2


@pytest.mark.parametrize(
    ("files", "code", "said"),
    [
        ({"_redirects": "/a /b\n/c https://x/y 200\n"}, "manifest_invalid", "_redirects, line 2"),
        ({"_headers": "/*\n  Date: x\n"}, "manifest_invalid", "_headers, line 2"),
        ({"isopod.toml": '[static]\nroot = "../x"\n'}, "manifest_invalid", "line 2"),
        ({"isopod.toml": '[static]\nroot = "dist"\n'}, "app_not_detected", "no folder 'dist'"),
        ({"isopod.toml": "[static]\nspaa = true\n"}, "manifest_invalid", "spaa"),
        ({"isopod.toml": '[static]\n"/" = "public"\n', "public/x": ""}, "app_not_detected",
         "beside an app, and the folder holds none"),
        ({"isopod.toml": '[static]\n"/x" = "public"\n', "app.py": "app = print\n"},
         "app_not_detected", "no folder 'public'"),
        ({"isopod.toml": '[static]\n"/x" = "p"\n', "app.py": "app = print\n",
          "p/_redirects": "/a /b\n"}, "manifest_invalid", "p/_redirects"),
        ({"package.json": '{"scripts": {"build": "vite build"}}'}, "app_not_detected", "build"),
        # It is an app all the same, whatever else is there.
        ({"app.py": "import nothing\nasync def app(scope, receive, send): ...\n"},
         "app_failed_to_start", "nothing"),
    ],
)  # fmt: skip
def test_bad_sites_are_refused_and_say_where(node, tmp_path, files, code, said):
    failed = Failed(node, "deploy", str(folder(tmp_path / "bad", {"index.html": "", **files})))
    assert failed.code == code
    assert said in failed.message


def test_a_link_out_of_the_folder_is_refused(node, tmp_path):
    app = folder(tmp_path / "links", {"index.html": ""})
    (app / "passwd").symlink_to("/etc/passwd")
    assert Failed(node, "deploy", str(app)).code == "package_unsafe"


def test_a_single_page_app_of_a_front_end_s_build(node, tmp_path):
    files = {
        "package.json": json.dumps({"scripts": {"build": "x"}}),
        "index.html": "source",
        "dist/index.html": "built",
        "isopod.toml": "[static]\nspa = true\n",
    }
    app = folder(tmp_path / "spa", {**files, "src/main.js": "secret source"})
    (app / "isopod.toml").write_text('[static]\nroot = "dist"\nspa = true\n')
    node.cli("deploy", str(app))
    assert get(node, "spa", "/cart/7").text == "built"
    assert get(node, "spa", "/src/main.js").status == 404


APP = """
import os

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    there = os.path.exists("/app/public/style.css")
    return [f"app {environ['REQUEST_METHOD']} {environ['PATH_INFO']} {there}".encode()]
"""


def test_files_beside_an_app_need_no_instance_and_the_rest_is_the_app_s(node, tmp_path):
    files = {
        "app.py": APP,
        "isopod.toml": '[static]\n"/static" = "public/"\n',
        "public/style.css": CSS,
        "public/.hidden": "no",
        "public/tool.py": "x = 1",
    }
    app = folder(tmp_path / "both", files)
    done = node.run("deploy", str(app))
    assert done.returncode == 0, done.stderr
    assert "(served beside it: 2 files" in done.stderr and "1 not served" in done.stderr
    assert "static        /static = public" in node.cli("app", "both")
    node.cli("sleep", "both")
    before = node.json("app", "both")["app"]
    style = get(node, "both", "/static/style.css", Accept_Encoding="gzip")
    assert (style.status, gzip.decompress(style.body).decode()) == (200, CSS)
    part = get(node, "both", "/static/style.css", Range="bytes=0-3")
    assert (part.status, part.text) == (206, "body")
    assert get(node, "both", "/static/style.css", Range="bytes=99999-").status == 416
    shown = node.json("app", "both")
    assert shown["instances"] == [] and shown["app"]["cold_starts"] == before["cold_starts"]
    assert shown["app"]["requests"] == before["requests"] + 3
    usage_of_files = until(
        "they are metered", lambda: more(usage(node, "both"), {"requests": 0}, 3)
    )
    assert int(usage_of_files["cpu_ns"]) == 0
    for path in ("/", "/static/nope.css", "/static/", "/static/.hidden", "/static/__pycache__/",
                 "/app.py", "/static/../style.css", "/.isopod-static/index.json"):  # fmt: skip
        with wire(node, "both") as line:
            line.send(f"GET {path} HTTP/1.1\r\nHost: HOST\r\n\r\n")
            assert line.response().body.startswith(b"app GET "), path
    with wire(node, "both") as line:
        ask = "POST /static/style.css HTTP/1.1\r\nHost: HOST\r\nContent-Length: 0\r\n\r\n"
        line.send(ask)
        assert line.response().body == b"app POST /static/style.css True"
    (app / "public" / "style.css").write_text("new")
    node.cli("deploy", str(app))
    assert get(node, "both", "/static/style.css").text == "new"
    node.cli("rollback", "both")
    assert get(node, "both", "/static/style.css").text == CSS
