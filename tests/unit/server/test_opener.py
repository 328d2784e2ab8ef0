"""What opens secrets for a worker answers whatever a worker that was taken over may ask."""

import json

import pytest

from isopod.sealing import SealingKey
from isopod.server.opener import _answer


@pytest.fixture
def key(tmp_path):
    return SealingKey.at(tmp_path / "secrets.key")


def test_what_is_asked_for_is_opened_or_none_of_it(key):
    sealed = {n: key.seal(f"value {n}", bound_to=f"acme/shop/{n}") for n in "AB"}
    asked = {n: (f"acme/shop/{n}", text) for n, text in sealed.items()}
    answer = _answer(key, json.dumps(asked).encode())
    assert answer == {"values": {"A": "value A", "B": "value B"}}
    asked["B"] = ("globex/shop/B", sealed["B"])
    answer = _answer(key, json.dumps(asked).encode())
    assert answer["error"]["code"] == "secrets_unreadable" and "value" not in json.dumps(answer)


@pytest.mark.parametrize(
    "question",
    [b"", b"\n", b"[]", b"null", b"1", b'{"A": 1}', b'{"A": ["x"]}', b'{"A": [1, 2]}', b"\xff",
     b'{"A": ["a", "s1."]}', b'{"A": {}}', b"[" * 100_000, b'{"A": ["\\ud800", "s1.x.y"]}'],
)  # fmt: skip
def test_nonsense_is_answered_with_an_error_and_the_process_lives(key, question):
    assert "error" in _answer(key, question)
