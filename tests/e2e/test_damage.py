"""Disks that change what was written, and disks that are full: refused by name, never served,
nothing lost."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.nodes import APPS, Failed, get, hello, messages, refused, text, until, up

from tools.node import Node


def damage(path: Path) -> None:
    """Change a byte in the middle; the size stays."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.chmod(0o600)
    path.write_bytes(data)


def blobs(data_dir: Path) -> list[Path]:
    return [path for path in (data_dir / "blobs").rglob("*") if path.is_file()]


def test_damaged_blobs_are_not_served_and_are_named(deployed, tmp_path):
    shutil.rmtree(deployed / "trees")
    for blob in blobs(deployed):
        damage(blob)
    with up(deployed) as node:
        answer = get(node, "app")
        assert answer.status == 500 and answer["X-Isopod-Error"] == "blob_corrupt"
        print(f"SEEN damaged blob: {answer.status} {answer.text}")
        log = messages(node, "app")
        assert "blob_corrupt" in log and str(deployed / "blobs") in log
        assert str(deployed) not in answer.text
        node.cli("deploy", str(hello(tmp_path / "other", "other")), "--name", "other")
        assert text(node, "other") == "other"


def test_deploying_again_heals_what_was_damaged(deployed, tmp_path):
    """As the error's hint says."""
    shutil.rmtree(deployed / "trees")
    for blob in blobs(deployed):
        damage(blob)
    with up(deployed) as node:
        assert get(node, "app").status == 500
        done = node.run("deploy", str(hello(tmp_path / "app")), "--name", "app")
        print(f"SEEN deploy over damaged blobs: {done.stderr}")
        assert done.returncode == 0, done.stderr
        # An instance that failed to start answers for its successors for a second.
        until("it serves", lambda: get(node, "app").status == 200)
        assert text(node, "app") == "hello"


def test_a_missing_blob_is_named(deployed):
    shutil.rmtree(deployed / "trees")
    for blob in blobs(deployed):
        blob.unlink()
    with up(deployed) as node:
        answer = get(node, "app")
        assert answer.status == 500 and answer["X-Isopod-Error"] == "blob_missing"
        assert "blob_missing" in messages(node, "app")


def test_a_damaged_tree_is_made_again_from_its_blob(deployed):
    files = [path for path in (deployed / "trees").rglob("*.py*") if path.is_file()]
    assert files
    for file in files:
        damage(file)
    with up(deployed) as node:
        assert text(node, "app") == "hello"


def test_a_damaged_page_of_the_database_is_refused_by_name_and_a_backup_heals(deployed):
    state = deployed / "state.db"
    with contextlib.closing(sqlite3.connect(state)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        pages = db.execute("PRAGMA page_count").fetchone()[0]
        size = db.execute("PRAGMA page_size").fetchone()[0]
    backup = state.read_bytes()
    for page in sorted({0, 1, pages // 2, pages - 1}):
        with state.open("r+b") as file:
            file.seek(page * size)
            file.write(os.urandom(size))
        status, said = refused(deployed)
        assert status == 3, (page, said)
        assert "code: state_corrupt" in said and str(state) in said, (page, said)
        assert "Traceback" not in said
        state.write_bytes(backup)
    print(f"SEEN damaged page: {said}")
    with up(deployed) as node:
        assert text(node, "app") == "hello"


def test_a_damaged_projection_of_the_routes_is_made_again(deployed):
    (deployed / "routes" / "routes.db").write_bytes(os.urandom(10_000))
    with up(deployed) as node:
        assert text(node, "app") == "hello"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 96 MiB in a file."""
    folder, image = tmp_path / "disk", tmp_path / "disk.img"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(96 << 20)
    for command in (
        ("mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=0", image),
        ("mount", "-o", "loop", image, folder),
    ):
        try:
            subprocess.run(command, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            said = getattr(error, "stderr", error)
            pytest.skip(f"cannot mount a small disk, so a full one is not tried: {said}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Leave nothing free."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 20))
    with ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(512))
    return ballast


def test_a_full_disk_fails_the_deploy_clearly_and_loses_nothing(small_disk, tmp_path):
    with up(small_disk / "data", said=tmp_path / "up.log") as node:
        node.cli("deploy", str(APPS / "kitchen"), "--name", "kitchen")
        node.cli("deploy", str(hello(tmp_path / "old", "old")), "--name", "app")
        assert text(node, "app") == "old"
        assert text(node, "kitchen") == "hello\n"
        ballast = fill(small_disk)
        new = hello(tmp_path / "new", "new")
        (new / "data.bin").write_bytes(os.urandom(1 << 20))
        failed = Failed(node, "deploy", str(new), "--name", "app")
        assert (failed.code, failed.status) == ("disk_full", 3), failed.err
        # Instances serve on, also one whose app writes to its log.
        assert text(node, "app") == "old"
        assert text(node, "kitchen", "/say") == "said"
        # A new one needs room for its /tmp, which the one before may have left, or says so.
        node.cli("sleep", "kitchen")
        answer = get(node, "kitchen")
        assert answer.status == 200 or answer["X-Isopod-Error"] == "disk_full", answer.text
        ballast.unlink()
        until("it serves again", lambda: get(node, "kitchen").status == 200)
        assert not list((node.data_dir / "uploads").iterdir())
        node.cli("deploy", str(new), "--name", "app")
        assert text(node, "app") == "new"
    with up(small_disk / "data", said=tmp_path / "up.log") as node:
        assert text(node, "app") == "new"


def test_a_disk_that_fills_up_at_any_step_loses_nothing(small_disk, tmp_path):
    """With ever more room the deploy gets ever further."""
    with up(small_disk / "data", said=tmp_path / "up.log") as node:
        node.cli("deploy", str(hello(tmp_path / "old", "old")), "--name", "app")
        assert text(node, "app") == "old"
        new = hello(tmp_path / "new", "new")
        (new / "data.bin").write_bytes(os.urandom(512 << 10))
        seen = []
        for room_kib in (0, 64, 600, 1500, 3000, 12_000):
            ballast = fill(small_disk)
            os.truncate(ballast, ballast.stat().st_size - (room_kib << 10))
            done = node.run("deploy", str(new), "--name", "app")
            if done.returncode == 0:
                seen.append("done")
                break
            seen.append(done.stderr.partition("code: ")[2].split()[0])
            assert text(node, "app") == "old"
            ballast.unlink()
        print(f"SEEN with ever more room: {seen}")
        assert set(seen[:-1]) == {"disk_full"}
        (small_disk / "ballast").unlink(missing_ok=True)
        node.cli("deploy", str(new), "--name", "app")
        assert text(node, "app") == "new"


def test_a_node_does_not_start_on_a_full_disk_and_says_why(small_disk, tmp_path):
    with up(small_disk / "data", said=tmp_path / "up.log") as node:
        node.cli("deploy", str(hello(tmp_path / "app")), "--name", "app")
    ballast = fill(small_disk)
    said_path = tmp_path / "said"
    status, said = _start_on_full(small_disk / "data", said_path)
    print(f"SEEN start on a full disk: {status} {said}")
    assert status in (0, 3) and "Traceback" not in said
    if status:
        assert "code: disk_full" in said
    ballast.unlink()
    with up(small_disk / "data", said=tmp_path / "up.log") as again:
        assert text(again, "app") == "hello"


def _start_on_full(data_dir: Path, said: Path) -> tuple[int, str]:
    """It may start (nothing needs to be written) or say that the disk is full."""
    from tools import node as nodes

    node: Node = nodes.start(data_dir, said=said, workers=1)
    try:
        until(
            "it is up or has ended",
            lambda: (data_dir / "node.json").exists() or node.process.poll() is not None,
        )
        return node.process.poll() or 0, node.said
    finally:
        if node.process.poll() is None:
            node.stop()
