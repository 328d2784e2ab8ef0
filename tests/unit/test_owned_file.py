"""Files of ours are whole, and nobody else's to read."""

import os

import pytest

from isopod.errors import DiskFull
from isopod.owned_file import sync, write_owned


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_is_replaced_at_once_and_is_its_owners_alone(tmp_path, durable):
    path = tmp_path / "token"
    path.write_text("before")
    path.chmod(0o644)
    write_owned(path, b"after", durable=durable)
    assert path.read_bytes() == b"after"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["token"]


def test_on_a_full_disk_the_file_is_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "token"
    path.write_text("before")

    def full(_fd: int) -> None:
        raise OSError(28, "no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFull):
        write_owned(path, b"after", durable=True)
    assert path.read_text() == "before"
    assert [one.name for one in tmp_path.iterdir()] == ["token"]


def test_a_file_and_a_folder_can_be_put_on_the_disk(tmp_path, monkeypatch):
    (tmp_path / "token").write_text("before")
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda fd: flushed.append(os.fstat(fd).st_ino))
    for path in (tmp_path / "token", tmp_path):
        sync(path)
    assert flushed == [path.stat().st_ino for path in (tmp_path / "token", tmp_path)]
