import io
import os
from pathlib import Path

import pytest

from isopod.errors import FolderEmpty, FolderNotFound, PackageTooLarge, PackageUnsafe
from isopod.package import PackageLimits
from isopod.package.pack import pack
from isopod.package.unpack import unpack


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "app"
    folder.mkdir()
    write(folder, "app.py", "app = 1\n")
    return folder


def write(folder: Path, name: str, text: str = "x") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def names(folder: Path) -> list[str]:
    """The files that come out of the package of `folder`."""
    out = io.BytesIO()
    packed = pack(folder, out)
    out.seek(0)
    dest = folder.parent / f"{folder.name}-out-{len(list(folder.parent.iterdir()))}"
    assert unpack(out, dest) == packed.files
    return sorted(p.relative_to(dest).as_posix() for p in dest.rglob("*") if p.is_file())


def test_equal_files_give_equal_bytes(folder: Path, tmp_path: Path) -> None:
    write(folder, "b/c.txt")
    first, second = tmp_path / "1", tmp_path / "2"
    packed = pack(folder, first)
    for path in folder.rglob("*"):
        os.utime(path, (5, 5))
    (folder / "empty").mkdir()
    assert pack(folder, second) == packed
    assert first.read_bytes() == second.read_bytes()
    assert packed.size == first.stat().st_size
    assert packed.files == 2
    (folder / "app.py").chmod(0o755)
    assert pack(folder, second).digest != packed.digest


def test_what_no_app_needs_is_left_out(folder: Path) -> None:
    for name in (
        ".git/config",
        ".env",
        "__pycache__/app.cpython-311.pyc",
        "old.pyc",
        "node_modules/a/index.js",
        ".venv/bin/python",
        "venv/bin/python",
        "myenv/pyvenv.cfg",
        "myenv/lib/x.py",
        "pkg/__pycache__/x.pyc",
    ):
        write(folder, name)
    write(folder, "pkg/x.py")
    assert names(folder) == ["app.py", "pkg/x.py"]


def test_ignore_files_hold_as_in_git(folder: Path) -> None:
    write(folder, ".gitignore", "*.log\n!keep.log\n/build\ndocs/\n")
    write(folder, "pkg/.gitignore", "*.tmp\n!special.log\n")
    write(folder, ".isopodignore", "tests/\n!forced.log\n.*ignore\n")
    for name in ("a.log", "keep.log", "forced.log", "build/x", "pkg/build/x", "docs/x", "pkg/docs"):
        write(folder, name)
    for name in ("pkg/special.log", "pkg/a.tmp", "a.tmp", "tests/test_x.py", "pkg/tests/y.py"):
        write(folder, name)
    assert names(folder) == [
        "a.tmp",
        "app.py",
        "forced.log",
        "keep.log",
        "pkg/build/x",
        "pkg/docs",
        "pkg/special.log",
    ]


def test_links_inside_are_packed_as_what_they_point_to(folder: Path) -> None:
    write(folder, "data/one.txt", "1")
    (folder / "link.txt").symlink_to("data/one.txt")
    (folder / "more").symlink_to("data")
    (folder / ".#app.py").symlink_to("someone@host.123")  # an editor's lock: points nowhere
    assert names(folder) == ["app.py", "data/one.txt", "link.txt", "more/one.txt"]


@pytest.mark.parametrize("target", ["/etc/hostname", "../outside.txt", "/etc", ".."])
def test_a_link_out_of_the_folder_is_refused_by_name(folder: Path, target: str) -> None:
    write(folder.parent, "outside.txt")
    (folder / "sub").mkdir()
    (folder / "sub" / "evil").symlink_to(target if target.startswith("/") else f"../{target}")
    with pytest.raises(PackageUnsafe, match=r"'sub/evil' points out of the folder"):
        pack(folder, io.BytesIO())
    write(folder, ".isopodignore", "evil\n")
    pack(folder, io.BytesIO())


def test_a_link_that_loops_is_refused_by_name(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "again").symlink_to("..")
    (folder / "self").symlink_to("self")
    with pytest.raises(PackageUnsafe, match="'sub/again' leads back"):
        pack(folder, io.BytesIO())


def test_what_is_no_file_is_left_out(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    assert names(folder) == ["app.py"]


def test_no_folder_or_nothing_in_it_is_said(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(FolderNotFound, match="does not exist"):
        pack(tmp_path / "nowhere", io.BytesIO())
    with pytest.raises(FolderNotFound, match="is not a folder"):
        pack(folder / "app.py", io.BytesIO())
    (tmp_path / "empty").mkdir()
    with pytest.raises(FolderEmpty, match="is empty"):
        pack(tmp_path / "empty", io.BytesIO())
    write(folder, ".gitignore", "*")
    with pytest.raises(FolderEmpty, match="not ignored"):
        pack(folder, io.BytesIO())


def test_too_much_is_refused_with_what_is_large(folder: Path) -> None:
    for number in range(10):
        write(folder, f"media/{number}.bin", "x" * 200_000)
    with pytest.raises(PackageTooLarge, match=r"more than 5 files.*'media'"):
        pack(folder, io.BytesIO(), limits=PackageLimits(max_files=5))
    with pytest.raises(PackageTooLarge, match=r"more than 1 MiB.*'media'") as caught:
        pack(folder, io.BytesIO(), limits=PackageLimits(max_mib=1))
    assert ".isopodignore" in caught.value.hint


def test_a_name_that_is_not_utf8_is_refused(folder: Path) -> None:
    (folder / os.fsdecode(b"\xff.txt")).write_text("x")
    with pytest.raises(PackageUnsafe, match="not UTF-8"):
        pack(folder, io.BytesIO())


def test_progress_counts_every_file(folder: Path) -> None:
    write(folder, "b.py")
    seen: list[tuple[int, int]] = []
    pack(folder, io.BytesIO(), progress=lambda done, of: seen.append((done, of)))
    assert seen == [(1, 2), (2, 2)]
