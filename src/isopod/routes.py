"""The node-local projection of live routes: what workers read instead of asking control.

One small SQLite file, D/routes/routes.db. Control writes it (`RouteWriter`), every worker reads it
(`RouteTable`), so apps keep serving while control restarts. It holds nothing that state does
not: control rebuilds it at start. Each row carries the sha256 of its body, because SQLite's own
checks do not see a changed byte inside a value. Uses sqlite3 only: a worker must stay small.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from isopod.errors import DiskFull, StateBusy, StateCorrupt
from isopod.model.route import Route
from isopod.model.tenant import Tenant, TenantName

_SCHEMA = """
CREATE TABLE IF NOT EXISTS routes (name TEXT PRIMARY KEY, body TEXT NOT NULL, sha256 TEXT NOT NULL)
WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tenants (name TEXT PRIMARY KEY, body TEXT NOT NULL, sha256 TEXT NOT NULL)
WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS meta (id INTEGER PRIMARY KEY CHECK (id = 1), revision INTEGER NOT NULL);
INSERT OR IGNORE INTO meta VALUES (1, 0);
"""
_CACHED_NAMES = 4096  # per worker; unknown names are cached too, so the bound matters
_BUSY_MS = 5000
_Row = tuple[str, str, str]  # name, JSON, its sha256


class RouteWriter:
    """Control's side. Every change is one transaction and one higher revision."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: sqlite3.Connection | None = None  # see _create
        self._create()

    def close(self) -> None:
        """Readers that are connected go on reading."""
        if self._held is not None:
            self._held.close()
            self._held = None

    def replace_all(self, routes: Iterable[Route], tenants: Iterable[Tenant] = ()) -> None:
        """Make the file hold exactly these. A damaged one is replaced by a new one."""
        rows = [_row(route) for route in routes]
        tenant_rows = [_row(tenant) for tenant in tenants]
        try:
            if self._damaged():
                self._forget()
            self._write_all(rows, tenant_rows)
        except StateCorrupt:
            self._forget()
            self._write_all(rows, tenant_rows)

    def put(self, *routes: Route, name: str = "") -> None:
        """All of them or none. `name`: what one is found by, when that is not its own."""
        with self._transaction() as db:
            rows = [_row(route) for route in routes]
            if name:
                rows = [(name, body, sha256) for _, body, sha256 in rows]
            db.executemany("INSERT OR REPLACE INTO routes VALUES (?, ?, ?)", rows)

    def put_tenant(self, tenant: Tenant) -> None:
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO tenants VALUES (?, ?, ?)", _row(tenant))

    def remove_tenant(self, name: str) -> None:
        with self._transaction() as db:
            db.execute("DELETE FROM tenants WHERE name = ?", (name,))

    def wipe(self) -> None:
        """Of what was replaced or removed nothing shall be left in the files, for those who may
        read them. Best effort while somebody reads; the next change goes on with it."""
        with _translated(self._path), closing(_connect(self._path)) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def remove(self, name: str) -> None:
        with self._transaction() as db:
            db.execute("DELETE FROM routes WHERE name = ?", (name,))

    def _write_all(self, rows: list[_Row], tenant_rows: list[_Row]) -> None:
        with self._transaction() as db:
            db.execute("DELETE FROM routes")
            db.executemany("INSERT INTO routes VALUES (?, ?, ?)", rows)
            db.execute("DELETE FROM tenants")
            db.executemany("INSERT INTO tenants VALUES (?, ?, ?)", tenant_rows)

    def _create(self) -> None:
        self._path.parent.mkdir(mode=0o700, exist_ok=True)
        self._path.touch(mode=0o600)
        try:
            with _translated(self._path), closing(_connect(self._path)) as db:
                db.execute("PRAGMA journal_mode = WAL")
                db.executescript(_SCHEMA)
            # Held for as long as control lives: with the last connection the files beside it go
            # (-wal, -shm), and a worker, which may only read, could not make them again.
            self._held = _connect(self._path)
            _data_version(self._held)
        except StateCorrupt:  # holds nothing of its own: start again
            self._forget(create=False)
            self._create()

    def _forget(self, *, create: bool = True) -> None:
        # Readers notice the new inode; they never see a file that changes under them.
        self.close()
        for suffix in ("-wal", "-shm", ""):
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)
        if create:
            self._create()

    def _damaged(self) -> bool:
        with _translated(self._path), closing(_connect(self._path)) as db:
            return bool(db.execute("PRAGMA quick_check").fetchone()[0] != "ok")

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with _translated(self._path), closing(_connect(self._path)) as db:
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("UPDATE meta SET revision = revision + 1")
            db.execute("COMMIT")


class RouteTable:
    """A worker's side: `get` costs one dictionary lookup and one pragma.

    `PRAGMA data_version` differs whenever another connection committed; then the cache goes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db: sqlite3.Connection | None = None
        self._inode = 0
        self._version = -1  # of the cache
        self._polled: tuple[int, int] = (0, -1)  # what `changed` saw last
        self._cache: OrderedDict[str, Route | None] = OrderedDict()

    def get(self, name: str) -> Route | None:
        """The live version of app `name`. StateCorrupt when its row or the file is damaged."""
        with _translated(self._path):
            db = self._open()
            if db is None:
                return None
            version = _data_version(db)
            if version != self._version:
                self._cache.clear()
                self._version = version
            if name in self._cache:
                self._cache.move_to_end(name)
                return self._cache[name]
            found = db.execute("SELECT body, sha256 FROM routes WHERE name = ?", (name,)).fetchone()
            route = None if found is None else _route(self._path, name, *found)
            self._cache[name] = route
            if len(self._cache) > _CACHED_NAMES:
                self._cache.popitem(last=False)
            return route

    def tenants(self) -> dict[TenantName, Tenant]:
        """Every tenant that control wrote; who is not among them has no quota but the node's."""
        with _translated(self._path):
            db = self._open()
            rows = [] if db is None else db.execute("SELECT name, body, sha256 FROM tenants")
            bodies = [_checked(self._path, f"tenant {name!r}", b, s) for name, b, s in rows]
        found = (Tenant.from_json(json.loads(body)) for body in bodies)
        return {tenant.name: tenant for tenant in found}

    def changed(self) -> bool:
        """Whether anything was committed since the last call (true at first)."""
        with _translated(self._path):
            try:
                # A rebuilt file has a new inode; only this poll looks, `get` must stay cheap.
                if self._db is not None and self._path.stat().st_ino != self._inode:
                    self.close()
            except FileNotFoundError:
                self.close()
            db = self._open()
            now = (self._inode, -1 if db is None else _data_version(db))
            seen, self._polled = self._polled, now
            return seen != now

    def revision(self) -> int:
        with _translated(self._path):
            db = self._open()
            if db is None:
                return 0
            return int(db.execute("SELECT revision FROM meta").fetchone()[0])

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None
        self._version = -1
        self._cache.clear()

    def _open(self) -> sqlite3.Connection | None:
        if self._db is None and self._path.exists():
            self._inode = self._path.stat().st_ino
            self._db = _connect(self._path, "ro")
        return self._db


def _connect(path: Path, mode: str = "rwc") -> sqlite3.Connection:
    where = f"file:{quote(str(path))}?mode={mode}"
    db = sqlite3.connect(where, uri=True, isolation_level=None, check_same_thread=False)
    db.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
    db.execute("PRAGMA secure_delete = ON")  # what was removed is overwritten
    return db


def _data_version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA data_version").fetchone()[0])


_canonical = json.JSONEncoder(sort_keys=True).encode


def _row(one: Route | Tenant) -> _Row:
    body = _canonical(one.to_json())
    return one.name, body, hashlib.sha256(body.encode()).hexdigest()


def _route(path: Path, name: str, body: str, sha256: str) -> Route:
    return Route.from_json(json.loads(_checked(path, f"the route of app {name!r}", body, sha256)))


def _checked(path: Path, what: str, body: str, sha256: str) -> str:
    if hashlib.sha256(str(body).encode()).hexdigest() != sha256:
        raise StateCorrupt(
            f"{path}: {what} does not match its checksum",
            hint="restart the node: it rebuilds routes.db from state.db",
        )
    return body


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as bad:
        code = getattr(bad, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            raise DiskFull(f"{path}: {bad}") from bad
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise StateBusy(f"{path} is locked by another process") from bad
        raise StateCorrupt(f"{path}: {bad}") from bad
    except sqlite3.DatabaseError as bad:
        raise StateCorrupt(
            f"{path}: {bad}", hint="restart the node: it rebuilds routes.db from state.db"
        ) from bad
