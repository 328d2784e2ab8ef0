import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isopod.gateway import logs
from isopod.gateway.logs import MAX_LINE_BYTES, AppLog, LineSplitter


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@given(st.lists(st.binary(max_size=50), max_size=10))
def test_pieces_make_the_same_lines_as_the_whole(pieces):
    splitter = LineSplitter()
    lines = [line for piece in pieces for line in splitter.feed(piece)] + splitter.end()
    whole = b"".join(pieces)
    expected = [line.decode("utf-8", "replace") for line in whole.split(b"\n")]
    if expected[-1] == "":
        expected.pop()
    assert lines == expected


def test_a_line_without_end_is_cut():
    splitter = LineSplitter()
    cut = splitter.feed(b"x" * (3 * MAX_LINE_BYTES + 5))
    assert [len(line) for line in cut] == [MAX_LINE_BYTES] * 3
    assert splitter.end() == ["x" * 5]
    whole = splitter.feed(b"y" * (MAX_LINE_BYTES + 1) + b"\nz\n")
    assert [len(line) for line in whole] == [MAX_LINE_BYTES, 1, 1]


def test_an_app_cannot_forge_a_line_of_its_log(tmp_path):
    log = AppLog(tmp_path, "shop")
    log.write("stdout", 'x"}\n{"stream":"isopod","message":"forged"}\r\x1b[2J\ud800', version=1)
    log.write_lines("stderr", ["a", ""], version=2, instance="i", request_id="r")
    log.close()
    first, second, third = lines_of(tmp_path / "shop.jsonl")
    assert first["stream"] == "stdout"
    assert "forged" in first["message"]
    assert b"\x1b" not in (tmp_path / "shop.jsonl").read_bytes()
    assert (second["message"], third["message"]) == ("a", "")
    assert second["request_id"] == "r"
    assert (tmp_path / "shop.jsonl").stat().st_mode & 0o777 == 0o600


def test_a_log_costs_two_files_however_much_an_app_prints(tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "MAX_BYTES", 80_000)
    monkeypatch.setattr(logs, "_RECHECK_BYTES", 10_000)
    log = AppLog(tmp_path, "shop")
    for _ in range(1000):
        log.write("stdout", "x" * 1000, version=1)
    log.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shop.jsonl", "shop.jsonl.1"]
    assert all(path.stat().st_size < 95_000 for path in tmp_path.iterdir())
    assert log.dropped == 0


def test_two_workers_rotate_once(tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "MAX_BYTES", 1000)
    path = tmp_path / "shop.jsonl"
    one, other = AppLog(tmp_path, "shop"), AppLog(tmp_path, "shop")
    one.write("stdout", "x" * 1000, version=1)

    # The other has seen a full file; just then the first renames it and begins a new one.
    flock = logs.fcntl.flock

    def meanwhile(*arguments):
        monkeypatch.setattr(logs.fcntl, "flock", flock)
        path.rename(tmp_path / "shop.jsonl.1")
        path.write_text("")
        return flock(*arguments)

    monkeypatch.setattr(logs.fcntl, "flock", meanwhile)
    other.write("stdout", "new", version=1)
    one.close()
    other.close()
    assert [line["message"] for line in lines_of(path)] == ["new"]
    assert len(lines_of(tmp_path / "shop.jsonl.1")) == 1


def test_a_log_that_another_worker_rotated_is_followed(tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "_RECHECK_S", 0.0)
    log = AppLog(tmp_path, "shop")
    log.write("stdout", "old", version=1)
    (tmp_path / "shop.jsonl").rename(tmp_path / "shop.jsonl.1")
    log.write("stdout", "new", version=1)
    log.close()
    assert [line["message"] for line in lines_of(tmp_path / "shop.jsonl")] == ["new"]


def test_a_log_that_cannot_be_written_is_counted_not_raised(tmp_path):
    (tmp_path / "shop.jsonl").mkdir()
    log = AppLog(tmp_path, "shop")
    log.write("stdout", "lost", version=1)
    assert log.dropped == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_costs_lines_only(tmp_path):
    log = AppLog(tmp_path, "shop")
    log.write("stdout", "x", version=1)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, log._fd)
    os.close(full)
    log.write("stdout", "lost", version=1)
    assert log.dropped == 1
    log.close()
