"""The real builder process, with real guests. The runtime is prepared once per machine."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.bombs import many_functions

from isopod.blobs.store import BlobStore
from isopod.blobs.trees import TreeCache
from isopod.builder.sites import SiteCache, site_key
from isopod.builder.steps import build_key
from isopod.model.app import AppSpec, Build
from isopod.model.build import BuildJob
from isopod.model.ids import AppName, Digest
from isopod.package.pack import pack
from isopod.sandbox.features import probe
from isopod.settings import NodeSettings

HELLO = """\
import greeting
print("printed while it is imported")
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [greeting.text.encode()]
"""
FILES = {"app.py": HELLO, "greeting.py": "text = 'hello'\n"}


@pytest.fixture(scope="session")
def cache_dir() -> Path:
    """The machine's cache: preparing CPython takes 45 s once."""
    folder = NodeSettings.load().cache_dir
    command = [sys.executable, "-m", "isopod.runtimes.prepare", "python", str(folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


class Node:
    def __init__(self, base: Path, cache_dir: Path) -> None:
        self.base = base
        self.cache_dir = cache_dir
        self.blobs = BlobStore(base / "blobs")
        self.trees = TreeCache(base / "trees", self.blobs)

    def package(self, files: Mapping[str, str | bytes]) -> Digest:
        folder = self.base / f"folder-{len(list(self.base.iterdir()))}"
        for name, text in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        out = io.BytesIO()
        pack(folder, out)
        return self.blobs.put_bytes(out.getvalue())

    def job(self, package: str, **values: Any) -> BuildJob:
        given: dict[str, Any] = {
            "app_name": "",
            "folder_name": "My Shop",
            "env": {},
            "timeout_s": 120.0,
            **values,
        }
        return BuildJob(
            package=package,
            blobs_dir=str(self.base / "blobs"),
            images_dir=str(self.base / "images"),
            image_cache_mib=1024,
            trees_dir=str(self.base / "trees"),
            cache_dir=str(self.cache_dir),
            **given,
        )

    def build(self, job: BuildJob) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Its steps, and its last line. Every line it writes is JSON."""
        done = run(json.dumps(job.to_json()))
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert all("step" in line for line in lines[:-1]), done.stderr
        assert done.returncode == (0 if "result" in lines[-1] else 1)
        # Nothing temporary is left, however it ended.
        assert not [p.name for p in (self.base / "trees").iterdir() if p.name.startswith(".")]
        assert self.blobs.sweep() == 0
        return [line["step"] for line in lines[:-1]], lines[-1]

    def error(self, files: Mapping[str, str | bytes], **values: Any) -> dict[str, Any]:
        return self.build(self.job(self.package(files), **values))[1]["error"]  # type: ignore[no-any-return]


def run(text: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "isopod.builder"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


@pytest.fixture
def node(tmp_path: Path, cache_dir: Path) -> Node:
    return Node(tmp_path, cache_dir)


@pytest.fixture
def cold(tmp_path: Path) -> Node:
    """For what fails before a guest is needed."""
    return Node(tmp_path, tmp_path / "cache")


def test_an_app_becomes_compiled_trees_that_answered_a_request(node: Node) -> None:
    package = node.package({**FILES, "isopod.toml": "[env]\nA = '1'\nB = '1'\n"})
    steps, last = node.build(node.job(package, env={"B": "2"}))
    assert [(s["name"], s["state"]) for s in steps] == [
        (name, state)
        for name in ("unpack", "detect", "dependencies", "compile", "start", "snapshot")
        for state in ("start", "done")
    ]
    assert "/ answered 200" in steps[-3]["text"]
    assert last["result"]["snapshot"]["verdict"] == "sound", last["result"]["snapshot"]
    spec = AppSpec.from_json(last["result"]["spec"])
    build = Build.from_json(last["result"]["build"])
    assert (spec.name, spec.entrypoint, spec.env) == ("my-shop", "app:app", {"A": "1", "B": "2"})
    assert last["result"]["name"] == "my-shop"
    tree = node.trees.ensure(build.app_tree)
    assert (tree / "app.py").read_text() == HELLO
    assert sorted(p.name.split(".")[0] for p in (tree / "__pycache__").iterdir()) == [
        "app",
        "greeting",
    ]
    # The same again: the same key, and what a build left can be taken as it is.
    steps, again = node.build(node.job(package, app_name="other", reuse=build.to_json()))
    assert again["result"]["build"] == last["result"]["build"]
    assert again["result"]["name"] == "other"
    assert {s["text"] for s in steps if s["name"] == "compile"} == {"As built before"}


def test_an_earlier_build_whose_blob_is_gone_is_made_again(node: Node) -> None:
    package = node.package(FILES)
    _, last = node.build(node.job(package))
    build = Build.from_json(last["result"]["build"])
    node.blobs.delete(build.app_tree)
    node.trees.delete(build.app_tree)
    _, again = node.build(node.job(package, reuse=build.to_json()))
    assert again["result"]["build"]["key"] == build.key
    assert node.blobs.has(Digest(again["result"]["build"]["app_tree"]))


@pytest.mark.parametrize(
    ("files", "code", "says"),
    [
        ({"readme.txt": "x"}, "app_not_detected", "found no WSGI or ASGI application"),
        ({"app.py": "def app(:\n"}, "app_syntax_error", "app.py, line 1"),
        ({"app.py": HELLO, "isopod.toml": "[ap]\n"}, "manifest_invalid", "isopod.toml, line 1"),
        ({"app.py": HELLO, "isopod.toml": "[app]\nentrypoint='x:y'"}, "entrypoint_not_found", "'x"),
        ({"app.py": HELLO, "isopod.toml": "[app]\nruntime='cobol'"}, "runtime_not_found", "cobol"),
        ({"app.py": HELLO, "requirements.txt": "-e ."}, "dependency_invalid", "editable"),
    ],
)
def test_what_is_wrong_with_the_folder_is_the_last_line(
    cold: Node, files: dict[str, str], code: str, says: str
) -> None:
    error = cold.error(files)
    assert error["code"] == code
    assert says in error["message"]


def test_a_runtime_that_is_not_prepared_is_said(cold: Node) -> None:
    assert cold.error({"app.py": HELLO})["code"] == "runtime_not_prepared"


def test_a_package_that_is_damaged_or_absent_is_named(cold: Node) -> None:
    absent = "0" * 64
    assert cold.build(cold.job(absent))[1]["error"]["code"] == "blob_missing"
    garbage = cold.blobs.put_bytes(b"no package")
    assert cold.build(cold.job(garbage))[1]["error"]["code"] == "package_corrupt"
    package = cold.package(FILES)
    cold.blobs.path(package).write_bytes(b"other bytes")
    error = cold.build(cold.job(package))[1]["error"]
    assert error["code"] == "blob_corrupt"
    assert package in error["message"]


@pytest.mark.parametrize(
    ("files", "code", "says"),
    [
        ({"app.py": HELLO, "greeting.py": "text = ("}, "app_syntax_error", "greeting.py"),
        ({"app.py": HELLO}, "app_failed_to_start", "No module named 'greeting'"),
        ({"app.py": "app = 7 + 1"}, "entrypoint_not_callable", "app:app"),
        ({"app.py": "def app(e, s):\n    raise ValueError(4711)"}, "health_failed", "500"),
        (
            {
                **FILES,
                "isopod.toml": "[health]\npath='/x'",
                "greeting.py": "import os; os._exit(3)",
            },
            "app_failed_to_start",
            "",
        ),
    ],
)
def test_what_is_wrong_with_the_app_shows_in_a_guest(
    node: Node, files: dict[str, str], code: str, says: str
) -> None:
    error = node.error(files)
    assert error["code"] == code, error
    assert says in json.dumps(error)


def test_a_build_that_takes_too_long_ends(node: Node) -> None:
    error = node.error({"app.py": "while True: pass\napp = 1 + 1"}, timeout_s=1.5)
    assert error["code"] == "build_timeout", error
    assert "1.5 s" in error["message"]


def test_a_job_that_is_none_is_refused() -> None:
    for text in ("", "{}", "[1]", "rubbish"):
        done = run(text)
        assert json.loads(done.stdout)["error"]["code"] == "build_failed"
        assert done.returncode == 1


def test_a_builder_dies_with_its_parent() -> None:
    """The parent ends while the builder waits for its job; both ends of its pipes stay open."""
    alive_read, alive_write = os.pipe()
    job_read, job_write = os.pipe()
    code = (
        "import subprocess, sys; "
        "p = subprocess.Popen([sys.executable, '-c', sys.argv[1]], "
        "stdin=int(sys.argv[2]), stdout=subprocess.PIPE, pass_fds=[int(sys.argv[3])]); "
        "p.stdout.readline()"  # it has bound itself
    )
    builder = (
        "import isopod.builder.__main__ as m; own = m._own_output; "
        "m._own_output = lambda: (print('bound', flush=True), own())[1]; m.main()"
    )
    parent = subprocess.run(
        [sys.executable, "-c", code, builder, str(job_read), str(alive_write)],
        pass_fds=[job_read, alive_write],
        check=False,
    )
    assert parent.returncode == 0
    os.close(alive_write)
    assert os.read(alive_read, 1) == b""  # the last holder of the other end is gone
    for number in (alive_read, job_read, job_write):
        os.close(number)


def test_a_site_is_kept_for_other_nodes_and_not_when_it_is_damaged(tmp_path: Path) -> None:
    one, two = Node(tmp_path / "1", tmp_path), Node(tmp_path / "2", tmp_path)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "x.py").write_text("x = 1")
    key = site_key("acme", Digest("a" * 64), Digest("b" * 64))
    tree = one.trees.make(tmp_path / "site")
    cache = SiteCache(tmp_path / "sites", one.blobs)
    assert cache.find(key) is None
    cache.keep(key, tree)
    assert cache.find(key) == tree
    other = SiteCache(tmp_path / "sites", two.blobs)
    assert other.find(key) == tree
    assert (two.trees.ensure(tree) / "x.py").read_text() == "x = 1"
    two.blobs.delete(tree)
    (tmp_path / "sites" / f"{key}.tree").write_bytes(b"damaged")
    assert other.find(key) is None
    (tmp_path / "sites" / f"{key}.json").write_text("[]")
    assert cache.find(key) is None


def test_a_tenants_build_does_not_tell_what_another_depends_on(
    tmp_path: Path, cache_dir: Path
) -> None:
    own = tmp_path / "cache"  # others build on this machine meanwhile
    own.mkdir()
    for entry in cache_dir.iterdir():
        if entry.name != "sites":
            (own / entry.name).symlink_to(entry)
    node = Node(tmp_path / "node", own)
    package = node.package(FILES)

    def compiled_anew(tenant: str) -> bool:
        """Whether the build made a site of its own."""
        before = set(own.glob("sites/*.json"))
        node.build(node.job(package, tenant=tenant))
        return bool(set(own.glob("sites/*.json")) - before)

    assert compiled_anew("acme")
    assert compiled_anew("globex")  # as if acme had built nothing
    assert not compiled_anew("acme")


@pytest.mark.parametrize(
    ("folder_name", "name"),
    [
        ("shop", "shop"),
        ("My Shop_2.0", "my-shop-2-0"),
        ("--x--", "x"),
        ("été", "t"),
        ("", "app"),
        ("日本", "app"),
        ("api", "api-app"),
        ("xn", "xn-app"),
        ("a" * 80, "a" * 63),
    ],
)
def test_a_name_is_made_from_the_folders(folder_name: str, name: str) -> None:
    assert AppName.of_folder(folder_name) == name


def test_the_key_changes_with_package_and_runtime() -> None:
    digests = [Digest(letter * 64) for letter in "abc"]
    keys = {build_key(package, runtime) for package in digests for runtime in digests}
    assert len(keys) == 9


def test_only_a_new_snapshot_is_taken_of_what_serves_already(node: Node) -> None:
    package = node.package(FILES)
    _, first = node.build(node.job(package))
    made = first["result"]
    node.blobs.delete(package)  # not needed
    node.trees.delete(Digest(made["build"]["app_tree"]))
    again = {"spec": made["spec"], "build": made["build"]}
    steps, last = node.build(node.job(package, only_snapshot=again))
    assert {step["name"] for step in steps} == {"snapshot"}
    assert last["result"]["spec"] == made["spec"]
    assert last["result"]["build"] == made["build"]
    taken = last["result"]["snapshot"]
    assert taken["verdict"] == "sound" and taken["runtime"] == made["snapshot"]["runtime"]
    assert node.blobs.has(Digest(taken["image"]))
    node.blobs.delete(Digest(made["build"]["app_tree"]))
    node.trees.delete(Digest(made["build"]["app_tree"]))
    _, failed = node.build(node.job(package, only_snapshot=again))
    assert failed["error"]["code"] == "blob_missing"


def test_a_build_that_uses_too_much_memory_ends_with_the_limit_named(node: Node) -> None:
    # Read by the host, to find the app: a tree of millions of nodes.
    files = {"app.py": f"x = [{'1, ' * 3_000_000}]\n{HELLO}"}
    error = node.error(files, memory_mib=200)
    assert error["code"] == "build_memory_exceeded", error
    assert "200 MiB" in error["message"]
    assert error["details"]["limit_mib"] == 200


def test_a_build_that_hears_no_interrupt_ends_with_its_time(node: Node) -> None:
    # One long call in C, in which no handler of Python's runs.
    files = {"app.py": f"x = {'9' * 4000}\n" + "y = " + " + ".join(["1"] * 200_000) + "\n" + HELLO}
    error = node.error(files, timeout_s=0.2)
    assert error["code"] == "build_timeout", error


def test_a_build_on_this_kernel_lacks_no_part_of_its_sandbox(node: Node) -> None:
    missing = probe().missing()
    last = node.build(node.job(node.package(FILES), require_sandbox=True))[1]
    if missing:  # then it must say so
        assert last["error"]["code"] == "sandbox_unavailable", last
    else:
        assert "result" in last, last


WITHOUT_NAMESPACES = """
import errno, runpy, pyseccomp
made = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
made.add_rule(pyseccomp.ERRNO(errno.EPERM), "unshare")
made.load()
runpy.run_module("isopod.builder", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("required", [False, True])
def test_where_namespaces_are_refused_a_build_is_made_unless_the_whole_sandbox_is_required(
    node: Node, required: bool
) -> None:
    job = node.job(node.package(FILES), require_sandbox=required)
    command = [sys.executable, "-c", WITHOUT_NAMESPACES]
    done = subprocess.run(
        command, input=json.dumps(job.to_json()), capture_output=True, text=True, check=False
    )
    last = json.loads(done.stdout.splitlines()[-1])
    if not required:
        assert "result" in last, last
        return
    assert last["error"]["code"] == "sandbox_unavailable"
    assert "user namespace" in last["error"]["details"]["missing"]


def test_a_module_that_is_too_much_work_for_the_compiler_ends_in_the_builder(cold: Node) -> None:
    error = cold.error({"a.wasm": many_functions(900_000)}, timeout_s=3.0)
    assert error["code"] == "build_timeout"
