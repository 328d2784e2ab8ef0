"""Errors show the author's file and line."""

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.runtimes.workers import Workshop, worker

from isopod.errors import AppFailedToStart, GuestFailed
from isopod.runtimes.javascript import bundling
from isopod.runtimes.javascript.positions import POSITIONS, Locating, table

FILES = {
    "src/index.ts": """
import { deep } from "./lib/deep";
import { small } from "small";

interface Unused { one: string }

export default {
  async fetch(request: Request): Promise<Response> {
    if (request.url.endsWith("/package")) small(null);
    if (request.url.endsWith("/logged")) console.log(new Error("seen"));
    return deep(request);
  },
};
""",
    "src/lib/deep.ts": """
type Much = Record<string, string>;

export function deep(given: Request): Response {
  const all: Much = {};
  throw new TypeError(`deep ${all.x}`);
}
""",
    "node_modules/small/package.json": '{"name": "small", "main": "index.js"}',
    "node_modules/small/index.js": "\n\nexport const small = (x) => x.nothing;\n",
}


@pytest.fixture(scope="module")
def shop(prepared_javascript: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    with Workshop(prepared_javascript, tmp_path_factory.mktemp("positions")) as made:
        yield made


def bundled(cache: Path, folder: Path, files: dict[str, str], main: str) -> Path:
    for name, text in files.items():
        (folder / "app" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "app" / name).write_text(text)
    site = folder / "site"
    bundling.install(folder / "app", main, site, cache_dir=cache)
    return site


def test_a_stack_has_the_authors_files_and_lines(shop, prepared_javascript, tmp_path):
    app = shop.start(bundled(prepared_javascript, tmp_path, FILES, "src/index.ts"))
    with pytest.raises(GuestFailed):
        app.call("/")
    first, *frames = app.said.splitlines()
    assert first == "TypeError: deep undefined"
    assert "src/lib/deep.ts:6" in frames[0] and "src/index.ts:11" in frames[1]
    assert "prelude.js" not in app.said and "app.js" not in app.said
    for path, place in (("/package", "node_modules/small/index.js:3"), ("/logged", "index.ts:10")):
        app.output.clear()
        with pytest.raises(GuestFailed):
            app.call(path)
        assert place in app.said


def test_an_error_of_the_load_has_them_too(shop, prepared_javascript, tmp_path):
    files = {"worker.js": "const x = 1;\n\nthrow new Error('early');\nexport default {};"}
    site = bundled(prepared_javascript, tmp_path, files, "worker.js")
    with pytest.raises(AppFailedToStart, match="early") as failed:
        shop.start(site)
    assert "worker.js:3" in failed.value.details["traceback"]


def test_equal_apps_have_equal_sites_wherever_they_were_built(prepared_javascript, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "other").mkdir()
    one = bundled(prepared_javascript, tmp_path / "a", FILES, "src/index.ts")
    two = bundled(prepared_javascript, tmp_path / "other", FILES, "src/index.ts")
    assert sorted(path.name for path in one.iterdir()) == ["app.js", POSITIONS]
    assert (one / POSITIONS).read_bytes() == (two / POSITIONS).read_bytes()


def test_positions_that_are_none_stay_as_they_are(tmp_path):
    text = b"at f (app.js:1:9) at g (app.js:2:1) other/app.js:1:1 app.js:99999999:1 app.js:1:1x"
    assert Locating(tmp_path)(text) == text
    made = table(b'{"mappings": "AAAA,IACC;AACA", "sources": ["a"]}', ["a.ts"])
    for size in range(len(made)):  # half a table
        (tmp_path / POSITIONS).write_bytes(made[:size])
        Locating(tmp_path)(text)
    (tmp_path / POSITIONS).write_bytes(made)
    shown = Locating(tmp_path)(text)
    assert shown.startswith(b"at f (a.ts:2) at g (a.ts:3) other/app.js:1:1 app.js:9")
    (tmp_path / POSITIONS).write_bytes(struct.pack("<9I", 1, 9, 1, 0, 7, 7, 1, 9, 0))
    Locating(tmp_path)(text)  # names that are not there
    many = b"app.js:1:1 " * 3000
    (tmp_path / POSITIONS).write_bytes(made)
    at_once = Locating(tmp_path)
    assert at_once(many).count(b"a.ts:1") == 195
    assert at_once(many) == many
    lines = Locating(tmp_path)
    assert sum(lines(b"app.js:1:1") == b"a.ts:1" for _ in range(3000)) == 34


@pytest.mark.parametrize(
    "mappings", ["!!!", "g", "AAgggggggB", "AADA", "AEAA", "D", "A,+++++D" * 99]
)
def test_a_map_that_is_none_is_refused(mappings):
    with pytest.raises(ValueError, match="source map"):
        table(b'{"mappings": "%s"}' % mappings.encode(), ["a"])


def test_the_worker_of_a_test_has_no_table(shop):
    app = shop.start(worker("throw new Error('plain')"))
    with pytest.raises(GuestFailed):
        app.call()
    assert "app.js:2" in app.said
