import json
import stat
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isopod.errors import DataDirUnusable, StatementInvalid, UsageError
from isopod.metering.bill import Used, make_bill
from isopod.metering.prices import Stored
from isopod.metering.reading import Faults
from isopod.metering.rollups import Sums
from isopod.metering.signing import SigningKey, key_id, parse_key
from isopod.metering.statement import canonical, check, make_statement
from isopod.settings_file import Prices


def statement(key: SigningKey, **usage: int) -> dict:
    sums = Sums(requests=3, cpu_ns=2**62, **usage)
    used = [
        Used("acme", "shop", 0, sums),
        Used("acme", "blog", 86_400, Sums(requests=1), Stored(7)),
    ]
    bill = make_bill(used, since=0, until=2_678_400, by="app", sheets=((0, Prices()),))
    return make_statement(bill, used, tenant="acme", faults=Faults(1, 2, 3), made_at=10**7, key=key)


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    return SigningKey.at(tmp_path_factory.mktemp("key") / "statement.key")


@pytest.fixture(scope="module")
def signed(key):
    return canonical(statement(key))


def test_a_statement_holds_its_lines_totals_prices_and_what_it_was_made_of(key, signed):
    found = check(signed, key.public_key).statement
    assert found["tenant"] == "acme" and found["node"] == key.key_id
    assert found["period"] == {
        "from": "1970-01-01T00:00:00Z",
        "to": "1970-02-01T00:00:00Z",
        "over": True,
    }
    assert [line["app"] for line in found["lines"]] == ["blog", "shop"]
    assert found["total"]["usage"]["cpu_ns"] == str(2**62)
    assert found["prices"]["cpu_ms"] == "0.00000002"
    assert found["ledger"]["days"] == 2
    assert found["records"] == {"missing": 1, "refused": 2, "clock_corrected": 3}


def test_the_digest_of_the_ledger_changes_with_any_day(key):
    one, other = (statement(key, bytes_in=n)["statement"]["ledger"] for n in (1, 2))
    assert one["sha256"] != other["sha256"]


@given(st.data())
def test_any_byte_that_is_changed_fails(key, signed, data):
    at = data.draw(st.integers(0, len(signed) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != signed[at]))
    with pytest.raises(StatementInvalid):
        check(signed[:at] + bytes([byte]) + signed[at + 1 :], key.public_key)


@given(st.randoms())
def test_a_statement_survives_reordering_and_indenting(key, signed, random):
    def shuffled(value):
        if isinstance(value, dict):
            names = list(value)
            random.shuffle(names)
            return {name: shuffled(value[name]) for name in names}
        return [shuffled(one) for one in value] if isinstance(value, list) else value

    text = json.dumps(shuffled(json.loads(signed)), indent=random.randrange(5))
    assert check(text.encode(), key.public_key).key_id == key.key_id


def test_the_order_of_lines_is_part_of_it(key, signed):
    body = json.loads(signed)
    body["statement"]["lines"].reverse()
    with pytest.raises(StatementInvalid, match="changed after it was signed"):
        check(json.dumps(body).encode(), key.public_key)


@given(st.binary(max_size=200) | st.text(alphabet='{}[]",:0eE.-\\u statement').map(str.encode))
@settings(max_examples=300)
def test_whatever_else_is_not_a_statement(key, data):
    with pytest.raises(StatementInvalid):
        check(data, key.public_key)


def test_each_way_to_be_wrong_is_told_apart(key, signed, tmp_path):
    other = SigningKey.at(tmp_path / "other.key")

    def said(data: bytes, public_key: str = key.public_key) -> str:
        with pytest.raises(StatementInvalid) as failed:
            check(data, public_key)
        return failed.value.message

    def changed(old: bytes, new: bytes) -> bytes:
        assert old in signed
        return signed.replace(old, new, 1)

    assert "changed after it was signed" in said(changed(b'"requests":3', b'"requests":2'))
    assert f"signed with another key: it names '{key.key_id}'" in said(signed, other.public_key)
    assert "version 2; this isopod checks version 1" in said(
        changed(b'"version":1', b'"version":2')
    )
    assert "version True" in said(changed(b'"version":1', b'"version":true'))
    assert "format" in said(changed(b"isopod-usage-statement", b"another"))
    assert "not JSON" in said(b"x")
    assert "not a usage statement" in said(b'{"a":1}')
    assert "twice" in said(b'{"statement":{},"statement":{},"signature":{}}')
    assert "whole" in said(changed(b'"requests":3', b'"requests":3.0'))
    assert "whole" in said(changed(b'"requests":3', b'"requests":NaN'))
    assert "canonical" in said(changed(b'"requests":3', b'"requests":99999999999999999'))
    assert "canonical" in said(changed(b'"app":"shop"', b'"app":"\\ud800"'))
    assert "not JSON" in said(b"[" * 100_000)
    capitals = json.loads(signed)
    capitals["signature"]["value"] = capitals["signature"]["value"].upper()
    assert "changed" in said(json.dumps(capitals).encode())


def test_a_statement_signed_again_by_another_fails_though_it_names_our_key(key, tmp_path):
    other = SigningKey.at(tmp_path / "other.key")
    forged = statement(other)
    forged["signature"] |= {"public_key": key.public_key, "key_id": key.key_id}
    with pytest.raises(StatementInvalid, match="does not match"):
        check(json.dumps(forged).encode(), key.public_key)


def test_the_key_is_made_once_for_the_owner_alone(tmp_path):
    path = tmp_path / "statement.key"
    found = []
    threads = [threading.Thread(target=lambda: found.append(SigningKey.at(path))) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len({one.public_key for one in found}) == 1 and len(found) == 8
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["statement.key"]
    assert path.read_text().strip() not in repr(found[0])


@pytest.mark.parametrize("content", [b"", b"x" * 64, b"\xff", b"ab" * 31])
def test_a_damaged_key_file_is_refused_and_kept(tmp_path, content):
    path = tmp_path / "statement.key"
    path.write_bytes(content)
    with pytest.raises(DataDirUnusable, match="signing key"):
        SigningKey.at(path)
    assert path.read_bytes() == content


def test_a_public_key_is_64_digits(key):
    assert parse_key(f" {key.public_key}\n") == key.public_key
    assert len(key_id(key.public_key)) == 16
    for text in ("", "z" * 64, key.public_key.upper(), key.public_key[:-1]):
        with pytest.raises(UsageError, match="is not a public key"):
            parse_key(text)
