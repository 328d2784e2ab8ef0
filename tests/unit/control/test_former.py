from dataclasses import replace

import pytest

from isopod.control.former import FormerSnapshots
from isopod.model.app import AppSpec, AppVersion, Build
from isopod.model.ids import AppName, Digest
from isopod.model.snapshot import plain
from isopod.model.tenant import TenantName

ACME, OTHER = TenantName("acme"), TenantName("other")
OLD, NEW = Digest("a" * 64), Digest("b" * 64)


def version(image: str = "1" * 64, runtime: Digest = OLD, digest: str = "d" * 64) -> AppVersion:
    build = Build(Digest("e" * 64), Digest("f" * 64), Digest("f" * 64))
    taken = replace(plain(""), verdict="sound", image=Digest(image), runtime=runtime)
    spec = AppSpec(AppName("shop"), "python", "app:app")
    return AppVersion(AppName("shop"), 1, Digest(digest), Digest("c" * 64), build, spec, 0.0, taken)


@pytest.fixture
def former(tmp_path):
    return FormerSnapshots(tmp_path / "former")


def test_what_a_version_had_is_found_by_its_runtime_alone(former):
    former.keep(ACME, version())
    assert former.find(ACME, version(), OLD) == version().snapshot
    assert former.find(ACME, version(), NEW) is None
    assert former.find(ACME, version(digest="9" * 64), OLD) is None
    assert former.images([(ACME, version())]) == {"1" * 64}


def test_another_tenant_that_got_the_label_finds_nothing(former):
    former.keep(ACME, version())
    assert former.find(OTHER, version(), OLD) is None
    assert former.images([(OTHER, version())]) == set()


def test_a_plain_boot_is_nothing_to_go_back_to(former):
    former.keep(ACME, replace(version(), snapshot=plain("no")))
    former.keep(ACME, replace(version(), snapshot=None))
    assert former.find(ACME, version(), Digest("")) is None


def test_only_the_last_runtimes_and_versions_are_kept(former):
    runtimes = [Digest(str(n) * 64) for n in range(4)]
    for runtime in runtimes:
        former.keep(ACME, version(runtime=runtime))
    assert [former.find(ACME, version(), one) is not None for one in runtimes] == [0, 0, 1, 1]
    for n in range(40):
        former.keep(ACME, version(digest=f"{n:064}"))
    assert former.find(ACME, version(digest=f"{39:064}"), OLD)
    assert former.find(ACME, version(digest=f"{0:064}"), OLD) is None


@pytest.mark.parametrize("content", [b"", b"[]", b'{"x": 1}', b"\xff", b'{"%s": {"%s": []}}'])
def test_a_damaged_file_is_as_none_and_is_written_anew(former, tmp_path, content):
    path = tmp_path / "former" / "acme" / "shop.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(content.replace(b"%s", b"d" * 64, 1).replace(b"%s", b"a" * 64))
    assert former.find(ACME, version(), OLD) is None
    former.keep(ACME, version())
    assert former.find(ACME, version(), OLD) == version().snapshot
    assert path.stat().st_mode & 0o077 == 0
