"""What is sealed opens with the node's key, as what it was sealed for, and in no other way."""

import threading

import pytest

from isopod.errors import DataDirUnusable, SecretsUnreadable
from isopod.sealing import SealingKey, size_of


def test_what_is_sealed_shows_nothing_and_opens_again(tmp_path):
    key = SealingKey.at(tmp_path / "secrets.key")
    sealed = key.seal("päss wörd\n", bound_to="acme/shop/KEY")
    assert "wörd" not in sealed and sealed != key.seal("päss wörd\n", bound_to="acme/shop/KEY")
    assert size_of(sealed) == len("päss wörd\n".encode())
    again = SealingKey.at(tmp_path / "secrets.key")
    assert again.open(sealed, bound_to="acme/shop/KEY") == "päss wörd\n"
    assert (tmp_path / "secrets.key").stat().st_mode & 0o777 == 0o600


def test_it_opens_as_nothing_else_and_with_no_other_key(tmp_path):
    key = SealingKey.at(tmp_path / "secrets.key")
    sealed = key.seal("a value", bound_to="acme/shop/KEY")
    changed = sealed[:-6] + ("A" if sealed[-6] != "A" else "B") + sealed[-5:]
    other = SealingKey.at(tmp_path / "other.key")
    for opening, text, bound in (
        (key, sealed, "globex/shop/KEY"),
        (key, changed, "acme/shop/KEY"),
        (key, "s1.zz", "acme/shop/KEY"),
        (key, f"s1.{key.key_id}.", "acme/shop/KEY"),
        (key, "", "acme/shop/KEY"),
        (other, sealed, "acme/shop/KEY"),
    ):
        with pytest.raises(SecretsUnreadable) as refused:
            opening.open(text, bound_to=bound)
        assert "a value" not in str(refused.value)


def test_of_several_that_make_it_at_once_one_is_the_nodes(tmp_path):
    ids: list[str] = []
    threads = [
        threading.Thread(target=lambda: ids.append(SealingKey.at(tmp_path / "key").key_id))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 8 and len(set(ids)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_a_damaged_key_is_refused_and_not_replaced(tmp_path):
    (tmp_path / "key").write_text("half a ke")
    with pytest.raises(DataDirUnusable, match="holds no key"):
        SealingKey.at(tmp_path / "key")
    assert (tmp_path / "key").read_text() == "half a ke"
