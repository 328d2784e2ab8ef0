"""Another key for the secrets of a node that does not run (see `control.key_rotation`)."""

from __future__ import annotations

from isopod.control.key_rotation import Rotated, begin_rotation, finish_rotation
from isopod.errors import UsageError
from isopod.server.data_dir import data_dir_lock
from isopod.settings import NodeSettings
from isopod.state.database import open_state


def rotate_key(settings: NodeSettings) -> Rotated:
    """NodeAlreadyRunning, UsageError, DiskFull."""
    if not settings.state_path.exists():
        raise UsageError(
            f"there is no node in {str(settings.data_dir)!r}", hint="name its --data-dir"
        )
    path = settings.sealing_key_path
    with data_dir_lock(settings):
        begin_rotation(path)
        state = open_state(settings.state_path)
        try:
            done = finish_rotation(path, state)
        finally:
            state.close()
    assert done is not None
    return done
