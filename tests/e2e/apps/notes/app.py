"""Notes in SQLite on a volume, and what a volume must and must not do."""

# ruff: noqa: PTH104, PTH107, PTH123, PTH208, PTH211

import json
import os
import sqlite3
import sys
import time
from urllib.parse import parse_qs

DATABASE = "/data/notes.db"


def database():
    db = sqlite3.connect(DATABASE)
    db.execute("CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)")
    return db


def add(query):
    db = database()
    try:
        number = db.execute("INSERT INTO notes (text) VALUES (?)", (query["text"],)).lastrowid
        db.commit()
        if "hold" in query:  # the transaction after this one is never committed
            db.execute("INSERT INTO notes (text) VALUES ('not committed')")
            print("one is open", flush=True)
            time.sleep(float(query["hold"]))
        return number
    finally:
        db.close()


def count(_query):
    db = database()
    try:
        return db.execute("SELECT count(*) FROM notes").fetchone()[0]
    finally:
        db.close()


def texts(_query):
    db = database()
    return [text for (text,) in db.execute("SELECT text FROM notes ORDER BY id")]


def insert(query):
    """Many, each in a transaction of its own; how many a second."""
    db, many = database(), int(query["many"])
    began = time.monotonic()
    for number in range(many):
        with db:
            db.execute("INSERT INTO notes (text) VALUES (?)", (f"note {number}",))
    return many / (time.monotonic() - began)


def pragmas(_query):
    first, second = sqlite3.connect(DATABASE), sqlite3.connect(DATABASE)
    own = sqlite3.connect("/data/own.db")
    own.execute("PRAGMA journal_mode = DELETE")
    names = ("journal_mode", "locking_mode", "synchronous")
    return {
        which: [db.execute(f"PRAGMA {name}").fetchone()[0] for name in names]
        for which, db in (("first", first), ("second", second), ("own", own))
    } | {"temporary": sqlite3.connect("/tmp/x.db").execute("PRAGMA journal_mode").fetchone()[0]}


def write(query):
    try:
        with open(query["path"], "ab") as file:
            file.write(b"x" * (int(query["kib"]) << 10))
    except OSError as error:
        return [error.errno, error.strerror]
    return "written"


def fill(query):
    """Until the database has no room."""
    db = database()
    try:
        while True:
            with db:
                db.execute("INSERT INTO notes (text) VALUES (?)", ("x" * 50_000,))
    except sqlite3.OperationalError as error:
        return str(error)


def remove(query):
    os.remove(query["path"])


def listing(query):
    try:
        return sorted(os.listdir(query["path"]))
    except OSError as error:
        return [error.errno, error.strerror]


def move(query):
    try:
        os.rename(query["from"], query["to"])
    except OSError as error:
        return [error.errno, error.strerror]
    return "moved"


def link(query):
    """What a link to somewhere else gives."""
    try:
        if not os.path.lexists("/data/link"):
            os.symlink(query["to"], "/data/link")
        return os.listdir("/data/link")
    except OSError as error:
        return [error.errno, error.strerror]


def app(environ, start_response):
    query = {name: values[-1] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
    name = environ["PATH_INFO"].strip("/")
    found = "ok" if name == "healthz" else getattr(sys.modules[__name__], name)(query)
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(found).encode()]
