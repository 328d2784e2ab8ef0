import pytest

from isopod.control.log_lines import Wanted, level_of
from isopod.model.log import LEVELS


@pytest.mark.parametrize(
    ("stream", "message", "level"),
    [
        ("stdout", "hello", "info"),
        ("stderr", "Traceback (most recent call last):", "error"),
        ("stderr", '  File "/app/app.py", line 3, in index', "error"),
        ("stderr", "INFO:werkzeug:listening", "info"),
        ("stderr", "[2026-11-21 15:00:00,123] WARNING in app: careful", "warning"),
        ("stderr", "2026-11-21 15:00:00,123 - shop.cart - DEBUG - added", "debug"),
        ("stdout", "CRITICAL: out of stock", "error"),
        ("stdout", "INFO the last ERROR was long ago", "info"),
        ("stdout", "no error here, INFORMATION only", "info"),
        ("stderr", "/app/app.py:3: DeprecationWarning: use something else", "warning"),
        ("stdout", '{"level": "warn", "msg": "ERROR is only quoted"}', "warning"),
        ("stderr", '{"severity": "Info", "msg": "fine"}', "info"),
        ("stderr", '{"level": 30, "msg": "of a library that counts"}', "error"),
        ("stdout", "{not JSON, WARNING", "warning"),
        ("stdout", "[" * 100_000, "info"),
        ("stdout", "{" + "[" * 60_000, "info"),
        ("isopod", "the ERROR of an app is not ours", "info"),
    ],
)
def test_a_line_is_as_grave_as_its_text_says_or_its_stream_is(stream, message, level):
    assert level_of({"stream": stream, "message": message}) == level


def test_what_we_said_has_the_level_that_we_gave_it():
    assert level_of({"stream": "isopod", "message": "x", "level": "error"}) == "error"
    assert level_of({"stream": "isopod", "message": "x", "level": "loud"}) == "info"


def test_a_reader_gets_this_grave_and_graver():
    lines = [{"level": level} for level in LEVELS]
    taken = [line["level"] for line in lines if Wanted(level="warning").takes(line)]
    assert taken == ["warning", "error"]
    assert all(Wanted().takes(line) for line in lines)


def test_a_reader_gets_one_request_and_not_what_lacks_a_time():
    line = {"level": "info", "request_id": "a", "at": 5.0}
    assert Wanted(request_id="a", since=5.0).takes(line)
    assert not Wanted(request_id="b").takes(line)
    assert not Wanted(since=5.1).takes(line)
    assert not Wanted(since=0.1).takes({"level": "info", "at": "soon"})
