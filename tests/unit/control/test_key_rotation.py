"""Another key for all secrets of a node, whatever happens in the middle."""

import random
import subprocess
import sys

import pytest

from isopod.control.key_rotation import begin_rotation, former_path, next_path
from isopod.control.node import open_node
from isopod.errors import NodeAlreadyRunning, SecretsUnreadable, UsageError
from isopod.model.ids import AppName
from isopod.model.secret import bound_to
from isopod.model.tenant import DEFAULT_TENANT
from isopod.sealing import SealingKey
from isopod.server.data_dir import data_dir_lock, prepare_data_dir
from isopod.server.rotation import rotate_key
from isopod.settings import NodeSettings

APPS = [AppName(f"app{n}") for n in range(5)]
VALUES = {f"SECRET_{n}": f"value {n}" for n in range(20)}


@pytest.fixture
def settings(tmp_path) -> NodeSettings:
    """Of a node that has run, with 100 secrets."""
    settings = NodeSettings(data_dir=tmp_path / "node", cache_dir=tmp_path / "cache")
    prepare_data_dir(settings)
    node = open_node(settings)
    for app in APPS:
        sealed = {
            name: node.sealing.seal(value, bound_to=bound_to(DEFAULT_TENANT, app, name))
            for name, value in VALUES.items()
        }
        node.state.of(DEFAULT_TENANT).secrets.put(app, sealed, now=1.0)
    close(node)
    return settings


def close(node) -> None:
    node.routes.close()
    node.state.close()


def opened(settings: NodeSettings) -> tuple[str, list[dict[str, str]]]:
    """The key that a node has when it starts, and what it reads with that."""
    node = open_node(settings)
    try:
        mine = node.state.of(DEFAULT_TENANT)
        assert {one.changed_at for app in APPS for one in mine.secrets.of(app)} == {1.0}
        values = [node.open_secrets(DEFAULT_TENANT, app, mine.secrets.sealed(app)) for app in APPS]
        return node.sealing.key_id, values
    finally:
        close(node)


def test_every_secret_is_sealed_with_the_new_key_and_opens_as_before(settings):
    former, _ = opened(settings)
    done = rotate_key(settings)
    assert (done.former, done.sealed, done.unreadable) == (former, 100, 0)
    assert opened(settings) == (done.key, [VALUES] * len(APPS))
    path = settings.sealing_key_path
    assert SealingKey.at(former_path(path)).key_id == former
    assert not next_path(path).exists()
    assert path.stat().st_mode & 0o777 == former_path(path).stat().st_mode & 0o777 == 0o600


def test_a_kill_in_the_middle_loses_no_secret(settings):
    code = (
        "import sys; from pathlib import Path; from isopod.settings import NodeSettings;"
        "from isopod.server.rotation import rotate_key\n"
        "settings = NodeSettings(data_dir=Path(sys.argv[1]), cache_dir=Path(sys.argv[2]))\n"
        "while True: rotate_key(settings); print('.', flush=True)"
    )
    for _ in range(5):
        arguments = [sys.executable, "-c", code, settings.data_dir, settings.cache_dir]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE) as rotating:
            assert rotating.stdout.readline() == b".\n"
            with pytest.raises(subprocess.TimeoutExpired):
                rotating.wait(random.random() / 10)
            rotating.kill()
        key, values = opened(settings)
        assert values == [VALUES] * len(APPS)
        assert SealingKey.at(settings.sealing_key_path).key_id == key
        assert not next_path(settings.sealing_key_path).exists()


def test_a_rotation_that_was_killed_after_its_commit_is_finished_by_the_next_start(settings):
    path = settings.sealing_key_path
    begin_rotation(path)
    former, following = path.read_bytes(), next_path(path).read_bytes()
    opened(settings)  # as the node's start does it, whole
    path.write_bytes(former)
    next_path(path).write_bytes(following)
    assert opened(settings)[1] == [VALUES] * len(APPS)
    assert path.read_bytes() == following


def test_what_no_key_opens_stays_as_it_was_and_is_counted(settings):
    node = open_node(settings)
    node.state.of(DEFAULT_TENANT).secrets.put(APPS[0], {"SECRET_0": "s1.x.lost"}, now=1.0)
    close(node)
    assert rotate_key(settings).unreadable == 1
    node = open_node(settings)
    sealed = node.state.of(DEFAULT_TENANT).secrets.sealed(APPS[0])
    with pytest.raises(SecretsUnreadable):
        node.open_secrets(DEFAULT_TENANT, APPS[0], {"SECRET_0": sealed["SECRET_0"]})
    close(node)


def test_a_node_that_runs_or_is_none_is_not_touched(settings, tmp_path):
    before = settings.sealing_key_path.read_bytes()
    with data_dir_lock(settings), pytest.raises(NodeAlreadyRunning):
        rotate_key(settings)
    assert settings.sealing_key_path.read_bytes() == before
    with pytest.raises(UsageError, match="there is no node"):
        rotate_key(NodeSettings(data_dir=tmp_path / "nothing", cache_dir=tmp_path / "cache"))
    assert not (tmp_path / "nothing").exists()
