import sqlite3
from contextlib import closing

import pytest

from isopod.errors import StateCorrupt
from isopod.model.app import AppSpec
from isopod.model.ids import AppName, Digest
from isopod.model.route import Route
from isopod.routes import RouteTable, RouteWriter


def route(name: str, version: int = 1) -> Route:
    spec = AppSpec(AppName(name), "python", "app:app", {"KEY": "value"})
    return Route(AppName(name), version, Digest("a" * 64), Digest("b" * 64), Digest("c" * 64), spec)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "routes.db"


def test_a_reader_sees_what_the_writer_put_and_took_away(path):
    writer, reader = RouteWriter(path), RouteTable(path)
    assert reader.get("hello") is None
    writer.put(route("hello"))
    assert reader.get("hello") == route("hello")
    writer.put(route("hello", version=2))
    assert reader.get("hello").version == 2
    writer.remove("hello")
    assert reader.get("hello") is None
    reader.close()


def test_changed_is_true_once_per_change(path):
    writer, reader = RouteWriter(path), RouteTable(path)
    assert reader.changed()
    assert not reader.changed()
    writer.put(route("a"))
    assert reader.changed()
    assert not reader.changed()
    reader.close()


def test_each_change_raises_the_revision(path):
    writer, reader = RouteWriter(path), RouteTable(path)
    seen = [reader.revision()]
    for change in (
        lambda: writer.put(route("a")),
        lambda: writer.replace_all([route("b")]),
        lambda: writer.remove("b"),
    ):
        change()
        seen.append(reader.revision())
    assert seen == sorted(set(seen))
    reader.close()


def test_replace_all_leaves_exactly_the_given_routes(path):
    writer, reader = RouteWriter(path), RouteTable(path)
    writer.put(route("old"))
    writer.replace_all([route("new")])
    assert reader.get("old") is None
    assert reader.get("new") == route("new")
    reader.close()


def test_a_reader_that_is_first_waits_for_the_file(path):
    reader = RouteTable(path)
    assert reader.get("hello") is None
    assert reader.revision() == 0
    writer = RouteWriter(path)
    writer.put(route("hello"))
    assert reader.get("hello") == route("hello")
    reader.close()


def test_a_changed_byte_in_a_route_is_refused_by_name(path):
    RouteWriter(path).put(route("hello"))
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE routes SET body = replace(body, 'app:app', 'app:apx')")
    reader = RouteTable(path)
    with pytest.raises(StateCorrupt, match="'hello'"):
        reader.get("hello")
    reader.close()


@pytest.mark.parametrize("garbage", [b"this is no database" * 1000, None])
def test_a_damaged_file_is_refused_by_readers_and_rebuilt_by_the_writer(path, garbage):
    writer = RouteWriter(path)
    writer.replace_all([route(f"app{n}") for n in range(500)])
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    data = bytearray(path.read_bytes())
    if garbage is None:  # every page but the first
        data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(garbage or data)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    reader = RouteTable(path)
    with pytest.raises(StateCorrupt, match=r"routes\.db"):
        reader.get("app7")
    rebuilt = RouteWriter(path)
    rebuilt.replace_all([route("app7")])
    assert reader.changed()
    assert reader.get("app7") == route("app7")
    reader.close()


def test_a_reader_follows_a_file_that_was_made_anew(path):
    writer, reader = RouteWriter(path), RouteTable(path)
    writer.put(route("old"))
    assert reader.get("old")
    path.unlink()
    RouteWriter(path).put(route("new"))
    assert reader.changed()
    assert reader.get("new")
    assert reader.get("old") is None
    reader.close()
