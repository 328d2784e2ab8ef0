import json
import os

import pytest

from isopod import __version__
from isopod.control.node import open_node
from isopod.server.data_dir import ensure_token, prepare_data_dir
from isopod.server.doctor.check import worst
from isopod.server.doctor.files import check_files
from isopod.settings import NodeSettings

UID = 1234 if os.geteuid() == 0 else os.geteuid()


@pytest.fixture
def settings(tmp_path):
    """A real data directory, as a node leaves it."""
    settings = NodeSettings.load(data_dir=tmp_path / "data", cache_dir=tmp_path / "cache")
    prepare_data_dir(settings)
    ensure_token(settings.token_path)
    open_node(settings).state.close()
    tmp_path.chmod(0o700)
    return settings


def problems(settings, uid=None):
    found = check_files(settings, uid=os.geteuid() if uid is None else uid)
    return {check.name: check for check in found if check.status == "problem"}


def test_what_a_node_made_has_the_right_modes(settings):
    assert problems(settings) == {}


@pytest.mark.parametrize("name", ["token", "state.db", "blobs", "logs", "run"])
def test_what_others_may_use_is_told_with_what_to_do(settings, name):
    path = settings.data_dir / name
    assert path.exists()
    path.chmod(path.stat().st_mode | 0o044)
    check = problems(settings)[name]
    assert "others may use it" in check.text
    assert check.advice == f"chmod {'700' if path.is_dir() else '600'} {path}"


def test_the_folder_itself_and_the_signing_key_are_looked_at(settings):
    settings.signing_key_path.write_text("x")
    settings.signing_key_path.chmod(0o640)
    settings.data_dir.chmod(0o755)
    assert set(problems(settings)) == {"data", "statement.key"}


def test_a_link_in_the_place_of_the_token_is_a_problem(settings, tmp_path):
    settings.token_path.rename(tmp_path / "elsewhere")
    settings.token_path.symlink_to(tmp_path / "elsewhere")
    assert "is a link" in problems(settings)["token"].text


def test_files_of_another_account_are_told(settings):
    found = problems(settings, uid=os.geteuid() + 1)
    assert f"belongs to user id {os.geteuid()}" in found["token"].text


def test_a_folder_above_that_others_may_write_is_a_problem(settings, tmp_path):
    tmp_path.chmod(0o777)
    assert "others may replace 'data'" in problems(settings)["above"].text
    tmp_path.chmod(0o1777)  # as /tmp: nobody may replace what is not theirs
    assert "above" not in problems(settings)


def test_a_cache_that_others_may_write_is_code_that_others_write(settings):
    settings.cache_dir.chmod(0o775)
    assert "code that is run" in problems(settings)["cache"].text


def test_a_folder_that_is_not_there_is_no_problem(tmp_path):
    settings = NodeSettings.load(data_dir=tmp_path / "none", cache_dir=tmp_path / "cache")
    checks = check_files(settings, uid=UID)
    assert worst(checks) != "problem"
    assert any("no node was started there" in check.text for check in checks)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"pid": os.getpid(), "version": __version__}, "ok", "runs there"),
        ({"pid": os.getpid(), "version": "0.0.1"}, "warning", "restart the node"),
        ({"pid": 2**22 + 1, "version": __version__}, "ok", "was killed there"),
        ({"pid": "x"}, "ok", "no node runs"),
    ],
)
def test_a_running_node_of_another_version_is_told(settings, body, status, said):
    settings.node_path.write_text(json.dumps(body))
    (node,) = (check for check in check_files(settings, uid=UID) if check.name == "node")
    assert node.status == status and said in node.text + node.advice


def test_root_is_warned():
    settings = NodeSettings.load()
    account = next(c for c in check_files(settings, uid=0) if c.name == "account")
    assert account.status == "warning"
