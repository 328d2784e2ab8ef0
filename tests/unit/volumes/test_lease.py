"""One writer for a volume, whatever becomes of it."""

import os
import signal
import subprocess
import sys

from isopod.volumes.lease import COPIER, Lease, VolumeFolder, owned, try_lease

HOLD = """
import sys
from pathlib import Path
from isopod.volumes.lease import VolumeFolder, try_lease
lease = try_lease(VolumeFolder(Path(sys.argv[1])), worker=7)
print(lease.epoch, flush=True)
sys.stdin.read()
"""


def make(tmp_path) -> VolumeFolder:
    folder = VolumeFolder.of(tmp_path, "acme", "data")
    folder.make()
    return folder


def test_a_killed_holders_lease_is_free_and_the_next_has_a_higher_epoch(tmp_path):
    folder = make(tmp_path)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout.readline() == b"1\n"
    assert try_lease(folder, worker=1) == 7
    os.kill(holder.pid, signal.SIGKILL)
    holder.communicate()
    lease = try_lease(folder, worker=1)
    assert isinstance(lease, Lease) and lease.epoch == 2
    assert try_lease(folder, worker=2) == 1
    lease.release()
    lease.release()


def test_workers_give_way_to_a_copier(tmp_path):
    folder = make(tmp_path)
    with owned(folder, name="data", patience_s=1):
        assert try_lease(folder, worker=1) == COPIER
    lease = try_lease(folder, worker=1)
    assert isinstance(lease, Lease)
    lease.release()


def test_a_restore_that_was_killed_is_finished_by_the_next_holder(tmp_path):
    folder = make(tmp_path)
    (folder.data / "old").touch()
    folder.ready.mkdir()
    (folder.ready / "new").touch()
    lease = try_lease(folder, worker=1)
    assert isinstance(lease, Lease)
    assert [one.name for one in folder.data.iterdir()] == ["new"]
    lease.release()
