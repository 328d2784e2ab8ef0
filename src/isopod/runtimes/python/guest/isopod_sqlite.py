"""SQLite on a volume: durable and fast unless the app says otherwise.

One instance uses a volume, so nobody else ever needs a database's lock: held for good (exclusive)
it lets SQLite keep its write-ahead log's index in memory, which a guest cannot share anyway. The
connections of the instance share one cache, and with it that lock. A commit is then one write to
the log: it survives the instance, the worker and the node being killed; the disk is waited for at
checkpoints (`synchronous = NORMAL`). What the app sets itself comes later and wins; a database that
it opens by a URI, or read-only, is left as it is.
"""

import os

_mounts = ()
_URI = 7  # the position of `uri` among connect's arguments
_DEFAULTS = ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = NORMAL")


def use(mounts):
    global _mounts
    _mounts = tuple(f"{mount}/" for mount in mounts)


def complete(dbapi2):
    """The module sqlite3.dbapi2, before `sqlite3` takes its names over."""
    real = dbapi2.connect

    def connect(database, *args, **kwargs):
        uri = _uri(database)
        if uri is None or kwargs.get("uri") or len(args) >= _URI:
            return real(database, *args, **kwargs)
        # A connection that is in a transaction from the start could not choose its journal.
        autocommit = kwargs.pop("autocommit", None)
        connection = real(uri, *args, **kwargs, uri=True)
        for pragma in _DEFAULTS:
            try:
                dbapi2.Connection.execute(connection, f"PRAGMA {pragma}").close()
            except dbapi2.DatabaseError:
                break  # no database, or one in use: the app's first statement says so
        if autocommit is not None:
            connection.autocommit = autocommit
        return connection

    connect.__doc__ = real.__doc__
    dbapi2.connect = connect


def _uri(database):
    """Of a file on a volume; None for anything else."""
    try:
        name = os.fsdecode(database)
    except TypeError:
        return None
    if not name or name.startswith(":"):
        return None
    path = os.path.abspath(name)
    if not path.startswith(_mounts):
        return None
    from urllib.parse import quote

    return f"file:{quote(path)}?cache=shared"
