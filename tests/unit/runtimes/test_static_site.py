"""What a path leads to, what is answered, and what a deploy makes of a folder."""

import asyncio
import gzip
from dataclasses import replace
from pathlib import Path

import brotli
import orjson
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from isopod.blobs.store import BlobStore
from isopod.blobs.trees import TreeCache
from isopod.errors import AppNotDetected, BadRequest, BlobMissing, ManifestInvalid, PackageUnsafe
from isopod.manifest import Manifest
from isopod.model.app import AppSpec
from isopod.model.ids import AppName, Digest
from isopod.model.route import Route
from isopod.runtimes.base import Claim
from isopod.runtimes.direct import DirectRequest
from isopod.runtimes.static import building, conditions, detect, redirects
from isopod.runtimes.static.answer import Heads, plan
from isopod.runtimes.static.index import INDEX, Form, Index, SiteFile
from isopod.runtimes.static.kept import Kept
from isopod.runtimes.static.serving import StaticSites
from isopod.runtimes.static.site import Found, Moved, Site, decode

FILES = ("index.html", "about.html", "docs/index.html", "docs/a b.txt", "app.3f2a1b9c.js", "x/y")
BUILT_AT = 1_700_000_000


def file(path: str) -> SiteFile:
    forms = (Form("", 100, '"plain"'), Form("br", 40, '"br"'), Form("gzip", 50, '"gzip"'))
    return SiteFile(path, "text/plain; charset=utf-8", "3f2a" in path, forms)


def site(*more: str, spa: bool = False, rules: str = "") -> Site:
    files = {path: file(path) for path in (*FILES, *more)}
    parsed = tuple(redirects.parse(rules))
    return Site(Index(files=files, built_at=BUILT_AT, spa=spa, redirects=parsed))


def leads_to(one: Site, path: str, query: str = "") -> str:
    """A file's path, with its status unless that is 200; or "status location"; or ""."""
    target = one.resolve(path, query)
    if isinstance(target, Found):
        return target.file.path if target.status == 200 else f"{target.status} {target.file.path}"
    return f"{target.status} {target.location}" if isinstance(target, Moved) else ""


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/", "index.html"),
        ("/about.html", "about.html"),
        ("/about", "about.html"),
        ("/docs/", "docs/index.html"),
        ("/docs", "301 /docs/?q=1"),
        ("/docs/a b.txt", "docs/a b.txt"),
        ("/x", ""),
        ("/x/", ""),
        ("/x/y/", ""),
        ("//about.html", ""),
        ("/About.html", ""),
        ("/nope", ""),
    ],
)
def test_a_path_leads_to_a_file_or_a_folder_page(path, target):
    assert leads_to(site(), path, "q=1") == target


def test_a_missing_path_gets_the_site_s_own_page():
    assert leads_to(site("404.html"), "/nope") == "404 404.html"


def test_a_single_page_app_answers_every_path_that_is_no_file_s():
    one = site("404.html", spa=True)
    assert leads_to(one, "/cart/7") == "index.html"
    assert leads_to(one, "/assets/old.js") == "404 404.html"
    assert leads_to(one, "/docs/") == "docs/index.html"


def test_redirects_go_before_files_only_when_forced():
    one = site(rules="/about.html /docs/ 301\n/old /new\n/x/* /docs/:splat 302!\n/app/* / 200\n")
    assert leads_to(one, "/about.html") == "about.html"
    assert leads_to(one, "/old", "a=b") == "302 /new?a=b"
    assert leads_to(one, "/x/y") == "302 /docs/y"
    assert leads_to(one, "/app/anything") == "index.html"
    assert leads_to(site(rules="/a /missing.html 200"), "/a") == ""


@pytest.mark.parametrize(
    ("path", "decoded"),
    [
        ("/a%20b", "/a b"),
        ("/%C3%A9", "/é"),
        ("/%2561", "/%61"),
        ("/a..b/c.", "/a..b/c."),
        ("/%5c..%5c", "/\\..\\"),
    ],
)
def test_escapes_are_undone_once(path, decoded):
    assert decode(path) == decoded


@pytest.mark.parametrize(
    "path",
    [
        "/../etc/passwd", "/%2e%2e/etc/passwd", "/a/%2E./b", "/.", "/a/..", "/a%2fb", "/a%2Fb",
        "/%00", "/a%0d%0ab", "/%", "/%zz", "/%ff", "", "a", "*", "http://x/", "/" + "a" * 9000,
    ],
)  # fmt: skip
def test_a_path_that_can_be_no_file_s_is_refused(path):
    with pytest.raises(BadRequest):
        decode(path)


@given(st.text(st.characters(max_codepoint=255), max_size=80))
def test_whatever_the_path_only_files_of_the_index_are_found(text):
    one = site("404.html", spa=True, rules="/r/* /:splat 200\n/m/* /:splat 301")
    for path in ("/" + text, "/r/" + text, "/m/" + text):
        try:
            target = one.resolve(decode(path))
        except BadRequest:
            continue
        if isinstance(target, Found):
            assert target.file.path in one.index.files
        else:
            assert isinstance(target, Moved)
            assert target.location.startswith("/") and not target.location.startswith("//")


def ask(one: Site, path: str = "/about", method: str = "GET", **headers: str):
    given = [(k.replace("_", "-").lower().encode(), v.encode()) for k, v in headers.items()]
    heads = Heads(Kept(1 << 20), "", Digest(""))
    return plan(one, heads, DirectRequest(method, path, "", given))


def test_a_whole_file_says_all_there_is_to_say():
    planned = ask(site(), accept_encoding="br")
    assert (planned.status, planned.size) == (200, 40)
    assert dict(planned.headers) == {
        b"content-type": b"text/plain; charset=utf-8",
        b"x-content-type-options": b"nosniff",
        b"etag": b'"br"',
        b"last-modified": conditions.date(BUILT_AT).encode(),
        b"accept-ranges": b"bytes",
        b"cache-control": b"public, max-age=0, must-revalidate",
        b"vary": b"Accept-Encoding",
        b"content-encoding": b"br",
        b"content-length": b"40",
    }
    hashed = dict(ask(site(), "/app.3f2a1b9c.js").headers)
    assert hashed[b"cache-control"] == b"public, max-age=31536000, immutable"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"if_none_match": '"plain"'}, 304),
        ({"if_none_match": 'W/"plain"'}, 304),
        ({"if_none_match": '"a", "plain"'}, 304),
        ({"if_none_match": "*"}, 304),
        ({"if_none_match": '"br"'}, 200),
        ({"if_none_match": '"br"', "accept_encoding": "br"}, 304),
        ({"if_modified_since": conditions.date(BUILT_AT)}, 304),
        ({"if_modified_since": conditions.date(BUILT_AT - 1)}, 200),
        ({"if_modified_since": "yesterday"}, 200),
        ({"if_modified_since": conditions.date(BUILT_AT), "if_none_match": '"a"'}, 200),
        ({"if_match": '"plain"'}, 200),
        ({"if_match": 'W/"plain"'}, 412),
        ({"if_match": '"a"'}, 412),
        ({"if_unmodified_since": conditions.date(BUILT_AT - 1)}, 412),
        ({"range": "bytes=0-9"}, 206),
        ({"range": "bytes=0-9", "if_range": '"plain"'}, 206),
        ({"range": "bytes=0-9", "if_range": '"old"'}, 200),
        ({"range": "bytes=0-9", "if_range": 'W/"plain"'}, 200),
        ({"range": "bytes=0-9", "if_range": conditions.date(BUILT_AT)}, 206),
        ({"range": "bytes=0-9", "if_range": conditions.date(BUILT_AT - 1)}, 200),
        ({"range": "bytes=0-9", "if_none_match": '"plain"'}, 304),
        ({"range": "bytes=100-"}, 416),
        ({"range": "bytes=0-1,5-6"}, 206),
        ({"range": "lines=1-2"}, 200),
    ],
)
def test_conditions_and_ranges(headers, status):
    for method in ("GET", "HEAD"):
        planned = ask(site(), method=method, **headers)
        assert planned.status == status
        assert not (method == "HEAD" and planned.parts)
    if status == 416:
        assert (b"content-range", b"bytes */100") in planned.headers
    if status == 304:
        assert not {b"content-type", b"content-length"} & set(dict(planned.headers))


def test_other_methods_are_told_which_there_are():
    for method, status in (("POST", 405), ("DELETE", 405), ("OPTIONS", 204)):
        planned = ask(site(), method=method)
        assert (planned.status, planned.parts) == (status, ())
        assert (b"allow", b"GET, HEAD, OPTIONS") in planned.headers


# -- a deploy -------------------------------------------------------------------------------


def folder(path: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        one = path / name
        one.parent.mkdir(parents=True, exist_ok=True)
        one.write_text(text)
    return path


def test_a_deploy_makes_variants_and_an_index_that_reads_back(tmp_path):
    text = "body { color: red }\n" * 200
    app = folder(tmp_path / "app", {
        "index.html": "<p>hi", "style.css": text, ".env": "x", ".git/config": "x",
        ".well-known/security.txt": "Contact: x", "_redirects": "/a /b\n", "isopod.toml": "",
        "_headers": "/*\n  X-A: b\n", "a/.hidden": "x", "a/_headers": "served, it is not ours",
    })  # fmt: skip
    made = building.build(app, ".", spa=False, now=BUILT_AT)
    index = Index.from_json(orjson.loads((app / INDEX).read_bytes()))
    assert index == made.index
    assert sorted(index.files) == [
        ".well-known/security.txt", "a/_headers", "index.html", "style.css"
    ]  # fmt: skip
    assert made.left_out == 6
    style = index.files["style.css"]
    assert style.encodings == ("br", "zstd", "gzip")
    assert brotli.decompress((app / "br/style.css").read_bytes()) == text.encode()
    assert gzip.decompress((app / "gzip/style.css").read_bytes()) == text.encode()
    zstd = (app / "zstd/style.css").read_bytes()
    assert zstandard.ZstdDecompressor().decompress(zstd) == text.encode()
    assert len({form.etag for form in style.forms}) == 4
    assert "4 files" in made.text() and "1 compressed" in made.text()


def test_what_cannot_be_served_safely_is_refused(tmp_path):
    linked = folder(tmp_path / "linked", {"index.html": ""})
    (linked / "passwd").symlink_to("/etc/passwd")
    with pytest.raises(PackageUnsafe, match="'passwd', a symbolic link"):
        building.build(linked, ".", spa=False, now=0)
    slashed = folder(tmp_path / "slashed", {"index.html": "", "a\\b": ""})
    with pytest.raises(PackageUnsafe, match="backslash"):
        building.build(slashed, ".", spa=False, now=0)
    with pytest.raises(AppNotDetected, match="holds no file"):
        building.build(folder(tmp_path / "none", {".env": ""}), ".", spa=False, now=0)
    latin = folder(tmp_path / "latin", {"index.html": ""})
    (latin / "_redirects").write_bytes(b"/a /b\n/\xff /c\n")
    with pytest.raises(ManifestInvalid, match="_redirects, line 2: is not UTF-8"):
        building.build(latin, ".", spa=False, now=0)


@pytest.mark.parametrize(
    ("files", "root"),
    [
        (["index.html"], "."),
        (["package.json", "index.html", "dist/index.html"], "dist"),
        (["package.json", "build/index.html", "public/index.html"], "build"),
        (["package.json", "public/index.html"], "public"),
        (["package.json", "index.html"], "package.json has a build script"),
        (["index.htm"], "there is no index.html"),
        (["dist/index.html"], "there is no index.html"),
    ],
)
def test_a_site_is_found_in_its_folder(tmp_path, files, root):
    app = folder(tmp_path, dict.fromkeys(files, '{"scripts": {"build": "x"}}'))
    if " " not in root:
        assert detect.detect(app, Manifest()) == root
        assert detect.claim(app, Manifest()) is Claim.MAYBE
        return
    with pytest.raises(AppNotDetected, match=root):
        detect.detect(app, Manifest())


def test_the_manifest_says_where_a_site_is(tmp_path):
    folder(tmp_path, {"site/x.txt": ""})
    assert detect.detect(tmp_path, Manifest(static_root="site")) == "site"
    assert detect.claim(tmp_path, Manifest(static_root="site")) is Claim.SURE
    with pytest.raises(AppNotDetected, match="there is no folder 'other'"):
        detect.detect(tmp_path, Manifest(static_root="other"))


# -- bytes ----------------------------------------------------------------------------------


def test_files_are_served_whole_in_pieces_and_again_after_their_tree_was_lost(tmp_path):
    big = bytes(range(256)) * 4000
    app = folder(tmp_path / "app", {"index.html": "<p>hi"})
    (app / "big.bin").write_bytes(big)
    building.build(app, ".", spa=False, now=BUILT_AT)
    trees = TreeCache(tmp_path / "trees", BlobStore(tmp_path / "blobs"))
    tree = trees.make(app)
    spec = AppSpec(AppName("x"), "static", ".")
    route = Route(AppName("x"), 1, tree, tree, tree, spec)

    async def get(sites: StaticSites, path: str, **headers: str) -> bytes:
        given = [(k.encode(), v.encode()) for k, v in headers.items()]
        answer = await sites.answer(route, DirectRequest("GET", path, "", given))
        body = answer.body
        if answer.pieces is not None:
            body = b"".join([piece async for piece in answer.pieces])
        assert len(body) == answer.size == int(dict(answer.headers)[b"content-length"])
        return body

    async def main() -> None:
        sites = StaticSites(trees)
        await sites.make_ready(route)
        assert await get(sites, "/") == b"<p>hi"
        assert await get(sites, "/", range="bytes=3-4") == b"hi"  # from memory
        assert await get(sites, "/big.bin") == big
        assert await get(sites, "/big.bin", range="bytes=300000-900000") == big[300000:900001]
        two = await get(sites, "/big.bin", range="bytes=0-9,500000-500009")
        assert big[:10] in two and big[500000:500010] in two and two.count(b"content-range") == 2
        # Somebody removes the extracted files: one request fails, the next has them again.
        (trees.path(tree) / "files/big.bin").unlink()
        with pytest.raises(BlobMissing):
            await get(sites, "/big.bin", range="bytes=0-99")
        assert await get(sites, "/big.bin", range="bytes=0-99") == big[:100]

    asyncio.run(main())
    assert replace(route)
