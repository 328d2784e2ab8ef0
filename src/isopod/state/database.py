"""Opening state: check it, migrate it, and hand out narrowed handles.

`open_state` refuses a damaged file. Each write is one `BEGIN IMMEDIATE` transaction that also
raises the revision, committed with `synchronous=FULL`: what was acknowledged survives a power
cut. SQLite's errors become ours in `translated`, and nowhere else.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import Connection, Engine, create_engine, event, select, update
from sqlalchemy.exc import DBAPIError, NoSuchTableError

from isopod.errors import DataDirUnusable, DiskFull, StateBusy, StateCorrupt
from isopod.model.tenant import TenantName
from isopod.state.handles import Handles, TenantHandles
from isopod.state.tables import meta

_BUSY_MS = 5000
_WRITE = "isopod_write"  # execution option: this transaction writes
_SPARE_BYTES = 2**20  # less free space than this explains an I/O error


class State:
    """The node's durable state. Safe to use from several threads."""

    def __init__(self, path: Path, engine: Engine) -> None:
        self._path = path
        self._engine = engine
        self._handles = Handles(self._reading, self._writing, path)
        self.node = self._handles.node

    def of(self, tenant: TenantName) -> TenantHandles:
        """What is that tenant's, and nothing else."""
        return self._handles.of(tenant)

    @contextmanager
    def transaction(self) -> Iterator[Handles]:
        """Several changes as one: all of them or none, one revision."""
        with self._writing() as connection:

            def same() -> AbstractContextManager[Connection]:
                return nullcontext(connection)

            yield Handles(same, same, self._path)

    def revision(self) -> int:
        """Rises with every committed change."""
        with self._reading() as connection:
            return int(connection.execute(select(meta.c.revision)).scalar_one())

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with translated(self._path), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        engine = self._engine.execution_options(**{_WRITE: True})
        with translated(self._path), engine.begin() as connection:
            yield connection
            connection.execute(update(meta).values(revision=meta.c.revision + 1))


def open_state(path: Path) -> State:
    """Check, migrate and open the database at `path`; made (mode 0600) when absent.

    StateCorrupt names the file and what SQLite says of it; DataDirUnusable when the file cannot
    be opened or a newer isopod wrote it.
    """
    try:
        path.touch(mode=0o600)
    except OSError as bad:
        raise DataDirUnusable(f"cannot open {str(path)!r}: {bad.strerror}") from bad
    _check(path)
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": _BUSY_MS / 1000})
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "begin", _on_begin)
    try:
        with translated(path):
            _migrate(path, engine)
    except BaseException:
        engine.dispose()
        raise
    return State(path, engine)


def _check(path: Path) -> None:
    with translated(path), closing(sqlite3.connect(path, timeout=_BUSY_MS / 1000)) as db:
        # One finding names its page; asked for more, SQLite goes on reading and only says
        # "malformed" in the end.
        words = " ".join(str(db.execute("PRAGMA quick_check(1)").fetchone()[0]).split())
    if words != "ok":
        raise StateCorrupt(
            f"{path} is damaged: {words}", details={"file": str(path), "quick_check": words}
        )


def _migrate(path: Path, engine: Engine) -> None:
    config = Config()
    folder = Path(__file__).parent / "migrations"
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    try:
        with engine.execution_options(**{_WRITE: True}).begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except CommandError as bad:
        raise DataDirUnusable(
            f"{path} was written by a newer isopod: {bad}", hint="upgrade isopod on this node"
        ) from bad


def _on_connect(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves: the driver's is too late and weak
    cursor = connection.cursor()
    for pragma in (
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        f"busy_timeout = {_BUSY_MS}",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _on_begin(connection: Connection) -> None:
    # A reader that turns into a writer later can fail at once with "locked"; so writers say so.
    write = connection.get_execution_options().get(_WRITE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """SQLite's errors, in our words."""
    try:
        yield
    except NoSuchTableError as bad:
        raise StateCorrupt(f"{path}: table {bad} is missing", details={"file": str(path)}) from bad
    except DBAPIError as bad:
        if not isinstance(bad.orig, sqlite3.DatabaseError):
            raise
        # `from bad.orig`: SQLAlchemy's text lists the statement's values, which may be secret.
        raise _ours(path, bad.orig) from bad.orig
    except sqlite3.DatabaseError as bad:
        raise _ours(path, bad) from bad


def _ours(path: Path, bad: sqlite3.DatabaseError) -> Exception:
    code = getattr(bad, "sqlite_errorcode", 0) & 0xFF
    text, details = f"{path}: {bad}", {"file": str(path), "sqlite": str(bad)}
    if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and _no_space(path)):
        return DiskFull(text, details=details)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StateBusy(f"{path} is locked by another process", details=details)
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StateCorrupt(text, details=details)
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR):
        return DataDirUnusable(text, details=details)
    return bad


def _no_space(path: Path) -> bool:
    free = os.statvfs(path.parent)
    return free.f_bavail * free.f_frsize < _SPARE_BYTES
