import json

from isopod.control.logs import Tail


def line(text: str) -> bytes:
    return json.dumps({"at": 1.0, "message": text}).encode() + b"\n"


def texts(tail: Tail) -> list[str]:
    return [found["message"] for found in tail.more()]


def test_a_tail_gives_each_line_once_as_the_file_grows(tmp_path):
    path = tmp_path / "a.jsonl"
    tail = Tail(path)
    assert texts(tail) == []
    path.write_bytes(line("one"))
    assert texts(tail) == ["one"]
    with path.open("ab") as file:
        file.write(line("two") + line("three"))
    assert texts(tail) == ["two", "three"]
    assert texts(tail) == []
    tail.close()


def test_half_a_line_waits_for_its_end(tmp_path):
    path = tmp_path / "a.jsonl"
    tail, whole = Tail(path), line("one")
    path.write_bytes(whole[:10])
    assert texts(tail) == []
    with path.open("ab") as file:
        file.write(whole[10:])
    assert texts(tail) == ["one"]
    tail.close()


def test_no_line_is_lost_when_the_file_is_rotated(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(line("one"))
    tail = Tail(path)
    assert texts(tail) == ["one"]
    with path.open("ab") as old:
        old.write(line("two"))
        path.rename(tmp_path / "a.jsonl.1")
        old.write(line("three"))
    assert texts(tail) == ["two", "three"]
    path.write_bytes(line("four"))
    assert texts(tail) == ["four"]
    tail.close()


def test_a_line_that_a_crash_cut_is_skipped(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"at": 1.0, "mess\n' + line("whole") + b"7\n")
    tail = Tail(path)
    assert texts(tail) == ["whole"]
    tail.close()
