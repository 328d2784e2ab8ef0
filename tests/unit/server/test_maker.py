"""A process of its own for each test: what it forks shuts itself in, and it may then only read."""

import contextlib
import json
import os
import select
import subprocess
import sys

import pytest

from isopod.server.data_dir import prepare_data_dir
from isopod.settings import NodeSettings

BEGIN = """
import json, os, signal, sys
from pathlib import Path
from isopod.blobs.store import BlobStore
from isopod.blobs.trees import TreeCache
from isopod.errors import IsopodError
from isopod.model.ids import Digest
from isopod.sandbox.features import probe
from isopod.server.maker import ReadTrees, start_maker
from isopod.server.worker_folders import WorkerFolders
from isopod.settings import NodeSettings
settings = NodeSettings.from_json(json.loads(sys.argv[1]))
blobs = BlobStore(settings.blobs_dir)
app = settings.data_dir / "app"
app.mkdir()
(app / "app.py").write_text("x = 1")
digest = TreeCache(settings.trees_dir, blobs).make(app)
TreeCache(settings.trees_dir, blobs).delete(digest)
reading, writing = os.pipe()
folders = WorkerFolders.of(settings, 0, None)
maker = start_maker(settings, probe(), folders=folders, others=(writing,))
trees = ReadTrees(settings.trees_dir, blobs, maker=maker)
def code(ask):
    try:
        ask()
    except IsopodError as bad:
        return bad.code
    return "made"
"""


@pytest.fixture
def said(tmp_path):
    settings = NodeSettings.load(data_dir=tmp_path / "node")
    prepare_data_dir(settings)

    def run(code: str) -> str:
        command = [sys.executable, "-c", BEGIN + code, json.dumps(settings.to_json())]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


def test_a_tree_that_is_not_there_is_made_by_the_other_process(said):
    assert said("print((trees.ensure(digest) / 'app.py').read_text())") == "x = 1"


def test_a_tree_that_was_damaged_is_made_again(said):
    code = (
        "(trees.ensure(digest) / 'app.py').write_text('y = 2')\n"
        "again = ReadTrees(settings.trees_dir, blobs, maker=maker)\n"
        "print((again.ensure(digest) / 'app.py').read_text())"
    )
    assert said(code) == "x = 1"


def test_what_cannot_be_made_says_why(said):
    assert said("print(code(lambda: trees.ensure(Digest('0' * 64))))") == "blob_missing"


@pytest.mark.parametrize("digest", ["../../etc", "", "0" * 63, "A" * 64])
@pytest.mark.parametrize("what", ["tree", "image", "forget"])
def test_it_is_asked_for_digests_and_nothing_else(said, what, digest):
    found = said(f"print(code(lambda: maker.ask({what!r}, {digest!r}, Path('/etc/passwd'))))")
    assert found not in ("made", "internal_error")


def test_it_is_missed_when_it_is_gone(said):
    code = (
        "print(maker.is_gone())\n"
        "child = int(Path(f'/proc/self/task/{os.getpid()}/children').read_text())\n"
        "os.kill(child, signal.SIGKILL)\nos.waitpid(child, 0)\n"
        "print(maker.is_gone(), code(lambda: maker.ask('tree', digest)))"
    )
    assert said(code).split() == ["False", "True", "internal_error"]


def test_it_ends_with_its_worker_and_keeps_none_of_its_descriptors(said):
    code = (
        "child = int(Path(f'/proc/self/task/{os.getpid()}/children').read_text())\n"
        "os.close(writing)\nassert os.read(reading, 1) == b''\n"  # the other's end is closed
        "print(child, flush=True)"
    )
    child = int(said(code))
    with contextlib.suppress(ProcessLookupError):
        watched = os.pidfd_open(child)
        assert select.select([watched], [], [], 10)[0], "it runs on"
        os.close(watched)
