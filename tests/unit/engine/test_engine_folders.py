"""Folders that guests list, read by us."""

import os
import struct

import pytest

from isopod.engine.folders import Folders
from isopod.volumes.removal import remove_folder

APP, TMP = 3, 4


@pytest.fixture
def place(tmp_path):
    for name in ("app/a/b", "tmp", "outside"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("app/file", "app/a/b/deep", "outside/secret"):
        (tmp_path / name).touch()
    (tmp_path / "tmp" / "link").symlink_to("../outside")
    return tmp_path


@pytest.fixture
def folders(place):
    made = Folders({APP: str(place / "app"), TMP: str(place / "tmp")})
    yield made
    made.close()


def entries(data: bytes) -> list[tuple[str, int]]:
    found = []
    while len(data) >= 24:
        _next, _inode, size, kind = struct.unpack_from("<QQIB", data)
        found.append((data[24 : 24 + size].decode(), kind))
        data = data[24 + size :]
    return found


def names(folders: Folders, fd: int) -> list[str]:
    return sorted(name for name, _ in entries(folders.read(fd, 0, 4096)))


def test_a_preopened_folder_is_read_with_the_kinds_of_its_entries(folders):
    assert sorted(entries(folders.read(APP, 0, 4096))) == [
        (".", 3),
        ("..", 3),
        ("a", 3),
        ("file", 4),
    ]
    assert ("link", 7) in entries(folders.read(TMP, 0, 4096))


@pytest.mark.parametrize("path", [b"a/b", b"a//b/", b"./a/./b", b"a/../a/b", b"a/b/../b"])
def test_a_folder_is_found_by_its_path(folders, path):
    folders.opened(7, APP, path)
    assert names(folders, 7) == [".", "..", "deep"]
    folders.opened(8, 7, b"..")
    assert not folders.knows(8)  # above the folder it was asked from


@pytest.mark.parametrize(
    "path", [b"link", b"link/", b"link/x", b"..", b"../outside", b"a/../../outside", b"none", b"\0",
             b"/etc/..", b"\xff"],
)  # fmt: skip
def test_what_leads_out_or_nowhere_is_not_known(folders, path):
    folders.opened(7, TMP, path)
    assert not folders.knows(7)


def test_a_small_buffer_is_filled_and_gone_on_from(folders, place):
    for number in range(50):
        (place / "tmp" / f"file-{number}").touch()
    found, cookie = [], 0
    while True:
        data = folders.read(TMP, cookie, 100)
        whole = []
        at = 0
        while at + 24 <= len(data):
            following, _, size, _ = struct.unpack_from("<QQIB", data, at)
            if at + 24 + size > len(data):
                break
            whole.append(data[at + 24 : at + 24 + size].decode())
            cookie = following
            at += 24 + size
        found += whole
        if len(data) < 100:
            break
    assert len(found) == len(set(found)) == 53


def test_a_listing_is_of_the_time_when_it_began(folders, place):
    first = names(folders, TMP)
    (place / "tmp" / "new").touch()
    assert "new" not in [name for name, _ in entries(folders.read(TMP, 1, 4096))]
    assert set(names(folders, TMP)) == {*first, "new"}


def test_descriptors_are_closed_moved_and_forgotten(folders):
    folders.opened(7, APP, b"a")
    folders.renumbered(7, 9)
    assert folders.knows(9) and not folders.knows(7)
    folders.renumbered(9, TMP)  # over a preopened one
    assert names(folders, TMP) == [".", "..", "b"]
    folders.closed(TMP)
    assert not folders.knows(TMP) and folders.knows(APP)


def test_a_far_cookie_is_the_end(folders):
    assert folders.read(APP, 2**64 - 1, 4096) == b""


def test_removal_goes_as_deep_as_the_folders_do(tmp_path):
    top = tmp_path / "top"
    top.mkdir()
    at = os.open(top, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("deeper", dir_fd=at)
        below = os.open("deeper", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    remove_folder(top)
    assert not top.exists()
    remove_folder(top)  # gone already
