import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isopod.gateway import log_file, logs
from isopod.gateway.logs import MAX_LINE_BYTES, AppLog, LineSplitter


def app_log(
    folder: Path, *, kib_per_s: int = 1 << 20, max_bytes: int = log_file.MAX_BYTES
) -> AppLog:
    return AppLog(folder, "shop", kib_per_s=kib_per_s, max_bytes=max_bytes)


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
    log = app_log(tmp_path)
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


def test_a_log_costs_two_files_however_much_an_app_prints(tmp_path):
    log = app_log(tmp_path, max_bytes=80_000)
    for _ in range(1000):
        log.write("stdout", "x" * 1000, version=1)
    log.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shop.jsonl", "shop.jsonl.1"]
    assert all(path.stat().st_size < 95_000 for path in tmp_path.iterdir())
    assert not any("dropped" in line for line in lines_of(tmp_path / "shop.jsonl"))


def test_two_workers_rotate_once(tmp_path, monkeypatch):
    path = tmp_path / "shop.jsonl"
    one, other = app_log(tmp_path, max_bytes=1000), app_log(tmp_path, max_bytes=1000)
    one.write("stdout", "x" * 1000, version=1)

    # The other has seen a full file; just then the first renames it and begins a new one.
    flock = log_file.fcntl.flock

    def meanwhile(*arguments):
        monkeypatch.setattr(log_file.fcntl, "flock", flock)
        path.rename(tmp_path / "shop.jsonl.1")
        path.write_text("")
        return flock(*arguments)

    monkeypatch.setattr(log_file.fcntl, "flock", meanwhile)
    other.write("stdout", "new", version=1)
    one.close()
    other.close()
    assert [line["message"] for line in lines_of(path)] == ["new"]
    assert len(lines_of(tmp_path / "shop.jsonl.1")) == 1


def test_a_log_that_another_worker_rotated_is_followed(tmp_path, monkeypatch):
    monkeypatch.setattr(log_file, "_RECHECK_S", 0.0)
    log = app_log(tmp_path)
    log.write("stdout", "old", version=1)
    (tmp_path / "shop.jsonl").rename(tmp_path / "shop.jsonl.1")
    log.write("stdout", "new", version=1)
    log.close()
    assert [line["message"] for line in lines_of(tmp_path / "shop.jsonl")] == ["new"]


def test_lines_that_cannot_be_written_are_counted_and_told_when_they_can(tmp_path):
    (tmp_path / "shop.jsonl").mkdir()
    log = app_log(tmp_path)
    log.write_lines("stdout", ["lost", "lost too"], version=1)
    log.tell_dropped(now=True)  # is lost as well
    (tmp_path / "shop.jsonl").rmdir()
    log.close()
    (told,) = lines_of(tmp_path / "shop.jsonl")
    assert (told["dropped"], told["level"]) == (2, "warning")
    assert told["message"] == "dropped 2 lines: the node could not write them"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_costs_lines_only(tmp_path):
    log = app_log(tmp_path)
    log.write("stdout", "x", version=1)
    full = os.open("/dev/full", os.O_WRONLY)
    kept = os.dup(log._file._fd)
    os.dup2(full, log._file._fd)
    os.close(full)
    log.write("stdout", "lost", version=1)
    os.dup2(kept, log._file._fd)
    os.close(kept)
    log.close()
    first, told = lines_of(tmp_path / "shop.jsonl")
    assert (first["message"], told["dropped"]) == ("x", 1)


def test_what_is_printed_beyond_the_rate_is_dropped_by_the_line_and_told(tmp_path):
    log = app_log(tmp_path, kib_per_s=1)
    flood = [f"line {number} " + "x" * 100 for number in range(5000)]
    for start in range(0, len(flood), 10):
        log.write_lines("stdout", flood[start : start + 10], version=3)
    assert log.full
    log.close()
    lines = lines_of(tmp_path / "shop.jsonl")
    kept = [line["message"] for line in lines if line["stream"] == "stdout"]
    assert 100 < len(kept) < 1500
    assert set(kept) < set(flood)  # whole lines only
    told = [line for line in lines if line["stream"] == "isopod"]
    assert len(told) == 1
    assert told[0]["message"].startswith(f"dropped {5000 - len(kept):,} lines, 0.")
    assert "limits.log_kib_per_s = 1" in told[0]["message"]
    assert (told[0]["version"], told[0]["dropped"]) == (3, 5000 - len(kept))
    assert told[0]["level"] == "warning"


def test_a_flood_of_empty_lines_is_a_flood(tmp_path):
    log = app_log(tmp_path, kib_per_s=1)
    for _ in range(200):
        log.write_lines("stdout", [""] * 1000, version=1)
    log.close()
    assert (tmp_path / "shop.jsonl").stat().st_size < 3 * MAX_LINE_BYTES


def test_no_flood_hides_what_we_say_of_an_app(tmp_path):
    log = app_log(tmp_path, kib_per_s=1)
    for _ in range(100):
        log.write("stdout", "x" * MAX_LINE_BYTES, version=1)
    log.write("isopod", "deadline_exceeded: it ran on", version=1)
    log.close()
    assert b"it ran on" in (tmp_path / "shop.jsonl").read_bytes()


def test_the_longest_line_passes_at_the_lowest_rate(tmp_path):
    log = app_log(tmp_path, kib_per_s=1)
    log.write("stdout", "x" * MAX_LINE_BYTES, version=1)
    log.close()
    assert len(lines_of(tmp_path / "shop.jsonl")) == 1


def test_a_new_version_may_have_another_rate(tmp_path):
    log = app_log(tmp_path, kib_per_s=1)
    log.write_lines("stdout", ["x" * 100] * 5000, version=1)
    assert log.full
    log.limit(1000)
    assert not log.full
    log.close()


@given(st.lists(st.binary(max_size=50), max_size=10), st.data())
def test_after_skipped_output_lines_are_whole_again(pieces, data):
    splitter, other = LineSplitter(), LineSplitter()
    for piece in pieces:
        if data.draw(st.booleans()):
            assert splitter.skip(piece) == len(other.feed(piece))
        else:
            splitter.feed(piece)
            other.feed(piece)
    assert splitter.feed(b"!\nwhole\n")[1:] == ["whole"]
    assert splitter.end() == []


@given(st.lists(st.text(max_size=30), max_size=30), st.integers(0, 50), st.floats(-100, 2000))
def test_as_many_lines_are_admitted_as_fit(messages, overhead, left):
    count = logs.admitted(messages, overhead, left)
    sizes = [len(message) + overhead for message in messages]
    assert count == 0 or sum(sizes[:count]) <= left
    assert count == len(messages) or sum(sizes[: count + 1]) > left


def test_a_log_that_is_a_link_writes_into_no_other(tmp_path):
    (tmp_path / "other.jsonl").write_text("theirs\n")
    (tmp_path / "app.jsonl").symlink_to(tmp_path / "other.jsonl")
    log = AppLog(tmp_path, "app", kib_per_s=1024)
    log.write("stdout", "mine", version=1)
    log.close()
    assert (tmp_path / "other.jsonl").read_text() == "theirs\n"
