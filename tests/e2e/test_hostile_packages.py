"""Packages that no honest client makes, sent straight to the API; and who may ask it at all."""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from tests.e2e.nodes import HELLO, hello, text

from tools import processes
from tools.node import Node

APP = (HELLO % "hostile").encode()


def call(
    node: Node, method: str, path: str, body: Any = None, **headers: str
) -> tuple[int, list[dict]]:
    """The lines of the API's answer."""
    sent = {"Authorization": f"Bearer {node.token}"} | headers
    link = http.client.HTTPConnection("127.0.0.1", node.control_port, timeout=60)
    try:
        link.request(method, path, body, {k: v for k, v in sent.items() if v})
        response = link.getresponse()
        return response.status, [json.loads(line) for line in response.read().splitlines()]
    finally:
        link.close()


def deploy(node: Node, package: bytes, **body: Any) -> dict:
    """Upload and deploy; the last line."""
    digest = hashlib.sha256(package).hexdigest()
    status, lines = call(node, "PUT", f"/v1/packages/{digest}", package)
    if status != 200:
        return lines[-1]
    body = {"package": digest, "name": "hostile"} | body
    return call(
        node, "POST", "/v1/deploys", json.dumps(body), **{"Content-Type": "application/json"}
    )[1][-1]


def packed(fill: Callable[[tarfile.TarFile], None]) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        add(tar, "app.py", APP)
        fill(tar)
    return zstandard.compress(raw.getvalue())


def add(tar: tarfile.TarFile, name: str, data: bytes = b"x", **fields: Any) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data) if fields.get("type", tarfile.REGTYPE) == tarfile.REGTYPE else 0
    for key, value in fields.items():
        setattr(entry, key, value)
    tar.addfile(entry, io.BytesIO(data))


def many(tar: tarfile.TarFile) -> None:
    for number in range(100_000):
        add(tar, f"many/{number}", b"")


def bomb(tar: tarfile.TarFile) -> None:
    for number in range(8):
        add(tar, f"bomb{number}", bytes(64 << 20))


HOSTILE = {
    "a path that leads out": (lambda tar: add(tar, "../escape"), "package_unsafe"),
    "a path that leads out deeper down": (
        lambda tar: add(tar, "a/../../escape"),
        "package_unsafe",
    ),
    "an absolute path": (lambda tar: add(tar, "/tmp/isopod-escape"), "package_unsafe"),
    "a symlink out": (
        lambda tar: add(tar, "link", type=tarfile.SYMTYPE, linkname="../../../etc"),
        "package_unsafe",
    ),
    "an absolute symlink": (
        lambda tar: add(tar, "link", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        "package_unsafe",
    ),
    "a hard link": (
        lambda tar: add(tar, "link", type=tarfile.LNKTYPE, linkname="/etc/passwd"),
        "package_unsafe",
    ),
    "a device": (lambda tar: add(tar, "null", type=tarfile.CHRTYPE), "package_unsafe"),
    "100,000 files": (many, "package_too_large"),
    "a bomb": (bomb, "package_too_large"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_package_is_refused_and_leaves_nothing(node, what):
    fill, code = HOSTILE[what]
    package = packed(fill)
    before = sorted(path.name for path in (node.data_dir / "trees").iterdir())
    error = deploy(node, package)["error"]
    print(f"SEEN {what} ({len(package):,} bytes): {error['code']}: {error['message']}")
    assert error["code"] == code and error["whose"] == "caller"
    assert sorted(path.name for path in (node.data_dir / "trees").iterdir()) == before
    assert not (node.data_dir.parent / "escape").exists()
    assert not Path("/tmp/isopod-escape").exists()
    assert call(node, "GET", "/v1/apps/hostile")[0] == 404


@pytest.mark.parametrize(
    "package",
    [b"", b"garbage" * 100, packed(lambda tar: None)[:-30], zstandard.compress(b"no tar" * 1000)],
    ids=["empty", "garbage", "truncated", "no tar"],
)
def test_a_damaged_package_is_refused(node, package):
    error = deploy(node, package)["error"]
    print(f"SEEN damaged package: {error['code']}: {error['message']}")
    assert error["code"] == "package_corrupt"


def test_a_package_that_is_not_its_digest_is_not_kept(node):
    digest = hashlib.sha256(b"this").hexdigest()
    status, lines = call(node, "PUT", f"/v1/packages/{digest}", b"that")
    assert status == 422 and lines[0]["error"]["code"] == "package_corrupt"
    assert call(node, "HEAD", f"/v1/packages/{digest}")[0] == 404
    assert not list((node.data_dir / "uploads").iterdir())


def test_the_honest_package_among_them_is_deployed(node):
    assert deploy(node, packed(lambda tar: None), name="honest")["result"]["app"] == "honest"
    assert text(node, "honest") == "hostile"


CALLS = [
    ("GET", "/v1/status"),
    ("GET", "/v1/apps"),
    ("DELETE", "/v1/apps/precious"),
    ("POST", "/v1/deploys"),
    ("PUT", f"/v1/packages/{'0' * 64}"),
    ("GET", "/v1/apps/precious/logs"),
    ("POST", "/v1/apps/precious/rollback"),
    ("GET", "/v1/nothing"),
]


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_calls_without_the_token_are_refused(node, tmp_path, method, path):
    node.cli("deploy", str(hello(tmp_path, "precious")), "--name", "precious")
    for token in ("", "Bearer wrong", f"Basic {node.token}", "Bearer "):
        status, lines = call(node, method, path, Authorization=token)
        assert status == 401 and lines[0]["error"]["code"] == "unauthorized"
        assert node.token not in str(lines)
    assert text(node, "precious") == "precious"


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8081", "hello.localhost", "10.0.0.1"]
)
def test_the_control_api_does_not_answer_to_other_names(node, host):
    status, lines = call(node, "GET", "/v1/status", Host=host)
    assert status == 421 and lines[0]["error"]["code"] == "host_refused"
    assert call(node, "GET", "/v1/health", Host=host, Authorization="")[0] == 421
    for own in ("localhost", "127.0.0.1", "[::1]", f"localhost:{node.control_port}"):
        assert call(node, "GET", "/v1/status", Host=own)[0] == 200


def test_the_token_is_for_its_owner_alone_and_in_no_process_list(node):
    assert (node.data_dir / "token").stat().st_mode & 0o777 == 0o600
    assert node.data_dir.stat().st_mode & 0o777 == 0o700
    family = [processes.look(node.process.pid), *node.children()]
    assert all(one and node.token not in one.command for one in family)
    assert node.token not in node.said
