import os
import subprocess
import sys
from pathlib import Path

import pytest

from isopod.errors import DataDirUnusable, NodeAlreadyRunning
from isopod.server.data_dir import data_dir_lock, ensure_token, prepare_data_dir, sweep
from isopod.server.node_file import remove_node_file, write_node_file
from isopod.settings import NodeSettings


@pytest.fixture
def settings(tmp_path):
    return NodeSettings.load(data_dir=tmp_path / "node", cache_dir=tmp_path / "cache")


def test_the_folder_is_its_owners_alone(settings):
    prepare_data_dir(settings)
    assert settings.data_dir.stat().st_mode & 0o777 == 0o700
    settings.data_dir.chmod(0o755)
    prepare_data_dir(settings)
    assert settings.data_dir.stat().st_mode & 0o777 == 0o700


def test_a_folder_of_something_else_is_left_alone(settings):
    settings.data_dir.mkdir(mode=0o755)
    (settings.data_dir / "thesis.tex").touch()
    with pytest.raises(DataDirUnusable, match="not an isopod data directory"):
        prepare_data_dir(settings)
    assert settings.data_dir.stat().st_mode & 0o777 == 0o755


def test_a_folder_of_another_account_is_refused_also_by_root(settings, tmp_path):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    if os.geteuid():
        theirs = Path("/usr")
    else:
        os.chown(theirs, 65534, 65534)
    with pytest.raises(DataDirUnusable, match="belongs to user id"):
        prepare_data_dir(NodeSettings(data_dir=theirs, cache_dir=settings.cache_dir))


def test_where_routes_were_kept_once_is_tidied(settings):
    prepare_data_dir(settings)
    old = settings.data_dir / "routes.db"
    old.touch()
    prepare_data_dir(settings)
    assert not old.exists()
    assert settings.routes_path.parent.is_dir()


def test_a_file_in_place_of_the_folder_is_named(settings):
    settings.data_dir.touch()
    with pytest.raises(DataDirUnusable, match="node"):
        prepare_data_dir(settings)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(DataDirUnusable, match="/proc/"):
        prepare_data_dir(NodeSettings.load(data_dir="/proc/isopod", cache_dir=tmp_path))


def test_a_second_node_on_a_folder_is_told_who_holds_it(settings):
    prepare_data_dir(settings)
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys\nfrom isopod.settings import NodeSettings\n"
            "from isopod.server.data_dir import data_dir_lock\n"
            f"with data_dir_lock(NodeSettings.load(data_dir={str(settings.data_dir)!r})):\n"
            "    print('held', flush=True); sys.stdin.read()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    with holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(NodeAlreadyRunning, match=str(holder.pid)), data_dir_lock(settings):
            pass
        holder.kill()
        holder.wait()
        with data_dir_lock(settings):  # the kernel let go
            pass


def test_the_token_is_made_once_and_readable_by_its_owner_alone(settings):
    prepare_data_dir(settings)
    token = ensure_token(settings.token_path)
    assert len(token) >= 32
    assert settings.token_path.stat().st_mode & 0o777 == 0o600
    settings.token_path.chmod(0o644)
    assert ensure_token(settings.token_path) == token
    assert settings.token_path.stat().st_mode & 0o777 == 0o600


def test_an_empty_token_file_is_filled_again(settings):
    prepare_data_dir(settings)
    settings.token_path.touch()
    assert ensure_token(settings.token_path)


def test_the_node_file_is_private_and_goes_away(settings):
    prepare_data_dir(settings)
    write_node_file(settings)
    assert settings.node_path.stat().st_mode & 0o777 == 0o600
    remove_node_file(settings.node_path)
    remove_node_file(settings.node_path)
    assert not settings.node_path.exists()


def test_what_writers_left_behind_is_swept(settings):
    prepare_data_dir(settings)
    left = []
    for folder in (settings.blobs_dir, settings.trees_dir, settings.images_dir):
        folder.mkdir(exist_ok=True)
        left.append(folder / ".tmp-1-abc")
    left[0].write_bytes(b"half")
    for path in left[1:]:
        path.mkdir()
        (path / "half").write_bytes(b"half")
    sweep(settings)
    assert not [path for path in left if path.exists()]
