import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isopod.metering.rows import FIELDS, MAX_BATCH_BYTES, MOST, decode, encode

NOW = 1_795_000_000.0


def test_what_was_written_is_read(record):
    records = [record(1), record(2, kind="live", cold=True, app="hello--acme", outcome="app_error")]
    sound, refused, corrected = decode(encode(records), now=NOW)
    assert refused == [] and corrected == {}
    read = [dict(zip(FIELDS, row, strict=True)) for _, row in sound]
    assert read == [{name: getattr(one, name) for name in FIELDS} for one in records]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kind", "gift"), ("kind", 1), ("at", "now"), ("at", None), ("at", True),
        ("tenant", "a--b"), ("tenant", None), ("app", "../x"), ("app", "x" * 64), ("version", -1),
        ("instance", "a b"), ("request_id", "x" * 129), ("request_id", "é"), ("outcome", "\n"),
        ("status", 1.5), ("cold", 1), ("cpu_ns", -1), ("cpu_ns", MOST + 1), ("cpu_ns", True),
        ("memory_byte_ms", 1e300), ("count", None), ("bytes_out", "1"),
    ],
)  # fmt: skip
def test_a_record_that_no_worker_would_write_is_refused_alone(record, field, value):
    rows = orjson.loads(encode([record(1), record(2), record(3)]))
    rows[1][FIELDS.index(field)] = value
    sound, refused, _ = decode(orjson.dumps(rows), now=NOW)
    assert [index for index, _ in sound] == [0, 2]
    assert [one.index for one in refused] == [1] and refused[0].reason


@pytest.mark.parametrize("body", [b"", b"{}", b"[", b"null", b"[" * 5000, b"\xff", b"[1e999]"])
def test_a_batch_that_is_none_is_refused(body):
    sound, refused, _ = decode(body, now=NOW)
    assert not sound and refused


@pytest.mark.parametrize("at", [NOW + 86_400, 0.0, -5, 2**70, 1.6e9])
def test_a_wrong_clock_costs_a_record_its_time_and_not_its_amounts(record, at):
    rows = orjson.loads(encode([record(1), record(2, cpu_ns=7)]))
    rows[1][FIELDS.index("at")] = float(at)
    sound, refused, corrected = decode(orjson.dumps(rows), now=NOW)
    assert refused == [] and corrected == {"default": 1}
    taken = dict(zip(FIELDS, sound[1][1], strict=True))
    assert (taken["at"], taken["cpu_ns"]) == (NOW, 7)


def test_a_batch_that_is_too_large_is_not_parsed():
    assert decode(b" " * (MAX_BATCH_BYTES + 1), now=NOW)[1][0].index == -1


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=25) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=40,
)


@given(values | st.lists(st.lists(values, min_size=len(FIELDS), max_size=len(FIELDS))))
def test_nothing_that_json_can_say_raises(value):
    try:
        body = orjson.dumps(value)
    except TypeError:  # an integer that orjson does not write
        return
    sound, refused, _ = decode(body, now=NOW)
    if isinstance(value, list):
        assert len(sound) + len(refused) == len(value)


@given(st.binary(max_size=200))
def test_no_bytes_raise(body):
    decode(body, now=NOW)
