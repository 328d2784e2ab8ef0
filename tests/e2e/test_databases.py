"""Database drivers as they are on PyPI, in guests on a real node, against the real servers."""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.browser import Browser
from tests.e2e.nodes import APPS, folder, get, up
from tests.unit.host.certificates import Authority

from tools import databases
from tools.databases import Server
from tools.http_calls import Answer, Caller
from tools.node import ROOT, Node

POOL, VISITORS = 5, 60
DIRECT = 8  # connections at most that other tests of this module keep
# Each request in an instance of its own, with a connection of its own.
SHORT_LIVED = """
import os
import pg8000.dbapi

def app(environ, start_response):
    start_response("200 OK", [("content-type", "application/json")])
    if environ["PATH_INFO"] == "/":
        return [b"here"]
    connection = pg8000.dbapi.connect(
        user="app", password=os.environ["PASSWORD"], host="localhost", database="app",
        port=int(os.environ["PGBOUNCER_PORT"]), ssl_context=False,
    )
    cursor = connection.cursor()
    cursor.execute("select pg_sleep(0.02), count(*) from pg_stat_activity where usename = %s",
                   ("app",))
    seen = cursor.fetchone()[1]
    connection.commit()
    connection.close()
    return [str(seen).encode()]
"""
LIBRARY = ROOT / "examples" / "django-postgres"
NOTES = ROOT / "examples" / "fastapi-crud"
# Run before the version goes live.
COMMANDS = """
[deploy]
post_deploy = [
    "python manage.py migrate",
    "python manage.py createsuperuser --noinput --username ada --email ada@x.org",
]
[env]
DJANGO_SUPERUSER_PASSWORD = "a long word"
"""
MANIFEST = """
[network]
allow = [{allow}]
[scaling]
max_instances = {instances}
[health]
path = "{health}"
"""


class World:
    """The servers, and a node whose default tenant may reach them."""

    def __init__(self, stack: contextlib.ExitStack, where: Path) -> None:
        self.authority = Authority(where)
        certificate = self.authority.issue("localhost")
        start = stack.enter_context
        self.postgres = start(databases.postgres(certificate=certificate))
        self.pgbouncer = start(databases.pgbouncer(self.postgres, connections=POOL))
        self.mariadb = start(databases.mariadb(certificate=certificate))
        self.redis = start(databases.redis())
        self.redis_tls = start(databases.redis(certificate=certificate))
        granted = ",".join(f"localhost:{server.port}" for server in self.servers.values())
        env = {"ISOPOD_EGRESS_PRIVATE": granted}
        self.node: Node = start(up(where / "data", extra_env=env))

    @property
    def servers(self) -> dict[str, Server]:
        return {
            "POSTGRES": self.postgres,
            "PGBOUNCER": self.pgbouncer,
            "MARIADB": self.mariadb,
            "REDIS": self.redis,
            "REDIS_TLS": self.redis_tls,
        }

    def deploy(
        self,
        name: str,
        source: Path,
        where: Path,
        *,
        health: str = "/",
        instances: int = 1,
        more: str = "",
    ) -> str:
        """What the command said. `more`: of the manifest."""
        files = {
            str(file.relative_to(source)): file.read_text()
            for file in source.rglob("*")
            if file.is_file() and "__pycache__" not in file.parts
        }
        allow = ", ".join(f'"localhost:{server.port}"' for server in self.servers.values())
        manifest = MANIFEST.format(allow=allow, health=health, instances=instances) + more
        path = folder(where / name, {**files, "isopod.toml": manifest})
        env = {f"{key}_PORT": str(server.port) for key, server in self.servers.items()}
        env |= {"PASSWORD": databases.PASSWORD, "CA": self.authority.pem}
        env |= {
            f"DATABASE_{key}": value for key, value in env.items()
        }  # as Django's example has it
        env["DATABASE_PORT"] = str(self.postgres.port)
        options = [word for pair in env.items() for word in ("--env", "=".join(pair))]
        return self.node.cli("deploy", str(path), *options)

    def ask(self, path: str, app: str = "databases") -> Any:
        found = get(self.node, app, path)
        assert found.status == 200, (found.status, found.text)
        return found.json()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with contextlib.ExitStack() as stack:
        where = tmp_path_factory.mktemp("databases")
        try:
            made = World(stack, where)
        except databases.Missing as missing:
            pytest.skip(f"{missing} (tools/debian.sh installs it)")
        print(made.deploy("databases", APPS / "databases", where))
        yield made


@pytest.mark.parametrize("how", ["plain", "tls"])
@pytest.mark.parametrize("driver", ["pg8000", "pymysql"])
def test_a_driver_keeps_what_it_committed(world: World, driver: str, how: str) -> None:
    told = world.ask(f"/{driver}/{how}")
    twice = {"pg8000": "DatabaseError", "pymysql": "IntegrityError"}[driver]
    assert told == {"name": "Zoë 🐚 \\ ' \"", "rows": 1999, "twice": twice}


@pytest.mark.parametrize("how", ["plain", "tls"])
def test_redis_pipelines_listens_and_waits(world: World, how: str) -> None:
    assert world.ask(f"/redis/{how}") == {
        "counts": [1, 2000],
        "message": "now",
        "popped": [None, "here"],
        "size": 1 << 20,
    }


@pytest.mark.parametrize("how", ["plain", "tls"])
@pytest.mark.parametrize("driver", ["pg8000", "pymysql"])
def test_sqlalchemy_maps_objects_and_keeps_its_pool(world: World, driver: str, how: str) -> None:
    told = world.ask(f"/{driver}/{how}/sqlalchemy")
    assert told["titles"] == [f"Volume {n}" for n in range(5)]
    assert told["orphan"] == {"pg8000": "ProgrammingError", "pymysql": "IntegrityError"}[driver]
    again = world.ask(f"/{driver}/{how}/sqlalchemy")
    assert again["session"] == told["session"]


def test_redis_waits_without_blocking_the_event_loop(world: World) -> None:
    told = world.ask("/redis-async/tls")
    assert told["popped"] == ["now"] * 5
    assert told["turns"] > 5


def test_requests_of_an_instance_share_a_connection(world: World) -> None:
    assert world.ask("/kept") == world.ask("/kept") > 0


def test_a_connection_that_the_server_ended_is_an_error_and_a_pool_makes_another(
    world: World,
) -> None:
    before = world.ask("/pg8000/tls/sqlalchemy")["session"]
    kept = world.ask("/kept")
    world.ask(f"/end/{before}")
    world.ask(f"/end/{kept}")
    assert world.ask("/pg8000/tls/sqlalchemy")["session"] not in (before, kept)
    assert world.ask("/kept")["error"] == "InterfaceError"


@pytest.mark.parametrize("driver", ["pg8000", "pymysql", "redis"])
def test_a_server_whose_certificate_nobody_vouches_for_is_refused(
    world: World, driver: str
) -> None:
    told = world.ask(f"/{driver}/untrusted")
    assert "certificate verify failed" in told["text"], told


def test_a_query_is_not_waited_for_longer_than_the_driver_says(world: World) -> None:
    told = world.ask("/wait")
    assert "timed out" in told["text"].lower() or told["error"] == "TimeoutError", told


def test_a_pooler_gives_many_short_lived_instances_few_connections(
    world: World, tmp_path: Path
) -> None:
    source = folder(tmp_path / "source", {"app.py": SHORT_LIVED, "requirements.txt": "pg8000"})
    world.deploy("short", source, tmp_path, more='[isolation]\nmode = "request"\n', instances=20)
    with ThreadPoolExecutor(VISITORS) as pool:
        asked = [pool.submit(get, world.node, "short", "/seen") for _ in range(VISITORS)]
        answers = [one.result() for one in asked]
    assert {answer.status for answer in answers} == {200}, Counter(a.text for a in answers)
    assert max(int(answer.text) for answer in answers) <= POOL + DIRECT


def test_fastapi_makes_reads_changes_and_deletes_rows(
    world: World, tmp_path_factory: pytest.TempPathFactory
) -> None:
    where = tmp_path_factory.mktemp("fastapi")
    world.deploy("notes", NOTES, where, health="/openapi.json")
    with Caller(world.node.gateway_port, "notes") as caller:

        def send(method: str, path: str, **fields: str) -> Answer:
            body = json.dumps(fields).encode()
            return caller.call(path, method, body, Content_Type="application/json")

        made = send("POST", "/notes", title="shopping", text="milk")
        assert made.status == 201, made.text
        number = made.json()["id"]
        assert send("POST", "/notes", title="", text="x").status == 422
        assert send("PUT", f"/notes/{number}", title="shopping", text="oats").status == 200
        assert caller.json(f"/notes/{number}")["text"] == "oats"
        assert [note["id"] for note in caller.json("/notes?containing=hop")] == [number]
        assert send("DELETE", f"/notes/{number}").status == 204
        assert caller.call(f"/notes/{number}").status == 404
        assert caller.json("/notes") == []


def test_django_with_its_admin_runs_on_postgresql(
    world: World, tmp_path_factory: pytest.TempPathFactory
) -> None:
    where = tmp_path_factory.mktemp("django")
    with pytest.raises(RuntimeError, match=r"(?s)health_failed.*asked for 'localhost'.*\[health\]"):
        world.deploy("library", LIBRARY, where)
    world.deploy("library", LIBRARY, where, health="/admin/login/", more=COMMANDS)
    assert world.node.json("app", "library")["snapshot"]["verdict"] == "sound"
    with Caller(world.node.gateway_port, "library") as caller:
        browser = Browser(caller)
        assert browser.get("/static/admin/css/base.css").status == 200
        wrong = browser.post("/admin/login/", username="ada", password="another")
        assert "Please enter the correct" in wrong.text
        assert browser.post("/admin/login/", username="ada", password="a long word").status == 302
        assert browser.post("/admin/books/author/add/", name="Ursula").status == 302
        listed = re.search(r"/author/(\d+)/change", browser.get("/admin/books/author/").text)
        assert listed is not None
        book = {
            "title": "The Word",
            "author": listed[1],
            "price": "3.50",
            "published": "1972-01-01",
        }
        assert browser.post("/admin/books/book/add/", **book).status == 302
        again = browser.post("/admin/books/author/add/", name="Ursula")
        assert "already exists" in again.text
        shelf = browser.get("/?author=ursula").json()
        assert (shelf["number"], shelf["mean"]) == (1, "3.50")
        assert shelf["books"][0]["title"] == "The Word"
        assert "1 book" in browser.get("/admin/books/book/?q=word").text
        assert "0 books" in browser.get("/admin/books/book/?q=sword").text
