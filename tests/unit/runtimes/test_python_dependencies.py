"""With the real uv, against a package index of our own on loopback."""

import base64
import hashlib
import http.server
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import uv

from isopod.errors import (
    DependencyConflict,
    DependencyFailed,
    DependencyInvalid,
    DependencyNativeOnly,
    DependencyNotFound,
)
from isopod.runtimes.installed import Installed
from isopod.runtimes.python.bundled import bundled
from isopod.runtimes.python.dependencies import install

LINUX = "cp315-cp315-manylinux_2_28_x86_64"
PYODIDE = "cp315-cp315-pyodide_2025_0_wasm32"
PURE = "py3-none-any"


class Index:
    """A folder served as PEP 503's simple repository."""

    def __init__(self, root: Path, url: str) -> None:
        self.root = root
        self.url = url

    def add(self, name: str, version: str, tag: str = PURE, requires: tuple[str, ...] = ()) -> str:
        """Make a wheel; its sha256."""
        folder = self.root / "simple" / name.replace("_", "-")
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}-{version}-{tag}.whl"
        info = f"{name}-{version}.dist-info"
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        metadata += "".join(f"Requires-Dist: {one}\n" for one in requires)
        files = {
            f"{name}/__init__.py": f"version = {version!r}\n",
            f"{info}/METADATA": metadata,
            f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n",
            f"{info}/entry_points.txt": f"[console_scripts]\n{name}-run = {name}:run\n",
        }
        record = ""
        for file, text in files.items():
            sha = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=")
            record += f"{file},sha256={sha.decode()},{len(text)}\n"
        files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
        with zipfile.ZipFile(path, "w") as wheel:
            for file, text in files.items():
                wheel.writestr(zipfile.ZipInfo(file), text)
        links = "".join(
            f'<a href="{one.name}#sha256={digest(one)}">{one.name}</a>\n'
            for one in sorted(folder.glob("*.whl"))
        )
        (folder / "index.html").write_text(f"<!DOCTYPE html><html><body>{links}</body></html>")
        return digest(path)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    root = tmp_path / "index"
    root.mkdir()
    handler = partial(Quiet, directory=str(root))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/simple"
        for name in list(os.environ):
            if name.startswith("UV_"):
                monkeypatch.delenv(name)
        monkeypatch.setenv("UV_DEFAULT_INDEX", url)
        monkeypatch.setenv("UV_HTTP_RETRIES", "0")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        try:
            yield Index(root, url)
        finally:
            server.shutdown()
            thread.join()


class App:
    def __init__(self, tmp_path: Path) -> None:
        self.base = tmp_path
        self.folder = tmp_path / "app"
        self.folder.mkdir()
        self.sites = 0
        self.cache = tmp_path / "cache"

    def install(self, requirements: str | None = None) -> tuple[Installed, Path]:
        if requirements is not None:
            (self.folder / "requirements.txt").write_text(requirements)
        self.sites += 1
        site = self.base / f"site{self.sites}"
        return install(self.folder, site, cache_dir=self.cache), site


@pytest.fixture
def app(tmp_path: Path, index: Index) -> App:
    return App(tmp_path)


def test_pure_wheels_and_what_they_need_are_installed(app: App, index: Index) -> None:
    index.add("web", "1.0")
    index.add("web", "2.0", requires=("tool>=1", "markupsafe>=2", "other; os_name == 'nt'"))
    index.add("tool", "1.5")
    done, site = app.install("web\n")
    assert done.distributions == (
        ("markupsafe", bundled()["markupsafe"].version),
        ("tool", "1.5"),
        ("web", "2.0"),
    )
    assert done.text == "2 installed from requirements.txt, 1 from the runtime (markupsafe)"
    # No scripts, no trace of this machine, no second entry for what the runtime has.
    assert sorted(p.name for p in site.iterdir()) == [
        "tool",
        "tool-1.5.dist-info",
        "web",
        "web-2.0.dist-info",
    ]
    assert sorted(p.name for p in (site / "web-2.0.dist-info").iterdir()) == [
        "METADATA",
        "RECORD",
        "WHEEL",
        "entry_points.txt",
    ]
    assert "bin/" not in (site / "web-2.0.dist-info" / "RECORD").read_text()


def test_equal_installations_have_equal_fingerprints(app: App, index: Index) -> None:
    index.add("web", "1.0", requires=("tool",))
    index.add("tool", "1.5")
    one, site = app.install("web")
    two, _ = app.install("tool\nweb")  # asked for directly, that time
    assert one.fingerprint == two.fingerprint
    assert (site / "web" / "__init__.py").read_text() == "version = '1.0'\n"
    index.add("tool", "1.6")
    app.cache = app.base / "another"  # uv looks at an index again after ten minutes
    three, _ = app.install("web\ntool==1.6")
    assert three.fingerprint != one.fingerprint


def test_nothing_asked_for_installs_nothing(app: App) -> None:
    done, site = app.install()
    assert done.distributions == ()
    assert list(site.iterdir()) == []
    assert "no requirements.txt" in done.text


def test_bundled_distributions_are_not_fetched(app: App, index: Index) -> None:
    done, site = app.install("numpy\npandas")
    assert {"numpy", "pandas", "python-dateutil"} <= dict(done.distributions).keys()
    assert list(site.iterdir()) == []


def test_a_pure_wheel_of_another_version_replaces_a_bundled_one(app: App, index: Index) -> None:
    index.add("jinja2", "3.0.0", requires=("markupsafe",))
    done, site = app.install("jinja2==3.0.0")
    assert dict(done.distributions)["jinja2"] == "3.0.0"
    assert sorted(p.name for p in site.iterdir()) == ["jinja2", "jinja2-3.0.0.dist-info"]


def test_a_bundled_distribution_that_does_not_fit_is_named(app: App, index: Index) -> None:
    index.add("numpy", "1.0", LINUX)
    index.add("web", "1.0")
    with pytest.raises(DependencyConflict) as caught:
        app.install("web\nnumpy==1.0\n")
    version = bundled()["numpy"].version
    assert f"line 2: 'numpy==1.0' does not fit numpy {version}" in caught.value.message
    assert caught.value.details["bundled"] == version


def test_all_that_is_native_only_is_reported_at_once(app: App, index: Index) -> None:
    index.add("psycopg2", "2.9", LINUX)
    index.add("orjson", "3.0", "cp315-cp315-win_amd64")
    index.add("web", "1.0", requires=("speedup",))
    index.add("speedup", "1.2", LINUX)
    index.add("fine", "1.0")
    with pytest.raises(DependencyNativeOnly) as caught:
        app.install("fine\npsycopg2\norjson>=2\nweb\n")
    error = caught.value
    assert error.message == (
        "3 dependencies have no pure Python wheel: orjson 3.0, psycopg2 2.9, speedup 1.2 (for web)"
    )
    assert "psycopg2: use pg8000" in error.hint
    assert "orjson: use the standard json module" in error.hint
    assert [(one["name"], one["needed_by"]) for one in error.details["packages"]] == [
        ("orjson", ""),
        ("psycopg2", ""),
        ("speedup", "web"),
    ]


def test_an_older_pure_version_is_taken_where_there_is_one(app: App, index: Index) -> None:
    index.add("pydantic", "1.10")
    index.add("pydantic", "2.0", requires=("pydantic-core",))
    index.add("pydantic_core", "1.0", LINUX)
    done, _ = app.install("pydantic")
    assert dict(done.distributions)["pydantic"] == "1.10"


def test_a_wheel_for_another_wasm_host_is_native_as_well(app: App, index: Index) -> None:
    index.add("fast", "1.0", PYODIDE)
    with pytest.raises(DependencyNativeOnly, match=r"fast 1\.0"):
        app.install("fast")


def test_what_does_not_exist_is_named(app: App, index: Index) -> None:
    index.add("web", "1.0", requires=("gone",))
    with pytest.raises(DependencyNotFound, match=r"line 1: 'nothere' does not exist"):
        app.install("nothere\n")
    with pytest.raises(DependencyNotFound, match=r"'web' needs 'gone', which does not exist"):
        app.install("web\n")
    with pytest.raises(DependencyNotFound, match=r"no version .* fits 'web==9'"):
        app.install("web==9\n")
    with pytest.raises(DependencyNotFound, match=r"'aa' does not exist.*'bb' does not exist"):
        app.install("aa\nbb\n")


def test_requirements_that_contradict_each_other_say_so(app: App, index: Index) -> None:
    index.add("web", "1.0", requires=("tool<2",))
    index.add("tool", "1.0")
    index.add("tool", "2.0")
    with pytest.raises(DependencyConflict) as caught:
        app.install("web\ntool>=2")
    assert "contradict each other" in caught.value.message
    assert "web" in caught.value.message and "tool>=2" in caught.value.message
    assert "web" in caught.value.details["said"]
    assert "hint:" not in caught.value.details["said"]
    with pytest.raises(DependencyConflict):
        app.install("tool>=2\ntool<2")


def test_a_wrong_hash_is_refused(app: App, index: Index) -> None:
    good = index.add("web", "1.0")
    done, _ = app.install(f"--require-hashes\nweb==1.0 --hash=sha256:{good}")
    assert dict(done.distributions) == {"web": "1.0"}
    with pytest.raises(DependencyInvalid, match="hash"):
        app.install(f"web==1.0 --hash=sha256:{'0' * 64}")


def test_an_index_that_cannot_be_reached_is_the_nodes_fault(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://user:secret@127.0.0.1:9/simple")
    with pytest.raises(DependencyFailed) as caught:
        app.install("web")
    assert "secret" not in str(caught.value.to_wire())


def test_constraints_hold(app: App, index: Index) -> None:
    index.add("web", "1.0")
    index.add("web", "2.0")
    (app.folder / "constraints.txt").write_text("web<2")
    done, _ = app.install("-c constraints.txt\nweb")
    assert dict(done.distributions) == {"web": "1.0"}


def lock(app: App, index: Index, dependencies: str, *, more: str = "") -> None:
    (app.folder / "pyproject.toml").write_text(
        f"[project]\nname='x'\nversion='1'\nrequires-python='>=3.11'\n"
        f"dependencies=[{dependencies}]\n{more}"
    )
    subprocess.run(
        [uv.find_uv_bin(), "lock", "--quiet", "--no-config", "--python", sys.executable],
        cwd=app.folder,
        env={"UV_DEFAULT_INDEX": index.url, "UV_CACHE_DIR": str(app.base / "c"), "NO_PROXY": "*"},
        check=True,
    )


def test_a_lock_file_decides_the_versions(app: App, index: Index) -> None:
    index.add("web", "1.0", requires=("markupsafe",))
    index.add("markupsafe", "2.0", LINUX)
    index.add("checks", "1.0")
    lock(app, index, "'web'", more="[dependency-groups]\ndev=['checks']\n")
    index.add("web", "2.0")
    done, _ = app.install("web==2.0")
    version = bundled()["markupsafe"].version
    assert dict(done.distributions) == {"web": "1.0", "markupsafe": version}
    assert "from uv.lock" in done.text
    assert f"markupsafe {version} of the runtime for the locked 2.0" in done.text


def test_a_lock_whose_project_excludes_the_bundled_version_conflicts(
    app: App, index: Index
) -> None:
    index.add("numpy", "1.26", LINUX)
    lock(app, index, "'numpy<2'")
    with pytest.raises(DependencyConflict, match=r"uv.lock: 'numpy<2' does not fit numpy"):
        app.install()


def test_a_lock_with_a_project_beside_it_is_refused(app: App, index: Index) -> None:
    other = app.folder / "other"
    other.mkdir()
    (other / "pyproject.toml").write_text("[project]\nname='other'\nversion='1'\n")
    lock(app, index, "'other'", more="[tool.uv.sources]\nother = { path = 'other' }\n")
    with pytest.raises(DependencyInvalid, match=r"uv.lock: './other' is a path"):
        app.install()


def test_a_damaged_lock_is_refused(app: App, index: Index) -> None:
    index.add("web", "1.0")
    lock(app, index, "'web'")
    (app.folder / "uv.lock").write_text("version = [")
    with pytest.raises(DependencyInvalid, match=r"uv.lock cannot be read"):
        app.install()
