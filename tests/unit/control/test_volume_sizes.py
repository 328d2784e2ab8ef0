"""What a volume holds is measured when somebody may have changed it."""

import os

from isopod.control import volume_sizes
from isopod.control.volume_sizes import VolumeSizes
from isopod.model.tenant import TenantName
from isopod.volumes.lease import try_lease
from isopod.volumes.places import Places

ACME = TenantName("acme")
KIB = 1024


def test_a_volume_is_walked_again_when_somebody_had_it(tmp_path, monkeypatch):
    places = Places(tmp_path / "shared", tmp_path / "apart")
    places.make(ACME, "data", apart=False)
    folder = places.folder(ACME, "data")
    sizes = VolumeSizes(places)

    def write(name: str, size: int) -> None:
        (folder.data / name).write_bytes(b"x" * size)

    def used() -> int:
        return sizes.used_bytes(ACME, "data")

    assert used() == 0
    write("unseen", 100 * KIB)  # nobody writes without the lease
    assert used() == 0
    lease = try_lease(folder, worker=1)
    write("new", 100 * KIB)
    assert used() == 0  # it was measured a moment ago
    monkeypatch.setattr(volume_sizes, "_LATELY_S", 0.0)
    assert used() == 200 * KIB
    write("more", 100 * KIB)
    assert used() == 300 * KIB
    lease.release()
    monkeypatch.undo()
    assert used() == 300 * KIB
    with_lease = try_lease(folder, worker=2)
    write("last", 100 * KIB)
    with_lease.release()
    assert used() == 400 * KIB


def test_what_is_in_a_volumes_place_is_not_followed(tmp_path):
    places = Places(tmp_path / "shared", tmp_path / "apart")
    for name in ("data", "other"):
        places.make(ACME, name, apart=False)
    folder, other = (places.folder(ACME, name) for name in ("data", "other"))
    (other.data / "file").write_bytes(b"x" * 100 * KIB)
    sizes = VolumeSizes(places)
    lease = folder.path / "lease"
    lease.unlink()
    os.mkfifo(lease)
    assert sizes.used_bytes(ACME, "data") == 0
    places.remove(ACME, "data")
    sizes.forget(ACME, "data")
    folder.path.symlink_to(other.path)
    assert sizes.used_bytes(ACME, "data") != 100 * KIB
