"""What one tenant's handles see, and what became of a database from before there were tenants."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from isopod.errors import AppNotFound, NameInvalid
from isopod.model.app import AppSpec, AppVersion, Build
from isopod.model.ids import AppName, Digest
from isopod.model.tenant import DEFAULT_TENANT, MemberName, Quota, Tenant, TenantName
from isopod.state.apps import LABEL_KEPT_S
from isopod.state.audit import AuditEntry
from isopod.state.database import open_state
from isopod.state.members import Member
from isopod.state.tokens import Token
from isopod.state.versions import MadeFrom

ACME, GLOBEX = TenantName("acme"), TenantName("globex")
HELLO = AppName("hello")
BUILD = Build(Digest("a" * 64), Digest("b" * 64), Digest("c" * 64), (("flask", "3.1"),))
MADE_FROM = MadeFrom(Digest("f" * 64), Digest("1" * 64), Digest("2" * 64))
PACKAGE = Digest("e" * 64)


def add(state, tenant: TenantName, name: str = "hello") -> AppVersion:
    with state.transaction() as t:
        mine = t.of(tenant)
        label = mine.apps.save(AppName(name), source="m:/x", now=1.0).label
        spec = AppSpec(label, "python", "app:app")
        version = AppVersion(label, 1, Digest("d" * 64), PACKAGE, BUILD, spec, 2.0)
        mine.versions.add(version, made_from=MADE_FROM)
        mine.apps.set_live(AppName(name), 1)
    return version


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state.db"


@pytest.fixture
def state(path):
    opened = open_state(path)
    yield opened
    opened.close()


def test_the_first_of_a_name_gets_the_plain_label_and_the_others_their_own(state):
    labels = [add(state, tenant).app for tenant in (ACME, GLOBEX, DEFAULT_TENANT)]
    assert labels == ["hello", "hello--globex", "hello--default"]
    for tenant, label in zip((ACME, GLOBEX, DEFAULT_TENANT), labels, strict=True):
        assert [app.label for app in state.of(tenant).apps.all()] == [label]
        assert state.of(tenant).apps.get(HELLO).name == "hello"


def test_a_freed_label_goes_back_to_its_tenant_and_to_others_only_after_a_day(state):
    add(state, ACME)
    state.of(ACME).apps.delete(HELLO, now=10.0)
    theirs = state.of(GLOBEX).apps.save(HELLO, source="", now=10.0 + LABEL_KEPT_S)
    assert theirs.label == "hello--globex"
    assert state.of(ACME).apps.save(HELLO, source="", now=11.0).label == "hello"
    state.of(ACME).apps.delete(HELLO, now=20.0)
    later = state.of(DEFAULT_TENANT).apps.save(HELLO, source="", now=21.0 + LABEL_KEPT_S)
    assert later.label == "hello"
    assert (
        state.of(ACME).apps.save(HELLO, source="", now=22.0 + LABEL_KEPT_S).label == "hello--acme"
    )


def test_whether_a_name_is_too_long_does_not_depend_on_what_others_have(state):
    name = AppName("x" * 60)
    with pytest.raises(NameInvalid):
        state.of(ACME).apps.save(name, source="", now=1.0)
    assert state.of(DEFAULT_TENANT).apps.save(name, source="", now=1.0).label == name


def test_no_handle_sees_or_changes_what_is_another_tenants(state):
    version = add(state, ACME)
    mine, theirs = state.of(ACME), state.of(GLOBEX)
    mine.builds.save(BUILD, package=PACKAGE, runtimes="r", now=1.0)
    mine.packages.add(PACKAGE, now=1.0)
    mine.members.add(Member(MemberName("alice"), 1.0))
    token = Token("t1", ACME, MemberName("alice"), frozenset({"read"}), 1.0)
    mine.tokens.add(token, sha256="0" * 64)
    entry = AuditEntry(1.0, ACME, "alice", "t1", "127.0.0.1", "app.deploy", "hello", "ok")
    mine.audit.add(entry)

    assert theirs.apps.get(HELLO) is theirs.apps.labelled(version.app) is None
    assert (theirs.apps.all(), theirs.apps.count()) == ([], 0)
    versions = theirs.versions
    assert versions.get(version.app, 1) is versions.by_digest(version.app, version.digest) is None
    assert versions.by_input(MADE_FROM.input) is versions.by_twin(MADE_FROM.twin) is None
    assert versions.by_shape(MADE_FROM.shape) is None
    assert versions.of_app(version.app) == versions.live() == []
    assert versions.live_blobs(but=AppName("x")) == set()
    assert not versions.set_snapshot(version, None)
    with pytest.raises(AppNotFound):
        versions.add(replace(version, number=2), made_from=MADE_FROM)
    versions.replace_build(replace(version, created_at=9.0), made_from=MADE_FROM)
    assert theirs.builds.get(BUILD.key) is theirs.builds.of_package(PACKAGE, "r") is None
    assert not theirs.packages.has(PACKAGE)
    assert theirs.members.all() == theirs.tokens.all() == []
    assert theirs.tokens.get("t1") is None
    assert theirs.tokens.revoke_all(now=2.0) == theirs.tokens.revoke_of("alice", now=2.0) == 0
    theirs.tokens.revoke("t1", now=2.0)
    theirs.members.delete(MemberName("alice"))
    theirs.apps.set_live(HELLO, 7)
    theirs.apps.delete(HELLO, now=2.0)
    assert theirs.audit.last(since=0, limit=9) == []

    assert mine.versions.live() == [version]
    assert mine.tokens.get("t1") == token
    assert [one.name for one in mine.members.all()] == ["alice"]
    assert mine.packages.has(PACKAGE)
    assert mine.builds.get(BUILD.key) == BUILD
    assert [one.id for one in mine.audit.last(since=0, limit=9)] == [1]


def test_a_build_of_each_tenant_is_kept_apart(state):
    for tenant, runtimes in ((ACME, "r"), (GLOBEX, "s")):
        state.of(tenant).builds.save(BUILD, package=PACKAGE, runtimes=runtimes, now=1.0)
    assert state.of(ACME).builds.of_package(PACKAGE, "r") == BUILD
    assert state.of(GLOBEX).builds.of_package(PACKAGE, "r") is None


def test_the_node_sees_every_live_version_with_its_tenant(state):
    one, other = add(state, ACME), add(state, GLOBEX)
    assert state.node.live() == [(ACME, one), (GLOBEX, other)]


def test_the_name_of_a_deleted_tenant_stays_taken(state):
    acme = Tenant(ACME, 1.0, Quota(apps=3), "tenant", suspended=True)
    state.node.tenants.add(acme)
    assert state.node.tenants.get(ACME) == acme
    assert [one.name for one in state.node.tenants.all()] == ["acme", "default"]
    state.node.tenants.delete(ACME, now=2.0)
    assert state.node.tenants.get(ACME) is None
    assert state.node.tenants.is_taken(ACME)
    with pytest.raises(sqlite3.IntegrityError):
        state.node.tenants.add(acme)


def test_no_entry_of_the_audit_log_can_be_changed_or_removed(path, state):
    entry = AuditEntry(1.0, ACME, "alice", "", "::1", "app.deploy", "hello", "ok", {"version": 1})
    state.of(ACME).audit.add(entry)
    with closing(sqlite3.connect(path)) as db, db:
        for change in ("UPDATE audit SET actor = 'bob'", "DELETE FROM audit"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                db.execute(change)
    assert state.node.audit.last(since=0, limit=1) == [replace(entry, id=1)]
    assert state.of(ACME).audit.last(since=1.5, limit=1) == []


def test_a_database_from_before_tenants_is_upgraded_in_place_and_belongs_to_default(path):
    # A dump of what isopod wrote when it had snapshots and no tenants.
    with closing(sqlite3.connect(path)) as db, db:
        db.executescript((Path(__file__).parent / "state_0002.sql").read_text())
    state = open_state(path)
    mine = state.of(DEFAULT_TENANT)
    assert [(app.name, app.label) for app in mine.apps.all()] == [
        ("hello", "hello"),
        ("shop", "shop"),
    ]
    live = mine.versions.live()  # checksums and all
    assert [(t, v.app) for t, v in state.node.live()] == [
        (DEFAULT_TENANT, "hello"),
        (DEFAULT_TENANT, "shop"),
    ]
    assert [bool(version.snapshot) for version in live] == [False, True]
    assert mine.versions.by_twin(MADE_FROM.twin) in live
    assert mine.builds.of_package(PACKAGE, "r") == mine.builds.get(BUILD.key) == BUILD
    assert mine.packages.has(PACKAGE)
    assert [one.name for one in state.node.tenants.all()] == ["default"]
    assert state.of(ACME).apps.save(HELLO, source="", now=1.0).label == "hello--acme"
    assert state.of(ACME).versions.live() == []
    state.close()
    again = open_state(path)
    assert again.of(DEFAULT_TENANT).versions.live() == live
    again.close()
