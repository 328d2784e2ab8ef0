import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from isopod.errors import DataDirUnusable, DiskFull, StateBusy, StateCorrupt
from isopod.model.app import AppSpec, AppVersion, Build
from isopod.model.ids import AppName, Digest
from isopod.model.snapshot import Finding, plain
from isopod.model.tenant import DEFAULT_TENANT
from isopod.state.database import open_state
from isopod.state.versions import MadeFrom

HELLO = AppName("hello")
MINE = DEFAULT_TENANT
BUILD = Build(Digest("a" * 64), Digest("b" * 64), Digest("c" * 64), (("flask", "3.1"),))
MADE_FROM = MadeFrom(Digest("f" * 64), Digest("1" * 64), Digest("2" * 64))


def version(number: int, digest: str = "d", app: AppName = HELLO) -> AppVersion:
    spec = AppSpec(app, "python", "app:app", {"SECRET": "hunter2"})
    return AppVersion(app, number, Digest(digest * 64), Digest("e" * 64), BUILD, spec, 2.0)


def add(state, number: int, digest: str = "d", app: AppName = HELLO) -> None:
    with state.transaction() as t:
        t.of(MINE).apps.save(app, source="m:/hello", now=1.0)
        t.of(MINE).versions.add(version(number, digest, app), made_from=MADE_FROM)
        t.of(MINE).apps.set_live(app, number)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state.db"


@pytest.fixture
def state(path):
    opened = open_state(path)
    yield opened
    opened.close()


def test_what_was_written_is_there_after_opening_again(path, state):
    add(state, 1)
    state.close()
    again = open_state(path)
    assert again.of(MINE).versions.live() == [version(1)]
    assert again.of(MINE).apps.get(HELLO).live_version == 1
    again.close()


def test_the_database_is_wal_full_and_for_its_owner_alone(path, state):
    add(state, 1)
    assert path.stat().st_mode & 0o777 == 0o600
    with state._engine.connect() as db:
        assert db.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert db.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert db.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1


def test_a_transaction_is_one_revision_and_all_or_nothing(state):
    before = state.revision()
    add(state, 1)
    assert state.revision() == before + 1
    with pytest.raises(RuntimeError), state.transaction() as t:
        t.of(MINE).apps.save(AppName("other"), source="", now=1.0)
        raise RuntimeError
    assert state.of(MINE).apps.get(AppName("other")) is None
    assert state.revision() == before + 1


def test_deleting_an_app_takes_its_versions_and_leaves_builds(state):
    add(state, 1)
    state.of(MINE).builds.save(BUILD, package=Digest("e" * 64), runtimes="r", now=1.0)
    state.of(MINE).apps.delete(HELLO, now=2.0)
    assert state.of(MINE).versions.of_app(HELLO) == []
    assert state.of(MINE).builds.of_package(Digest("e" * 64), "r") == BUILD
    assert state.of(MINE).builds.get(BUILD.key) == BUILD


def test_numbers_count_from_one_within_each_app(state):
    assert state.of(MINE).versions.next_number(HELLO) == 1
    add(state, 1)
    add(state, 2, digest="9")
    assert state.of(MINE).versions.next_number(HELLO) == 3
    assert state.of(MINE).versions.next_number(AppName("other")) == 1
    assert [v.number for v in state.of(MINE).versions.of_app(HELLO)] == [2, 1]
    assert state.of(MINE).versions.by_digest(HELLO, Digest("9" * 64)).number == 2


def test_a_file_that_is_no_database_is_refused_by_name(path):
    path.write_bytes(b"not a database, but long enough to look like one" * 100)
    with pytest.raises(StateCorrupt, match=r"state\.db.*not a database"):
        open_state(path)


def test_a_malformed_page_is_refused_with_the_pragmas_words(path, state):
    for number in range(1, 200):
        add(state, number, digest=f"{number:064x}"[-1:], app=AppName(f"app{number}"))
    state.close()
    data = bytearray(path.read_bytes())
    pages = len(data) // 4096
    assert pages > 20
    data[20 * 4096 : 21 * 4096] = b"\xee" * 4096
    path.write_bytes(data)
    with pytest.raises(StateCorrupt, match=r"state\.db is damaged: .*Page 21") as caught:
        open_state(path)
    assert caught.value.details["file"] == str(path)


def test_a_page_that_breaks_later_is_refused_when_it_is_read(path, state):
    for number in range(1, 200):
        add(state, number, app=AppName(f"app{number}"))
    state.close()
    running = open_state(path)
    data = bytearray(path.read_bytes())
    data[8192:] = b"\xee" * (len(data) - 8192)
    path.write_bytes(data)
    with pytest.raises(StateCorrupt, match=r"state\.db"):
        running.of(MINE).versions.live()
    running.close()


def test_a_changed_byte_in_a_version_is_refused_by_name(path, state):
    add(state, 1)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE versions SET site_tree = replace(site_tree, 'c', 'd')")
    with pytest.raises(StateCorrupt, match="version 1 of app 'hello'") as caught:
        state.of(MINE).versions.live()
    assert "hunter2" not in str(caught.value.to_wire())


def test_another_writer_that_does_not_end_is_told_as_busy(path, state, monkeypatch):
    state.close()
    monkeypatch.setattr("isopod.state.database._BUSY_MS", 50)
    impatient = open_state(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StateBusy, match="locked"):
            add(impatient, 1)
        assert impatient.of(MINE).apps.all() == []  # readers are not in its way
    impatient.close()


def test_a_full_disk_is_told_and_nothing_is_half_there(path, state):
    add(state, 1)
    with state._engine.connect() as db:  # SQLite's own bound stands in for the disk's
        pages = db.exec_driver_sql("PRAGMA page_count").scalar()
        db.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(DiskFull, match="full") as caught, state.transaction() as t:
        for number in range(2, 400):
            t.of(MINE).versions.add(
                replace(version(number), digest=Digest(f"{number:064x}")),
                made_from=MADE_FROM,
            )
    assert "hunter2" not in str(caught.value.to_wire())
    assert [v.number for v in state.of(MINE).versions.of_app(HELLO)] == [1]


def test_a_file_size_limit_is_no_half_write(path):
    # A real write error from the system, in a process of its own.
    code = f"""
import resource, signal
from pathlib import Path
from isopod.errors import IsopodError
from isopod.model.ids import AppName
from isopod.model.tenant import DEFAULT_TENANT as MINE
from isopod.state.database import open_state
state = open_state(Path({str(path)!r}))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
size = Path({str(path)!r} + "-wal").stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 8192, size + 8192))
try:
    for n in range(1000):
        state.of(MINE).apps.save(AppName(f"a{{n}}"), source="x" * 1000, now=1.0)
except IsopodError as error:
    print(error.code)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.stdout.strip() in ("data_dir_unusable", "disk_full"), ran.stderr
    state = open_state(path)
    names = [app.name for app in state.of(MINE).apps.all()]
    assert names == sorted(f"a{n}" for n in range(len(names)))
    state.close()


def test_a_database_of_a_newer_isopod_is_left_alone(path, state):
    state.close()
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(DataDirUnusable, match="newer isopod"):
        open_state(path)


def test_the_tables_are_what_the_migrations_make(state):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from isopod.state.tables import metadata

    with state._engine.connect() as db:
        assert compare_metadata(MigrationContext.configure(db), metadata) == []


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataDirUnusable, match="nowhere"):
        open_state(tmp_path / "nowhere" / "state.db")


def test_a_database_from_before_snapshots_is_upgraded_in_place(path):
    # A dump of what the first isopod wrote.
    with closing(sqlite3.connect(path)) as db, db:
        db.executescript((Path(__file__).parent / "state_0001.sql").read_text())
    state = open_state(path)
    (live,) = state.of(MINE).versions.live()
    assert live == version(1)
    assert state.of(MINE).versions.by_input(Digest("f" * 64)) == live
    assert state.of(MINE).versions.by_twin(MADE_FROM.twin) is None
    add(state, 2, digest="9")
    assert state.of(MINE).versions.by_twin(MADE_FROM.twin).number == 2
    state.close()
    again = open_state(path)
    assert [v.number for v in again.of(MINE).versions.of_app(HELLO)] == [2, 1]
    again.close()
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE versions SET app_tree = replace(app_tree, 'b', 'd') WHERE number = 1")
    again = open_state(path)
    with pytest.raises(StateCorrupt, match="version 1 of app 'hello'"):
        again.of(MINE).versions.of_app(HELLO)
    again.close()


SNAPSHOT = replace(
    plain("why", (Finding("open file", "/tmp/x", "a.py:1"),)), verdict="unwarmed", private=True
)


def test_a_version_keeps_its_snapshot_and_a_changed_byte_in_it_is_refused(path, state):
    add(state, 1)
    taken = replace(version(1), snapshot=SNAPSHOT)
    state.of(MINE).versions.replace_build(taken, made_from=MADE_FROM)
    assert state.of(MINE).versions.live() == [taken]
    for change in ("replace(snapshot, 'why', 'yhw')", "NULL"):
        with closing(sqlite3.connect(path)) as db, db:
            db.execute(f"UPDATE versions SET snapshot = {change}")
        with pytest.raises(StateCorrupt, match="version 1 of app 'hello'"):
            state.of(MINE).versions.live()


def test_twins_and_shapes_find_the_newest_version_of_any_app(state):
    assert state.of(MINE).versions.by_twin(MADE_FROM.twin) is None
    for number, name in enumerate(("a", "b", "c")):
        made_from = replace(MADE_FROM, twin=Digest(str(number % 2) * 64))
        newer = replace(version(1, app=AppName(name)), created_at=float(number))
        with state.transaction() as t:
            t.of(MINE).apps.save(newer.app, source="", now=1.0)
            t.of(MINE).versions.add(newer, made_from=made_from)
    assert state.of(MINE).versions.by_twin(Digest("0" * 64)).app == "c"
    assert state.of(MINE).versions.by_twin(Digest("1" * 64)).app == "b"
    assert state.of(MINE).versions.by_shape(MADE_FROM.shape).app == "c"
    assert state.of(MINE).versions.by_shape(Digest("7" * 64)) is None


def test_versions_that_share_what_they_hold_keep_their_own_names_and_settings(state):
    """Also where a setting reads like the member that names the app."""
    written = []
    for name in ("a", "b", "c", "app-a"):
        for_name = version(1, app=AppName(name))
        env = {"name": "a", "other": f'"name": "{name}"'} if name != "c" else {}
        written.append(replace(for_name, spec=replace(for_name.spec, env=env)))
    with state.transaction() as t:
        for one in written:
            t.of(MINE).apps.save(one.app, source="", now=1.0)
            t.of(MINE).versions.add(one, made_from=MADE_FROM)
            t.of(MINE).apps.set_live(one.app, 1)
    found = state.of(MINE).versions.live()
    assert found == sorted(written, key=lambda one: one.app)
    assert [one.spec.name for one in found] == ["a", "app-a", "b", "c"]


def test_a_version_gets_a_new_snapshot_unless_it_has_become_another(path, state):
    add(state, 1)
    read = state.of(MINE).versions.get(HELLO, 1)
    assert state.of(MINE).versions.set_snapshot(read, plain("once"))
    assert not state.of(MINE).versions.set_snapshot(read, plain("too late"))
    state.close()
    again = open_state(path)
    assert again.of(MINE).versions.live() == [replace(version(1), snapshot=plain("once"))]
    assert not again.of(MINE).versions.set_snapshot(version(2), plain("never made"))
    again.close()
