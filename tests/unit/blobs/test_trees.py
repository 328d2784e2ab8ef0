import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from isopod.blobs.store import BlobStore
from isopod.blobs.trees import TreeCache
from isopod.errors import BlobCorrupt, BlobMissing


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


@pytest.fixture
def trees(tmp_path: Path, blobs: BlobStore) -> TreeCache:
    return TreeCache(tmp_path / "trees", blobs)


def again(trees: TreeCache, tmp_path: Path, blobs: BlobStore) -> TreeCache:
    """As another process would see it: nothing verified yet."""
    return TreeCache(tmp_path / "trees", blobs)


def a_folder(base: Path) -> Path:
    folder = base / "folder"
    (folder / "pkg" / "sub").mkdir(parents=True)
    (folder / "app.py").write_text("app = 1\n")
    (folder / "pkg" / "sub" / "naïve.txt").write_bytes(b"\0" * 5000)
    tool = folder / "tool"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o700)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def test_equal_folders_give_equal_digests_whatever_their_times(
    trees: TreeCache, tmp_path: Path
) -> None:
    one, two = a_folder(tmp_path / "one"), a_folder(tmp_path / "two")
    for path in two.rglob("*"):
        os.utime(path, (1, 1))
    (two / "app.py").chmod(0o600)
    assert trees.make(one) == trees.make(two)
    (two / "app.py").write_text("app = 2\n")
    assert trees.make(one) != trees.make(two)


def test_a_tree_is_extracted_as_it_was(trees: TreeCache, tmp_path: Path) -> None:
    folder = a_folder(tmp_path)
    digest = trees.make(folder)
    tree = trees.ensure(digest)
    assert tree == trees.path(digest)
    assert contents(tree) == contents(folder)
    assert (tree / "tool").stat().st_mode & 0o777 == 0o755
    assert (tree / "app.py").stat().st_mode & 0o777 == 0o644
    assert list(trees.digests()) == [digest]


def test_an_empty_folder_is_a_tree(trees: TreeCache, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert contents(trees.ensure(trees.make(tmp_path / "empty"))) == {}


@pytest.mark.parametrize("damage", ["changed", "longer", "gone", "extra", "listing", "all"])
def test_a_damaged_copy_is_made_again_from_its_blob(
    trees: TreeCache, tmp_path: Path, blobs: BlobStore, damage: str
) -> None:
    folder = a_folder(tmp_path)
    digest = trees.make(folder)
    tree = trees.path(digest)
    if damage == "changed":
        (tree / "app.py").write_text("app = 2\n")
    elif damage == "longer":
        (tree / "app.py").write_text("app = 12345\n")
    elif damage == "gone":
        (tree / "app.py").unlink()
    elif damage == "extra":
        (tree / "more.py").write_text("")
    elif damage == "listing":
        (tree.parent / "files.json").write_text(json.dumps({"app.py": 1}))
    else:
        trees.delete(digest)
    assert contents(again(trees, tmp_path, blobs).ensure(digest)) == contents(folder)
    assert sorted(p.name for p in tree.parent.parent.iterdir()) == [digest]


def test_a_damaged_copy_with_a_damaged_blob_is_refused(
    trees: TreeCache, tmp_path: Path, blobs: BlobStore
) -> None:
    digest = trees.make(a_folder(tmp_path))
    (trees.path(digest) / "app.py").write_text("app = 2\n")
    blobs.path(digest).write_bytes(b"rubbish")
    with pytest.raises(BlobCorrupt, match=digest):
        again(trees, tmp_path, blobs).ensure(digest)
    blobs.delete(digest)
    with pytest.raises(BlobMissing, match=digest):
        again(trees, tmp_path, blobs).ensure(digest)


def test_a_blob_that_is_no_tree_is_refused(trees: TreeCache, blobs: BlobStore) -> None:
    digest = blobs.put_bytes(b"no tree at all")
    with pytest.raises(BlobCorrupt, match="is no tree"):
        trees.ensure(digest)


def test_several_processes_may_extract_one_tree_at_once(
    trees: TreeCache, tmp_path: Path, blobs: BlobStore
) -> None:
    folder = a_folder(tmp_path)
    for number in range(200):
        (folder / f"f{number}.py").write_text(f"x = {number}\n" * 50)
    digest = trees.make(folder)
    trees.delete(digest)
    code = (
        "import sys, pathlib; from isopod.blobs.store import BlobStore; "
        "from isopod.blobs.trees import TreeCache; from isopod.model.ids import Digest; "
        "base = pathlib.Path(sys.argv[1]); sys.stdin.read(1); "
        "print(TreeCache(base / 'trees', BlobStore(base / 'blobs')).ensure(Digest(sys.argv[2])))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), digest],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("x")
        process.stdin.flush()
    outs = [process.communicate()[0].strip() for process in processes]
    assert outs == [str(trees.path(digest))] * 4
    assert contents(trees.path(digest)) == contents(folder)
    assert trees.sweep() == 0
