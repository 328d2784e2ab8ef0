"""What the two halves of a build may do, tried by a process that is shut in as a builder is."""

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from isopod.sandbox.builder import named_paths
from isopod.sandbox.features import probe

STUB = Path(__file__).parents[2] / "stubs" / "attempting_builder.py"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    base = tmp_path_factory.mktemp("builder")
    data, cache = base / "data", base / "cache"
    for path in (data / "state.db", data / "token", data / "run/tmp/secret", cache / "modules/x"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("a secret")
    for folder in (data / "blobs", cache / "uv"):
        folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        done = subprocess.run(
            [sys.executable, str(STUB), str(data), str(cache), str(port)],
            capture_output=True,
            text=True,
            check=True,
        )
    print(done.stderr)
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def test_a_builder_lacks_nothing_that_the_kernel_offers(report):
    assert set(report["missing"]) == {one.what for one in probe().missing()}


def test_neither_half_reaches_what_is_not_a_builders(report):
    for half in ("first", "second"):
        met = {name: report[half][name] for name in report["never"]}
        print(f"SEEN {half} half: {met}")
        assert all(met.values()), met
        assert not {"ENOENT", "EINVAL", "EFAULT"} & set(met.values())


def test_the_first_half_fetches_and_the_second_has_neither_network_nor_programs(report):
    assert {report["first"][name] for name in report["first_only"]} == {""}
    met = {name: report["second"][name] for name in report["first_only"]}
    assert met == {
        "use the network": "EPERM",
        "start a program": "EPERM",
        "read the resolver's file": "EACCES",
        "write uv's cache": "EACCES",
    }
    assert report["second"]["use the network, in a new thread"] == "EPERM"


def test_both_halves_may_work(report):
    for half in ("first", "second"):
        rest = set(report[half]) - set(report["never"]) - set(report["first_only"])
        rest.discard("use the network, in a new thread")
        assert {report[half][name] for name in rest} == {""}


def test_a_builder_is_in_namespaces_of_its_own(report):
    if "pid namespace" not in report["missing"]:
        assert report["process"] == 1
    assert report["other_network"] == ("net namespace" not in report["missing"])
    assert report["core"] == [0, 0]


def test_files_that_an_operator_names_for_uv_may_be_read(tmp_path):
    found = named_paths(
        {
            "SSL_CERT_FILE": "/etc/ssl/own.pem",
            "UV_INDEX": "ours=file:///srv/simple%20index https://pypi.org/simple",
            "UV_FIND_LINKS": "/srv/wheels",
            "UV_OFFLINE": "1",
            "NO_PROXY": "/",
        }
    )
    assert set(map(str, found)) == {"/etc/ssl/own.pem", "/srv/simple index", "/srv/wheels"}
