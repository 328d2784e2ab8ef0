"""One file of a tree, from the blob that its digest stands for."""

import os
from pathlib import Path

import pytest

from isopod.blobs.member import open_blob, read_member
from isopod.blobs.store import BlobStore
from isopod.blobs.trees import TreeCache
from isopod.errors import BlobCorrupt, BlobMissing
from isopod.model.ids import Digest


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


@pytest.fixture
def tree(tmp_path: Path, blobs: BlobStore) -> Digest:
    folder = tmp_path / "app"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "app.wasm").write_bytes(b"module")
    (folder / "z.txt").write_bytes(os.urandom(3 << 20))
    return TreeCache(tmp_path / "trees", blobs).make(folder)


def member(blobs: BlobStore, tree: Digest, name: str, most: int = 100) -> bytes | None:
    fd = open_blob(blobs, tree)
    try:
        return read_member(fd, tree, name, most=most)
    finally:
        os.close(fd)


def test_a_file_is_read_whatever_the_extracted_copy_holds(blobs, tree, tmp_path):
    (tmp_path / "trees" / tree / "tree" / "deep" / "app.wasm").write_bytes(b"another")
    assert member(blobs, tree, "deep/app.wasm") == b"module"
    assert member(blobs, tree, "deep/app.wasm", most=3) == b"mod"
    assert member(blobs, tree, "app.wasm") is None and member(blobs, tree, "deep") is None


@pytest.mark.parametrize("at", [10, -10])
def test_nothing_is_given_of_a_blob_that_is_not_all_that_its_digest_says(blobs, tree, at):
    """Also when what was changed comes after the file."""
    data = bytearray(blobs.path(tree).read_bytes())
    data[at] ^= 1
    blobs.path(tree).write_bytes(data)
    with pytest.raises(BlobCorrupt):
        member(blobs, tree, "deep/app.wasm")


def test_no_link_is_followed_and_nothing_but_a_file_is_opened(blobs, tree, tmp_path):
    path = blobs.path(tree)
    path.rename(tmp_path / "elsewhere")
    with pytest.raises(BlobMissing):
        open_blob(blobs, tree)
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BlobCorrupt):
        open_blob(blobs, tree)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(BlobCorrupt, match="is no file"):
        open_blob(blobs, tree)
    path.unlink()
    path.parent.rename(tmp_path / "other")
    path.parent.symlink_to(tmp_path / "other")
    (tmp_path / "elsewhere").rename(tmp_path / "other" / path.name)
    with pytest.raises(BlobCorrupt):
        open_blob(blobs, tree)
