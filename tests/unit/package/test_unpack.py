"""Archives that somebody made to do harm."""

import io
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from isopod.errors import PackageCorrupt, PackageTooLarge, PackageUnsafe
from isopod.package import PackageLimits
from isopod.package.unpack import unpack

SMALL = PackageLimits(max_files=50, max_mib=2)


def compress(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


def a_tar(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for member, data in members:
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def member(name: str, **values: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for key, value in values.items():
        setattr(info, key, value)
    return info


def opened(tar: bytes, dest: Path) -> int:
    return unpack(io.BytesIO(compress(tar)), dest / "new" / "dest", limits=SMALL)


def test_files_come_out_with_plain_modes(tmp_path: Path) -> None:
    tar = a_tar(
        (member("./pkg", type=tarfile.DIRTYPE, mode=0o777), b""),
        (member("pkg/a.py", mode=0o4777), b"a"),
        (member("b.txt", mode=0o600, uid=1234), b"b"),
    )
    assert opened(tar, tmp_path) == 2
    dest = tmp_path / "new" / "dest"
    assert (dest / "pkg" / "a.py").stat().st_mode & 0o7777 == 0o755
    assert (dest / "b.txt").stat().st_mode & 0o7777 == 0o644


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", "a/..", "..", "//x", "a/../b"])
def test_a_name_that_leads_outside_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(PackageUnsafe, match="outside of the app's folder"):
        opened(a_tar((member(name), b"x")), tmp_path)
    assert not list(tmp_path.rglob("x"))


@pytest.mark.parametrize(
    "kind",
    [
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.CHRTYPE,
        tarfile.BLKTYPE,
        tarfile.FIFOTYPE,
        tarfile.GNUTYPE_SPARSE,
    ],
)
def test_links_and_devices_are_refused_by_name(tmp_path: Path, kind: bytes) -> None:
    with pytest.raises((PackageUnsafe, PackageCorrupt), match=r"'evil', which is|damaged"):
        opened(a_tar((member("evil", type=kind, linkname="/etc/passwd"), b"")), tmp_path)


@pytest.mark.parametrize(
    "names", [("a", "a"), ("a", "./a"), ("a/b", "a"), ("a", "a/b"), ("a//b", "a/b")]
)
def test_a_name_that_comes_twice_is_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    with pytest.raises(PackageUnsafe, match=r"twice|below a file"):
        opened(a_tar(*((member(name), b"x") for name in names)), tmp_path)


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[2J", "x" * 256, "d/" * 600 + "x"])
def test_a_name_that_no_disk_or_log_should_see_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(PackageUnsafe):
        opened(a_tar((member(name), b"x")), tmp_path)


def test_a_nul_in_a_name_does_not_hide_the_rest(tmp_path: Path) -> None:
    info = member("ok")
    info.pax_headers = {"path": "ok\0/../../x"}
    with pytest.raises((PackageUnsafe, PackageCorrupt)):
        opened(a_tar((info, b"x")), tmp_path)


def test_too_many_files_stop_early(tmp_path: Path) -> None:
    with pytest.raises(PackageTooLarge, match="more than 50 files"):
        opened(a_tar(*((member(f"f{n}"), b"") for n in range(100_000))), tmp_path)
    assert len(list((tmp_path / "new" / "dest").iterdir())) <= 51
    shutil.rmtree(tmp_path / "new")
    with pytest.raises(PackageTooLarge, match="files and folders"):
        opened(a_tar((member("/".join("d" * 60) + "/x"), b"")), tmp_path)


def test_a_bomb_is_bounded_while_it_is_read(tmp_path: Path) -> None:
    big = b"\0" * (64 << 20)
    package = compress(a_tar((member("bomb"), big)))
    assert len(package) < 20_000
    with pytest.raises(PackageTooLarge, match="more than 2 MiB"):
        unpack(io.BytesIO(package), tmp_path / "dest", limits=SMALL)
    shutil.rmtree(tmp_path / "dest")
    with pytest.raises(PackageTooLarge):  # nothing but padding
        unpack(io.BytesIO(compress(big)), tmp_path / "dest", limits=SMALL)
    with pytest.raises(PackageTooLarge):  # a header that holds it all
        tar = a_tar((member("x", pax_headers={"comment": "y" * (20 << 20)}), b""))
        unpack(io.BytesIO(compress(tar)), tmp_path / "dest", limits=SMALL)


def test_many_small_files_that_are_large_together_are_bounded(tmp_path: Path) -> None:
    tar = a_tar(*((member(f"f{n}"), b"x" * 100_000) for n in range(40)))
    with pytest.raises(PackageTooLarge):
        opened(tar, tmp_path)


def test_a_damaged_package_is_told_from_a_good_one(tmp_path: Path) -> None:
    good = compress(a_tar((member("a"), bytes(range(256)) * 40), (member("b"), b"2" * 3000)))
    assert unpack(io.BytesIO(good), tmp_path / "good", limits=SMALL) == 2
    for number, bad in enumerate(
        [b"", b"rubbish", good[:-1], good[: len(good) // 2], good + b"x", good[:-2] + b"zz"]
    ):
        with pytest.raises(PackageCorrupt):
            unpack(io.BytesIO(bad), tmp_path / f"bad{number}", limits=SMALL)


def only_ours(data: bytes) -> None:
    """Whatever `data` is: our errors or success, and never a file outside."""
    base = Path(tempfile.mkdtemp())
    try:
        unpack(io.BytesIO(data), base / "in" / "dest", limits=SMALL)
    except (PackageCorrupt, PackageUnsafe, PackageTooLarge):
        pass
    finally:
        assert [p.name for p in base.iterdir()] == ["in"]
        assert [p.name for p in (base / "in").iterdir()] == ["dest"]
        assert not any(p.is_symlink() for p in base.rglob("*"))
        shutil.rmtree(base)


@given(st.binary(max_size=4000))
@settings(max_examples=200, deadline=None)
def test_any_bytes_as_a_tar_give_our_errors_only(data: bytes) -> None:
    only_ours(compress(data))


MEMBERS = st.lists(
    st.builds(
        lambda name, kind, link, data: (member(name, type=kind, linkname=link), data),
        st.text(st.sampled_from("ab./\\\0é\n"), min_size=1, max_size=12),
        st.sampled_from([b"0", b"\0", b"1", b"2", b"3", b"5", b"6", b"7", b"S", b"Z"]),
        st.sampled_from(["", "a", "..", "/etc"]),
        st.binary(max_size=50),
    ),
    max_size=8,
)


@given(
    MEMBERS,
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT]),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=4),
)
@settings(max_examples=400, deadline=None)
def test_any_tar_with_any_damage_gives_our_errors_only(
    members: list[tuple[tarfile.TarInfo, bytes]], form: int, damage: list[tuple[int, int]]
) -> None:
    tar = bytearray(a_tar(*members, form=form))
    for at, value in damage:
        block = at % len(tar)
        tar[block] = value
    fix_checksums(tar)
    only_ours(compress(bytes(tar)))


def fix_checksums(tar: bytearray) -> None:
    """So that the damage gets past the first check."""
    for start in range(0, len(tar) - 511, 512):
        header = tar[start : start + 512]
        if header[257:262] == b"ustar":
            header[148:156] = b" " * 8
            tar[start + 148 : start + 156] = b"%06o\0 " % sum(header)


@given(st.binary(min_size=1, max_size=300), st.data())
@settings(max_examples=100, deadline=None)
def test_any_truncation_is_noticed(data: bytes, draw: st.DataObject) -> None:
    package = compress(a_tar((member("a"), data)))
    cut = draw.draw(st.integers(0, len(package) - 1))
    base = Path(tempfile.mkdtemp())
    try:
        with pytest.raises(PackageCorrupt):
            unpack(io.BytesIO(package[:cut]), base / "dest", limits=SMALL)
    finally:
        shutil.rmtree(base)


def test_a_path_is_opened_as_well(tmp_path: Path) -> None:
    path = tmp_path / "package"
    path.write_bytes(compress(a_tar((member("a"), b"1"))))
    done: Callable[..., int] = unpack
    assert done(path, tmp_path / "dest") == 1
