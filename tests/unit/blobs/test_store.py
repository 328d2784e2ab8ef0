import errno
import hashlib
from pathlib import Path

import pytest

from isopod.blobs.store import BlobStore
from isopod.errors import BlobCorrupt, BlobMissing, DiskFull
from isopod.model.ids import Digest

DATA = b"some bytes" * 1000
DIGEST = Digest(hashlib.sha256(DATA).hexdigest())


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


def files_in(store: BlobStore) -> list[str]:
    return sorted(p.name for p in store.root.rglob("*") if p.is_file())


def test_a_blob_comes_back_by_the_digest_of_its_bytes(store: BlobStore) -> None:
    assert store.put_bytes(DATA) == DIGEST
    assert store.has(DIGEST)
    assert store.size(DIGEST) == len(DATA)
    assert store.open_verified(DIGEST).read_bytes() == DATA
    assert list(store.digests()) == [DIGEST]
    assert files_in(store) == [DIGEST]  # no temporary file is left


def test_putting_a_file_moves_it(store: BlobStore, tmp_path: Path) -> None:
    source = tmp_path / "upload"
    source.write_bytes(DATA)
    assert store.put_file(source) == DIGEST
    assert not source.exists()


def test_changed_bytes_are_refused_naming_digest_and_path_and_a_new_put_repairs(
    store: BlobStore,
) -> None:
    store.put_bytes(DATA)
    path = store.path(DIGEST)
    path.write_bytes(DATA[:-1] + b"X")
    with pytest.raises(BlobCorrupt) as caught:
        store.open_verified(DIGEST)
    assert DIGEST in caught.value.message
    assert str(path) in caught.value.message
    assert caught.value.details == {"digest": DIGEST, "path": str(path)}
    store.put_bytes(DATA)
    assert store.open_verified(DIGEST) == path


def test_a_missing_blob_is_named(store: BlobStore) -> None:
    with pytest.raises(BlobMissing, match=DIGEST):
        store.open_verified(DIGEST)
    with pytest.raises(BlobMissing, match=DIGEST):
        store.size(DIGEST)
    store.delete(DIGEST)


def test_a_full_disk_is_said_and_nothing_is_left(
    store: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "upload"
    source.write_bytes(DATA)

    def no_space(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(DiskFull, match="no space left"):
        store.put_file(source)
    with pytest.raises(DiskFull):
        store.put_bytes(DATA)
    assert files_in(store) == []
    assert not source.exists()


def test_what_a_dead_writer_left_is_swept(store: BlobStore) -> None:
    store.put_bytes(DATA)
    store.temporary().write_bytes(b"half")
    assert store.sweep() == 1
    assert files_in(store) == [DIGEST]
