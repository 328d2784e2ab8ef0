"""Volumes on a real node: one writer over all workers, kills, copies, and what must be denied."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import sqlite3
import tarfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from tests.e2e.nodes import APPS, PATIENCE_S, Failed, dial, folder, get, text, until, up
from websockets.exceptions import ConnectionClosed

from tools.http_calls import Caller
from tools.node import ROOT, Node

FORM = {"content_type": "application/x-www-form-urlencoded"}


# Writes each message to the volume, and answers how many there are.
KEEPS = """
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            with open("/data/said", "a+") as said:
                said.write(message["text"] + "\\n")
                said.flush()
                said.seek(0)
                await send({"type": "websocket.send", "text": str(len(said.readlines()))})
"""


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node with two workers and the app `notes` on a volume of 20 MiB."""
    with up(tmp_path_factory.mktemp("volumes") / "data", workers=2) as node:
        node.cli("volumes", "create", "notes", "--size", "20")
        node.cli("deploy", str(APPS / "notes"), "--name", "notes")
        yield node


def ask(node: Node, path: str) -> object:
    return json.loads(text(node, "notes", path))


def instances(node: Node) -> list[dict[str, Any]]:
    return [one for one in node.instances() if one["app"] == "notes"]


def holder(node: Node) -> tuple[int, int]:
    """The worker with an instance, and its pid."""
    (held,) = instances(node)
    return held["worker"], held["pid"]


def test_requests_at_every_worker_meet_one_instance_that_keeps_what_it_wrote(notes: Node) -> None:
    before = int(ask(notes, "/count"))
    numbers = []

    def add(start: int) -> None:
        # Each on a connection of its own: the kernel spreads them over the workers.
        numbers.extend(int(ask(notes, f"/add?text=n{start + n}")) for n in range(10))

    threads = [threading.Thread(target=add, args=(10 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(before + 1, before + 41))
    assert len(instances(notes)) == 1
    notes.cli("sleep", "notes")
    assert ask(notes, "/count") == before + 40


def test_sqlite_on_a_volume_is_fast_and_durable_unless_the_app_says_otherwise(notes: Node) -> None:
    assert ask(notes, "/pragmas") == {
        "first": ["wal", "exclusive", 1],
        "second": ["wal", "exclusive", 1],
        "own": ["delete", "exclusive", 1],
        "temporary": "delete",
    }


def test_acknowledged_rows_survive_a_killed_worker_in_the_middle_of_a_transaction(
    notes: Node,
) -> None:
    acknowledged = [int(ask(notes, f"/add?text=kept{n}")) for n in range(5)]
    count = int(ask(notes, "/count"))
    _, pid = holder(notes)
    # A transaction is open, with the database's lock held, when the worker is killed.
    failed: list[int] = []

    def add_and_hold() -> None:
        try:
            failed.append(get(notes, "notes", "/add?text=last&hold=20").status)
        except (OSError, http.client.HTTPException):
            failed.append(0)  # its connection was the killed worker's

    hold = threading.Thread(target=add_and_hold)
    hold.start()
    log = notes.data_dir / "logs" / "notes.jsonl"
    until("a transaction is open", lambda: log.exists() and "one is open" in log.read_text())
    os.kill(pid, signal.SIGKILL)
    hold.join()
    assert failed[0] in (0, 502, 503)
    # The other worker takes over; the lock that the killed one left does not keep it out.
    answer = until("the app answers again", lambda: _ok(notes, "/count"))
    assert int(answer) == count + 1  # the one that was committed, not the one that was not
    kept = ask(notes, "/texts")
    assert isinstance(kept, list)
    assert kept[-1] == "last"
    assert "not committed" not in kept
    assert len(acknowledged) == 5
    until("the killed worker is back", lambda: _workers(notes) == 2)


def _ok(node: Node, path: str) -> str:
    answer = get(node, "notes", path)
    return answer.text if answer.status == 200 else ""


def _workers(node: Node) -> int:
    return len(node.workers())


def test_a_backup_under_load_is_whole_and_restores(notes: Node, tmp_path: Path) -> None:
    stop = threading.Event()
    seen: list[int] = []

    def write() -> None:
        while not stop.is_set():
            answer = get(notes, "notes", "/add?text=load")
            seen.append(answer.status)

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    try:
        until("some are written", lambda: len(seen) > 10)
        before = int(ask(notes, "/count"))
        notes.cli("volumes", "backup", "notes", str(tmp_path / "notes.tar"))
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert set(seen) == {200}
    with tarfile.open(tmp_path / "notes.tar") as archive:
        assert "notes.db-wal" not in archive.getnames()
        archive.extract("notes.db", tmp_path, filter="data")
    with closing(sqlite3.connect(tmp_path / "notes.db")) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        (copied,) = db.execute("SELECT count(*) FROM notes").fetchone()
    after = int(ask(notes, "/count"))
    assert before <= copied <= after
    notes.cli("volumes", "restore", "notes", str(tmp_path / "notes.tar"))
    assert ask(notes, "/count") == copied
    assert (
        "is there already"
        in Failed(notes, "volumes", "backup", "notes", str(tmp_path / "notes.tar")).message
    )


def test_files_go_in_and_out(notes: Node, tmp_path: Path) -> None:
    folder(tmp_path / "in", {"a.txt": "a", "deep/b.txt": "b"})
    notes.cli("volumes", "copy-in", "notes", str(tmp_path / "in"), "/files")
    assert ask(notes, "/listing?path=/data/files") == ["a.txt", "deep"]
    notes.cli("volumes", "copy-out", "notes", "/files", str(tmp_path / "out"))
    assert (tmp_path / "out" / "deep" / "b.txt").read_text() == "b"
    failed = Failed(notes, "volumes", "copy-out", "notes", "/files", str(tmp_path / "out"))
    assert "is there already" in failed.message
    missing = Failed(notes, "volumes", "copy-out", "notes", "/nothing", str(tmp_path / "out2"))
    assert missing.code == "path_not_found"
    unclear = Failed(notes, "volumes", "copy-in", "notes", str(tmp_path / "none"))
    assert "is not there" in unclear.message


def test_a_full_volume_says_so_and_a_larger_one_goes_on(notes: Node) -> None:
    assert ask(notes, "/write?path=/data/large&kib=64000") == [51, "No space left on device"]
    assert ask(notes, "/fill") == "database or disk is full"
    before = int(ask(notes, "/count"))
    assert ask(notes, "/write?path=/tmp/apart&kib=1024") == "written"
    ask(notes, "/remove?path=/data/large")
    notes.cli("volumes", "resize", "notes", "--size", "60")
    assert int(ask(notes, "/add?text=room")) > 0
    assert ask(notes, "/count") == before + 1


def test_a_volume_is_its_apps_alone_and_nothing_leads_out_of_it(
    notes: Node, tmp_path: Path
) -> None:
    assert ask(notes, "/move?from=/data/notes.db&to=/tmp/notes.db") == [
        75,
        "Cross-device link",
    ]
    (notes.data_dir / "volumes" / "default" / "secret").write_text("secret")
    for where in ("..", "../..", "/", "/etc", "../../secret"):
        found = ask(notes, f"/link?to={where}")
        assert isinstance(found, list)
        assert isinstance(found[0], int), found
        notes.cli("sleep", "notes")
        link = notes.data_dir / "volumes" / "default" / "notes" / "data" / "link"
        link.unlink(missing_ok=True)
    assert isinstance(ask(notes, "/listing?path=/data/..")[0], int)  # type: ignore[index]
    # Another app has none: the same code without the volume finds nothing there.
    bare = tmp_path / "bare"
    folder(bare, {"app.py": (APPS / "notes" / "app.py").read_text()})
    (bare / "isopod.toml").write_text('[health]\npath = "/healthz"\n')
    notes.cli("deploy", str(bare), "--name", "bare")
    assert json.loads(text(notes, "bare", "/listing?path=/data"))[0] == 44


def test_what_is_mounted_cannot_be_taken_away_or_mounted_twice(notes: Node, tmp_path: Path) -> None:
    assert Failed(notes, "volumes", "delete", "notes").code == "volume_in_use"
    assert Failed(notes, "deploy", str(APPS / "notes"), "--name", "other").code == "volume_in_use"
    twice = folder(tmp_path / "twice", {"app.py": "def app(e, s): pass"})
    mount = '[[volumes]]\nname = "notes"\nmount = "/{}"\n'
    (twice / "isopod.toml").write_text(mount.format("a") + mount.format("b"))
    failed = Failed(notes, "deploy", str(twice), "--name", "twice")
    assert failed.code == "manifest_invalid" and "twice" in failed.message
    site = folder(tmp_path / "site", {"index.html": "hello", "isopod.toml": mount.format("a")})
    failed = Failed(notes, "deploy", str(site), "--name", "site")
    assert failed.code == "manifest_invalid" and "'static'" in failed.message


def test_an_app_that_uses_its_volume_at_import_boots_with_it_at_each_start(
    notes: Node, tmp_path: Path
) -> None:
    source = """
import os
os.makedirs("/data/made", exist_ok=True)
seen = sorted(os.listdir("/data"))

def app(environ, start_response):
    start_response("200 OK", [])
    return [" ".join(seen).encode()]
"""
    manifest = '[[volumes]]\nname = "early"\nmount = "/data"\n'
    early = folder(tmp_path / "early", {"app.py": source, "isopod.toml": manifest})
    (tmp_path / "kept.txt").write_text("kept")
    notes.cli("volumes", "create", "early", "--size", "1")
    notes.cli("volumes", "copy-in", "early", str(tmp_path / "kept.txt"))
    notes.cli("deploy", str(early), "--name", "early")
    assert text(notes, "early") == "kept.txt made"
    snapshot = json.loads(notes.cli("app", "early", "--json"))["snapshot"]
    assert snapshot["verdict"] == "plain"
    assert [one["kind"] for one in snapshot["findings"]] == ["volume"]
    notes.cli("delete", "early", "--yes")
    notes.cli("volumes", "delete", "early")
    assert not (notes.data_dir / "volumes" / "default" / "early").exists()


def test_websockets_of_every_worker_reach_the_one_that_has_the_volume(
    notes: Node, tmp_path: Path
) -> None:
    manifest = '[[volumes]]\nname = "said"\nmount = "/data"\n'
    files = {"app.py": KEEPS, "isopod.toml": manifest}
    notes.cli("volumes", "create", "said", "--size", "1")
    notes.cli("deploy", str(folder(tmp_path / "keeps", files)), "--name", "keeps")
    with ExitStack() as stack:
        clients = [stack.enter_context(dial(notes, "/", "keeps")) for _ in range(8)]
        for number, client in enumerate(clients, 1):
            client.send("hello")
            assert client.recv(timeout=PATIENCE_S) == str(number)
        # Whoever keeps one open keeps nobody from copying.
        notes.cli("volumes", "backup", "said", str(tmp_path / "said.tar"))
        for client in clients:
            with pytest.raises(ConnectionClosed) as ended:
                client.recv(timeout=PATIENCE_S)
            assert ended.value.rcvd is not None and ended.value.rcvd.code == 1012
    with dial(notes, "/", "keeps") as client:
        client.send("again")
        assert client.recv(timeout=PATIENCE_S) == "9"
        (held,) = (one for one in notes.instances() if one["app"] == "keeps")
        os.kill(held["pid"], signal.SIGKILL)
        with pytest.raises(ConnectionClosed):
            client.recv(timeout=PATIENCE_S)
    with dial(notes, "/", "keeps") as client:
        client.send("and again")
        assert client.recv(timeout=PATIENCE_S) == "10"
    notes.cli("delete", "keeps", "--yes")
    notes.cli("volumes", "delete", "said")


def test_a_killed_node_has_every_acknowledged_row(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with up(data, workers=2) as node:
        node.cli("volumes", "create", "notes")
        node.cli("deploy", str(APPS / "notes"), "--name", "notes")
        for number in range(1, 31):
            assert ask(node, f"/add?text=n{number}") == number
        node.process.kill()
        node.process.wait()
    with up(data, workers=2) as node:
        assert ask(node, "/texts") == [f"n{number}" for number in range(1, 31)]


def test_django_and_its_admin_keep_what_they_have_in_sqlite_on_a_volume(
    notes: Node, tmp_path: Path
) -> None:
    notes.cli("volumes", "create", "guestbook")
    notes.cli(
        *("deploy", str(ROOT / "examples" / "django-sqlite"), "--name", "guestbook"),
        *("--env", "ADMIN_PASSWORD=a long word"),
    )
    with Caller(notes.gateway_port, "guestbook") as caller:
        added = caller.call("/", method="POST", body=b"text=first", **FORM)
        assert added.json() == {"entries": ["first"], "number": 1}
        login = caller.call("/admin/login/")
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', login.text)
        assert token is not None
        cookie = login["Set-Cookie"].partition(";")[0]
        body = urlencode(
            {
                "csrfmiddlewaretoken": token[1],
                "username": "admin",
                "password": "a long word",
                "next": "/admin/entries/entry/",
            }
        )
        done = caller.call(
            "/admin/login/", method="POST", body=body.encode(), cookie=cookie, **FORM
        )
        assert done.status == 302, done.text[:500]
        session = re.search(r"sessionid=\w+", str(done.headers.get_all("Set-Cookie")))
        assert session is not None
        notes.cli("sleep", "guestbook")
        # Another instance: the session and the entry are in the volume.
        listed = caller.call("/admin/entries/entry/", cookie=session[0])
        assert listed.status == 200
        assert "first" in listed.text
    snapshot = json.loads(notes.cli("app", "guestbook", "--json"))["snapshot"]
    assert snapshot["verdict"] == "sound", snapshot
