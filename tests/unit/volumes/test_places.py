"""A volume's two places: what counts, who waits, and what a worker that was taken over can do."""

import os
import random
import subprocess
import sys

import pytest

from isopod.errors import VolumeNotFound
from isopod.volumes.lease import COPIER, Lease, VolumeFolder, is_wanted, try_lease
from isopod.volumes.places import Places


@pytest.fixture
def places(tmp_path) -> Places:
    for name in ("shared", "apart"):
        (tmp_path / name).mkdir()
    return Places(tmp_path / "shared", tmp_path / "apart")


def make(places: Places, *, apart: bool = False) -> VolumeFolder:
    places.make("acme", "data", apart=apart)
    folder = places.folder("acme", "data")
    (folder.data / "kept").write_text("kept")
    return folder


def move(places: Places, *, apart: bool, insist: bool = False) -> bool:
    with places.moving("acme", "data", apart=apart) as attempt:
        return attempt(insist)


def test_a_volume_moves_with_all_that_it_holds_and_back(places):
    before = make(places)
    assert move(places, apart=True)
    after = places.folder("acme", "data")
    assert (after.path, before.path.exists()) == (places.apart / "acme" / "data", False)
    assert (after.data / "kept").read_text() == "kept"
    assert move(places, apart=False)
    assert (before.data / "kept").read_text() == "kept"


def test_whoever_uses_it_keeps_it_and_is_told_when_somebody_insists(places):
    folder = make(places)
    lease = try_lease(folder, worker=1)
    assert isinstance(lease, Lease)
    with places.moving("acme", "data", apart=True) as attempt:
        assert not attempt(False)
        assert not is_wanted(folder)
        assert not attempt(True)
        assert is_wanted(folder)
        lease.release()
        assert try_lease(folder, worker=2) == 1  # none of them takes it meanwhile
        assert attempt(True)


def test_a_worker_waits_for_one_that_is_on_its_way_and_for_no_other(places):
    make(places)
    there = VolumeFolder.of(places.apart, "acme", "data")
    with pytest.raises(FileNotFoundError):
        try_lease(there, worker=1)
    places.announce("acme", "data", apart=True)
    assert try_lease(there, worker=1) == COPIER
    assert move(places, apart=True)
    lease = try_lease(there, worker=1)
    assert isinstance(lease, Lease)
    assert not there.coming.exists()


def test_what_a_shared_worker_makes_in_its_place_does_not_count(places):
    make(places)
    assert move(places, apart=True)
    decoy = VolumeFolder.of(places.shared, "acme", "data")
    decoy.make()
    (decoy.data / "forged").touch()
    assert places.folder("acme", "data").path == places.apart / "acme" / "data"
    assert move(places, apart=False)
    assert [one.name for one in decoy.data.iterdir()] == ["kept"]


def test_who_is_told_to_wait_for_what_is_nowhere_is_told_so(places):
    make(places)
    there = VolumeFolder.of(places.apart, "acme", "lost")
    places.announce("acme", "lost", apart=True)
    with pytest.raises(FileNotFoundError):
        try_lease(there, worker=1)
    places.announce("acme", "data", apart=True)
    places.wait_no_more("acme", "data")
    with pytest.raises(FileNotFoundError):
        try_lease(VolumeFolder.of(places.apart, "acme", "data"), worker=1)


BACK_AND_FORTH = """
import sys
from pathlib import Path
from isopod.volumes.places import Places
places = Places(Path(sys.argv[1]), Path(sys.argv[2]))
print("moving", flush=True)
while True:
    apart = not places.is_apart("acme", "data")
    places.announce("acme", "data", apart=apart)
    with places.moving("acme", "data", apart=apart) as attempt:
        assert attempt(True)
"""


def test_a_kill_in_the_middle_of_a_move_loses_nothing_and_keeps_nobody_out(places):
    make(places)
    for number in range(6):
        arguments = [sys.executable, "-c", BACK_AND_FORTH, places.shared, places.apart]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE) as mover:
            assert mover.stdout.readline() == b"moving\n"
            with pytest.raises(subprocess.TimeoutExpired):
                mover.wait(random.random() / 10)
            mover.kill()
        where = [root for root in (places.shared, places.apart) if (root / "acme/data").exists()]
        assert len(where) == 1
        lease = try_lease(places.folder("acme", "data"), worker=number)
        assert isinstance(lease, Lease)
        lease.release()
        assert (places.folder("acme", "data").data / "kept").read_text() == "kept"


@pytest.mark.parametrize("what", ["tenant", "volume", "lease"])
def test_a_link_leads_nobody_to_anothers(places, what):
    folder = make(places)
    places.make("zoo", "data", apart=True)
    others = places.folder("zoo", "data")
    (others.data / "secret").touch()
    aim = {"tenant": folder.path.parent, "volume": folder.path, "lease": folder.path / "lease"}
    target = {"tenant": others.path.parent, "volume": others.path, "lease": others.path / "lease"}
    aim[what].rename(aim[what].with_name("taken"))
    aim[what].symlink_to(target[what])
    with pytest.raises(VolumeNotFound):
        move(places, apart=True)
    if what != "lease":
        with pytest.raises(FileNotFoundError):
            os.close(folder.open())
    places.remove("acme", "data")
    assert (others.data / "secret").exists()
    assert others.path.parent == places.apart / "zoo"


def test_nothing_is_left_of_a_tenant(places):
    make(places)
    places.make("acme", "other", apart=True)
    places.announce("acme", "data", apart=True)
    places.remove_tenant("acme")
    assert [*places.shared.iterdir(), *places.apart.iterdir()] == []


def test_a_volume_with_a_link_in_the_place_of_its_data_is_not_moved(places, tmp_path):
    folder = make(places, apart=True)
    folder.data.rename(tmp_path / "elsewhere")
    folder.data.symlink_to(tmp_path)
    with pytest.raises(VolumeNotFound, match="damaged"):
        move(places, apart=False)
    assert places.is_apart("acme", "data")
