"""`isopod usage` over a real control and ledger; statements are checked without a node."""

import contextlib
import csv
import io
import json
from datetime import UTC, datetime

import pytest

from isopod.cli.usage import _cell
from isopod.metering.ledger import Batch, Ledger
from isopod.metering.rows import encode
from isopod.model.tenant import DEFAULT_TENANT
from isopod.model.usage import UsageRecord

FIRST = datetime(2026, 10, 1, tzinfo=UTC).timestamp()
PERIOD = ("--from", "2026-10-01", "--to", "2026-10-31")
CHEAP = """
[prices]
currency = "EUR"
cpu_ms = 1
request = 0.5
gib_s = 0
"""


def answered(app: str, at: float) -> UsageRecord:
    """A request that slept for two seconds and used three milliseconds."""
    return UsageRecord(
        "request",
        at,
        DEFAULT_TENANT,
        app,
        1,
        "i",
        cpu_ns=3_000_000,
        wait_ns=2_000_000_000,
        wall_ns=2_003_000_000,
        wall_100ms=21,
        bytes_out=2048,
        memory_byte_ms=2**30 * 500,
    )


@pytest.fixture
def used(start, tmp_path):
    """A node with a price sheet of its own, and three requests in its ledger."""
    (tmp_path / "isopod-node.toml").write_text(CHEAP)
    node = start("--config", str(tmp_path / "isopod-node.toml"))
    folder = node.data_dir / "usage"
    folder.mkdir(mode=0o700, exist_ok=True)
    with contextlib.closing(Ledger(folder / "ledger.db", node="n")) as ledger:
        records = [
            answered("shop", FIRST),
            answered("shop", FIRST + 86_400),
            answered("blog", FIRST),
        ]
        ledger.apply([Batch("0-a", 1, encode(records))])
    return node


def test_the_table_shows_each_app_its_cost_and_its_wall_clock_bill(used):
    lines = used.cli("usage", *PERIOD).stdout.splitlines()
    assert lines[0] == "2026-10-01 00:00 to 2026-11-01 00:00 UTC, prices in EUR"
    assert lines[2].split()[:5] == ["APP", "REQUESTS", "STARTS", "CPU", "WAITED"]
    assert lines[2].split()[-3:] == ["COST", "WALL-CLOCK", "SAVED"]
    rows = {line.split()[0]: line.split() for line in lines[3:6]}
    assert rows["shop"][:4] == ["shop", "2", "0", "6.0"]
    assert rows["blog"][-3:-1] == ["3.50", "0.50"]
    assert rows["total"][1] == "3" and rows["total"][-3:-1] == ["10.50", "1.50"]
    assert "rounded up to 100 ms, at 256 MiB" in lines[-1]
    by_day = used.cli("usage", *PERIOD, "--by", "day").stdout
    assert "2026-10-01  " in by_day and "2026-10-02  " in by_day


def test_json_and_csv_hold_every_amount_in_full(used):
    found = json.loads(used.cli("usage", *PERIOD, "--app", "shop", "--json").stdout)
    assert found["lines"][0]["usage"]["cpu_ns"] == "6000000"
    assert found["prices"]["cpu_ms"] == "1"
    table = list(csv.DictReader(io.StringIO(used.cli("usage", *PERIOD, "--csv").stdout)))
    assert [(row["app"], row["usage.requests"]) for row in table] == [("blog", "1"), ("shop", "2")]
    assert table[1]["cost.total"] == found["lines"][0]["cost"]["total"]
    assert table[1]["currency"] == "EUR"


WRONG = {
    ("--from", "2026-10-02", "--to", "2026-10-01"): "is not before",
    ("--from", "soon"): "neither a date nor a moment",
    ("--json", "--csv"): "exclude each other",
    ("--tenant", "a", "--all-tenants"): "exclude each other",
    ("--tenant", "nobody"): "there is no tenant 'nobody'",
    ("--app", "nothing"): "there is no app 'nothing'",
    ("--by", "week"): "invalid value for '--by'",
    ("statement", "--month", "October"): "is not a month",
    ("statement",): "missing option '--month'",
}


def test_a_wrong_question_is_the_callers_fault(used):
    for arguments, said in WRONG.items():
        done = used.cli("usage", *arguments)
        assert (done.returncode, done.stdout) == (2, ""), arguments
        assert said in done.stderr, arguments


def test_a_statement_is_checked_offline_and_each_fault_told(used, cli, tmp_path):
    file, key = tmp_path / "s.json", tmp_path / "node.key"
    done = used.cli("usage", "statement", "--month", "2026-10")
    assert done.returncode == 0 and done.stderr == ""
    file.write_text(done.stdout)
    key.write_text(used.cli("usage", "key").stdout)
    assert used.stop() == 0

    def verify(data: str | None = None, *, by: str = str(key), name: str = str(file)):
        if data is not None:
            file.write_text(data)
        return cli("usage", "verify", name, "--key", by, ISOPOD_DATA_DIR=str(tmp_path / "none"))

    sound = verify()
    assert (sound.returncode, sound.stderr) == (0, "")
    assert "sound: signed with key" in sound.stdout and "default" in sound.stdout
    assert verify(by=key.read_text().strip()).returncode == 0
    piped = cli("usage", "verify", "-", "--key", str(key), stdin=done.stdout)
    assert piped.returncode == 0

    changed = verify(done.stdout.replace('"6000000"', '"5000000"'))
    assert changed.returncode == 1 and "was changed after it was signed" in changed.stderr
    other = verify(
        done.stdout, by="3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29"
    )
    assert other.returncode == 1 and "signed with another key" in other.stderr
    version = verify(done.stdout.replace('"version": 1', '"version": 2'))
    assert version.returncode == 1 and "version 2" in version.stderr
    assert "not a usage statement" in verify("[]").stderr
    as_json = cli("usage", "verify", str(file), "--key", str(key), "--json")
    assert as_json.returncode == 1 and json.loads(as_json.stdout)["sound"] is False

    assert verify(by="12").returncode == 2
    assert verify(name=str(tmp_path / "none.json")).returncode == 2


def test_a_statement_of_a_month_that_goes_on_says_so(used):
    now = datetime.now(UTC)
    done = used.cli("usage", "statement", "--month", f"{now:%Y-%m}")
    assert done.returncode == 0 and "is not over" in done.stderr
    assert json.loads(done.stdout)["statement"]["period"]["over"] is False
    done = used.cli("usage", "--json", "statement", "--month", f"{now:%Y-%m}")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["statement"]["period"]["over"] is False


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1"])
def test_no_cell_of_csv_is_a_formula(text):
    assert _cell(text) == "'" + text
    assert _cell("shop") == "shop"
