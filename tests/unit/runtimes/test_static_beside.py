"""Files beside an app: which folders may be, what a path leads to, what nobody may reach."""

import asyncio
import json
from pathlib import Path

import pytest

from isopod.blobs.store import BlobStore
from isopod.blobs.trees import TreeCache
from isopod.errors import (
    AppNotDetected,
    BlobCorrupt,
    IsopodError,
    ManifestInvalid,
    PackageTooLarge,
    PackageUnsafe,
)
from isopod.manifest import parse
from isopod.model.app import AppSpec
from isopod.model.ids import AppName
from isopod.model.route import Route
from isopod.runtimes.base import Claim
from isopod.runtimes.direct import DirectRequest
from isopod.runtimes.static import beside, detect
from isopod.runtimes.static.index import INDEX
from isopod.runtimes.static.serving import StaticSites

FILES = {
    "app.py": "secret source",
    "isopod.toml": "",
    "public/index.html": "home",
    "public/about.html": "about",
    "public/404.html": "its own",
    "public/docs/index.html": "docs",
    "public/.env": "SECRET=1",
    "public/_headers": "/*\n  X-From: public\n",
    "assets/app.css": "body { color: red }\n" * 100,
    "assets/sub/ä b.txt": "umlaut",
    "assets/_headers": "/sub/*\n  X-Sub: yes\n",
}


def written(folder: Path, files: dict[str, str] = FILES) -> Path:
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder


class Beside:
    """An app's tree with files beside it, and who answers."""

    def __init__(self, tmp: Path, paths: dict[str, str], files: dict[str, str] = FILES) -> None:
        app = written(tmp / "app", files)
        beside.check(app, paths)
        made = tmp / "made"
        self.text = beside.build(app, paths, made, now=1_700_000_000)
        made.rename(app / beside.FOLDER)
        self.app = app
        self.trees = TreeCache(tmp / "trees", BlobStore(tmp / "blobs"))

    def ask(self, path: str, method: str = "GET", **headers: str):
        """None: the app would answer."""
        digest = self.trees.make(self.app)
        name = AppName("shop")
        spec = AppSpec(name=name, runtime="any", entrypoint="x", static={"/": "public"})
        route = Route(name, 1, digest, digest, digest, spec)
        given = [(k.replace("_", "-").lower().encode(), v.encode()) for k, v in headers.items()]
        path, _, query = path.partition("?")
        sites = StaticSites(self.trees, beside=beside.FOLDER)
        return asyncio.run(sites.look(route, DirectRequest(method, path, query, given)))


@pytest.fixture
def two(tmp_path):
    return Beside(tmp_path, {"/": "public", "/static": "assets"})


def test_what_a_folder_has_is_served_and_everything_else_is_the_app_s(two):
    assert two.text.startswith("6 files") and "3 not served" in two.text
    for path, body in [("/", b"home"), ("/about", b"about"), ("/docs/", b"docs"),
                       ("/static/sub/%C3%A4%20b.txt", b"umlaut"),
                       ("/st%61tic/app.css", None)]:  # fmt: skip
        answer = two.ask(path)
        assert answer.status == 200 and answer.body == (body or FILES["assets/app.css"].encode())
    for path in ("/nope", "/static", "/static/", "/static/nope.css", "/app.py", "/isopod.toml",
                 "/.env", "/_headers", "/static/_headers", "/index.json",
                 "/files/index.html", "/.isopod-static/index.json", "/assets/app.css",
                 "/public/index.html"):  # fmt: skip
        assert two.ask(path) is None, path
    assert two.ask("/", "POST") is None and two.ask("/about", "OPTIONS") is None
    assert two.ask("/about", "HEAD").body == b""


@pytest.mark.parametrize(
    "path",
    [
        "/../app.py", "/static/../app.py", "/%2e%2e/app.py", "/static/%2E%2E/app.py",
        "/..%2fapp.py",
        "/static/..%5capp.py", "/static//app.css", "//app.py", "/%00", "/%", "/%ff", "/docs/.",
        "/" + "a" * 9000, "*", "",
    ],
)  # fmt: skip
def test_no_path_leads_out_and_odd_ones_are_left_to_the_app(two, path):
    assert two.ask(path) is None


def test_folders_parts_and_conditions_are_answered_as_a_site_s(two):
    moved = two.ask("/docs?a=b")
    assert (moved.status, dict(moved.headers)[b"location"]) == (301, b"/docs/?a=b")
    packed = two.ask("/static/app.css", Accept_Encoding="gzip, br")
    head = dict(packed.headers)
    assert head[b"content-encoding"] == b"br" and head[b"x-from"] == b"public"
    assert two.ask("/static/app.css", If_None_Match=head[b"etag"].decode()).status == 200
    known = two.ask("/static/app.css", Accept_Encoding="br", If_None_Match=head[b"etag"].decode())
    assert known.status == 304
    part = two.ask("/static/app.css", Range="bytes=0-3")
    assert (part.status, part.body) == (206, b"body")
    beyond = two.ask("/static/app.css", Range="bytes=99999-")
    assert (beyond.status, beyond.body) == (416, b"")
    under = dict(two.ask("/static/sub/%C3%A4%20b.txt").headers)
    assert under[b"x-sub"] == b"yes" and b"x-sub" not in head


def test_the_longer_path_s_file_is_served_where_two_have_it(tmp_path):
    files = {"a/s/x.txt": "short", "a/s/y.txt": "short", "b/x.txt": "long"}
    both = Beside(tmp_path, {"/s": "b", "/": "a"}, files)
    assert (both.ask("/s/x.txt").body, both.ask("/s/y.txt").body) == (b"long", b"short")


@pytest.mark.parametrize(
    ("paths", "error", "said"),
    [
        ({"/static": "nowhere"}, AppNotDetected, "there is no folder 'nowhere'"),
        ({"/static": "app.py"}, AppNotDetected, "there is no folder 'app.py'"),
        ({"/": "redirects"}, ManifestInvalid, "redirects/_redirects"),
        ({"/": "headers"}, ManifestInvalid, "headers/_headers, line 2"),
        ({"/": "linked"}, PackageUnsafe, "symbolic link"),
        ({"/": "holding"}, PackageUnsafe, "'passwd', a symbolic link"),
        ({"/": "public", "/about.html": "assets"}, ManifestInvalid, "'/about.html' is a file"),
        ({f"/{n}": "many" for n in range(3)}, PackageTooLarge, "21,000 files"),
    ],
)
def test_what_cannot_be_served_is_refused(tmp_path, paths, error, said):
    more = {
        "redirects/_redirects": "/a /b\n",
        "headers/_headers": "/*\n  Date: x\n",
        "holding/a": "",
    }
    if "/2" in paths:
        more |= {f"many/{number}": "" for number in range(7000)}
    app = written(tmp_path / "app", {**FILES, **more})
    (app / "linked").symlink_to(app / "public")
    (app / "holding" / "passwd").symlink_to("/etc/passwd")
    with pytest.raises(error, match=said):
        beside.check(app, paths)
        beside.build(app, paths, tmp_path / "made", now=0)
    assert not (tmp_path / "made").exists()


def test_a_package_may_not_bring_the_folder_that_is_made(tmp_path):
    app = written(tmp_path / "app", {**FILES, f"{beside.FOLDER}/{INDEX}": "{}"})
    with pytest.raises(PackageUnsafe):
        beside.check(app, {"/": "public"})
    beside.check(app, {})


def test_an_index_that_names_files_elsewhere_is_no_index(two):
    """A builder wrote it, but what ran in the builder was the app's."""
    for path, encoding in (("../../app.py", ""), ("/etc/passwd", ""), ("x", "../../..")):
        index = json.loads((two.app / beside.FOLDER / INDEX).read_bytes())
        index["files"] = {path: ["text/plain", False, [[encoding, 13, '"e"']]]}
        (two.app / beside.FOLDER / INDEX).write_text(json.dumps(index))
        with pytest.raises(BlobCorrupt):
            two.ask("/x")


def test_a_folder_without_an_app_hears_how_to_be_a_site(tmp_path):
    manifest = parse('[static]\n"/" = "public"\n')
    app = written(tmp_path / "app", {"index.html": "", "public/index.html": ""})
    assert detect.claim(app, manifest) is Claim.NO
    with pytest.raises(IsopodError) as raised:
        detect.detect(app, manifest)
    assert 'root = "public"' in raised.value.hint
