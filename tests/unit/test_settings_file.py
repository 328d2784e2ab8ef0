from decimal import Decimal

import pytest

from isopod.settings import NodeSettings
from isopod.settings_file import Prices, SettingInvalid


@pytest.fixture
def written(tmp_path):
    """Load the settings of a file that holds this text."""

    def load(text: str | bytes, **options) -> NodeSettings:
        path = tmp_path / "isopod-node.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return NodeSettings.load(config=path, data_dir=tmp_path, **options)

    return load


def test_an_option_wins_over_the_environment_which_wins_over_the_file(written, monkeypatch):
    monkeypatch.setenv("ISOPOD_CONTROL_PORT", "9001")
    settings = written("[node]\nport = 1\ncontrol_port = 2\nworkers = 3\n", port=7)
    assert (settings.port, settings.control_port, settings.workers) == (7, 9001, 3)


def test_the_file_is_named_by_a_variable_or_not_read_at_all(tmp_path, monkeypatch):
    path = tmp_path / "isopod-node.toml"
    path.write_text("[node]\nworkers = 7\n")
    monkeypatch.chdir(tmp_path)
    assert NodeSettings.load(workers=None, data_dir=tmp_path).workers != 7
    monkeypatch.setenv("ISOPOD_CONFIG", str(path))
    assert NodeSettings.load(workers=None, data_dir=tmp_path).workers == 7


def test_every_kind_of_setting_can_be_written(written, tmp_path):
    settings = written(
        "[node]\n"
        'domain = "apps.example"\n'
        "drain_s = 2.5\n"
        "debug = true\n"
        'trusted_proxies = ["10.0.0.1", "10.0.0.2"]\n'
        'cache_dir = "cache"\n'
    )
    assert settings.domain == "apps.example" and settings.debug is True
    assert settings.drain_s == 2.5 and isinstance(settings.drain_s, float)
    assert settings.trusted_proxies == ("10.0.0.1", "10.0.0.2")
    assert settings.cache_dir == tmp_path / "cache"  # beside the file


def test_prices_are_the_decimals_that_are_written(written):
    settings = written('[prices]\ncurrency = "EUR"\ncpu_ms = 0.1\ngib_s = 3e-6\nrequest = 0\n')
    prices = settings.prices
    assert (prices.currency, prices.cpu_ms, prices.gib_s) == (
        "EUR",
        Decimal("0.1"),
        Decimal("3e-6"),
    )
    assert prices.request == 0 and isinstance(prices.request, Decimal)
    assert prices.egress_gib == Prices().egress_gib


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[node]\nport = 70000\n", r"line 2: \[node\] port is wrong: port 70000 is not within"),
        ('[node]\nport = "80"\n', r"line 2: \[node\] port must be a whole number, not '80'"),
        ("[node]\n\nports = 80\n", r"line 3: \[node\] ports is not known; known here: host, port"),
        ('[node]\ndata_dir = "x"\n', r"line 2: \[node\] data_dir is not known"),
        ("[node]\ndebug = 1\n", r"line 2: \[node\] debug must be true or false, not 1"),
        ("[node]\ndrain_s = true\n", r"drain_s must be a number, not True"),
        ('[node]\ntrusted_proxies = "x"\n', r"trusted_proxies must be a list of texts"),
        ("[node]\ndomain = 1\n", r"domain must be text in quotes, not 1"),
        ("[other]\n", r"line 1: \[other\] is not known; known are \[node\] and \[prices\]"),
        ("prices = 1\n", r"line 1: \[prices\] must be a section"),
        (
            "[prices]\ncpu = 1\n",
            r"line 2: \[prices\] cpu is not known; known here: currency, cpu_ms",
        ),
        ("[prices]\ncpu_ms = -1\n", r"line 2: \[prices\] cpu_ms must be from 0 to 1,000,000"),
        ("[prices]\ncpu_ms = nan\n", r"cpu_ms must be from 0"),
        ("[prices]\ncpu_ms = inf\n", r"cpu_ms must be from 0"),
        ("[prices]\ncpu_ms = 1e-19\n", r"cpu_ms must have at most 18 digits"),
        ("[prices]\ncpu_ms = 1e999999\n", r"cpu_ms must be from 0"),
        ('[prices]\ncpu_ms = "1"\n', r"cpu_ms must be a number without quotes"),
        ("[prices]\ncpu_ms = true\n", r"cpu_ms must be a number"),
        ('[prices]\ncurrency = "€"\n', r"currency must be three capital letters"),
        ("[prices]\nwall_clock_memory_mib = 0\n", r"wall_clock_memory_mib must be from 1"),
        ("[node\n", r"isopod-node.toml, line 1: "),
        ("[node]\nport = 1\nport = 2\n", r"isopod-node.toml, line 3: "),
        (b"[node]\n\xff\n", r"line 2: not UTF-8"),
        ("#" * 300_000, r"is larger than 256 KiB"),
    ],
)
def test_what_is_wrong_in_the_file_is_told_with_its_place(written, text, said):
    with pytest.raises(SettingInvalid, match=said):
        written(text)


def test_a_file_that_was_named_must_be_there(tmp_path):
    with pytest.raises(SettingInvalid, match=r"cannot read the settings file .*no such file"):
        NodeSettings.load(config=tmp_path / "none.toml")


def test_prices_survive_the_way_to_a_child_process():
    prices = Prices(cpu_ms=Decimal("1E-18"), currency="EUR")
    assert prices.to_json()["cpu_ms"] == "0.000000000000000001"
    assert Prices.from_json(prices.to_json()) == prices
