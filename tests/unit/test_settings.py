import json
from pathlib import Path

import pytest

from isopod.settings import ClientSettings, NodeSettings, bare_environment, child_environment
from isopod.settings_file import SettingInvalid


def test_an_option_wins_over_the_environment_which_wins_over_the_default(monkeypatch):
    monkeypatch.setenv("ISOPOD_PORT", "9000")
    monkeypatch.setenv("ISOPOD_CONTROL_PORT", "9001")
    settings = NodeSettings.load(port=7000, workers=None)
    assert (settings.port, settings.control_port, settings.host) == (7000, 9001, "127.0.0.1")


def test_port_zero_as_an_option_is_not_taken_for_absent(monkeypatch):
    monkeypatch.setenv("ISOPOD_PORT", "9000")
    assert NodeSettings.load(port=0).port == 0


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ISOPOD_PORT", "http"),
        ("ISOPOD_PORT", "70000"),
        ("ISOPOD_WORKERS", "0"),
        ("ISOPOD_IMAGE_CACHE_MIB", "0"),
        ("ISOPOD_KEEP_VERSIONS", "0"),
        ("ISOPOD_DRAIN_S", "-1"),
        ("ISOPOD_USAGE_KEEP_H", "0"),
        ("ISOPOD_KEEP_UNUSED_H", "-1"),
        ("ISOPOD_USAGE_MAX_RECORDS", "0"),
        ("ISOPOD_DEBUG", "perhaps"),
        ("ISOPOD_DOMAIN", "a b"),
    ],
)
def test_a_bad_value_is_named(monkeypatch, name, text):
    monkeypatch.setenv(name, text)
    with pytest.raises(SettingInvalid, match="(?i)" + name.removeprefix("ISOPOD_")):
        NodeSettings.load()


def test_settings_reach_a_child_whole(monkeypatch, tmp_path):
    (tmp_path / "node.toml").write_text("[prices]\ncpu_ms = 0.000000000000000001\n")
    settings = NodeSettings.load(
        config=tmp_path / "node.toml",
        data_dir=tmp_path,
        trusted_proxies=("10.0.0.1",),
        port=1,
        debug=True,
        drain_s=2.5,
    )
    assert NodeSettings.from_json(json.loads(json.dumps(settings.to_json()))) == settings


def test_children_do_not_inherit_the_clients_token(monkeypatch):
    monkeypatch.setenv("ISOPOD_TOKEN", "secret")
    assert "secret" not in str(child_environment())


def test_processes_that_run_guests_inherit_only_what_python_needs_to_start(monkeypatch):
    monkeypatch.setenv("UV_INDEX", "https://someone:secret@index.test/simple")
    monkeypatch.setenv("ISOPOD_TOKEN", "secret")
    monkeypatch.setenv("PYTHONPATH", "/there")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    environment = bare_environment(ISOPOD_WORKER_INDEX="3")
    assert environment["ISOPOD_WORKER_INDEX"] == "3"
    assert environment["PYTHONPATH"] == "/there"
    assert "secret" not in str(environment)
    allowed = ("PYTHON", "LC_", "LANG", "TZ", "LD_LIBRARY_PATH", "ISOPOD_WORKER_INDEX")
    assert all(name.startswith(allowed) for name in environment)


def test_default_folders_follow_xdg(monkeypatch):
    monkeypatch.delenv("ISOPOD_DATA_DIR", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", "/x/data")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x/cache")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/x/config")
    settings = NodeSettings.load()
    assert settings.data_dir == Path("/x/data/isopod")
    assert settings.cache_dir == Path("/x/cache/isopod")
    assert ClientSettings.load().login_path == Path("/x/config/isopod/login.json")


def test_the_clients_token_is_not_in_its_repr(monkeypatch):
    monkeypatch.setenv("ISOPOD_TOKEN", "secret")
    assert "secret" not in repr(ClientSettings.load())
