"""Queries on a connection that stays open: `/KIND/COUNT` answers how long they took, in seconds."""

import functools
import os
import ssl
import time

import pg8000.dbapi

QUERIES = {
    "one": ("select id, name, at from items where id = %s", lambda n: (n % 1000,)),
    "hundred": ("select id, name, at from items where id < %s", lambda _: (100,)),
    "insert": ("insert into more (name) values (%s)", lambda n: (f"item {n}",)),
}


@functools.cache
def connection(encrypted):
    context = ssl.create_default_context(cadata=os.environ["CA"]) if encrypted else False
    made = pg8000.dbapi.connect(
        user="app",
        password=os.environ["PASSWORD"],
        host="localhost",
        port=int(os.environ["DATABASE_PORT"]),
        database="app",
        ssl_context=context,
    )
    made.autocommit = True
    return made


def prepare():
    cursor = connection(False).cursor()
    cursor.execute("drop table if exists items")
    cursor.execute("drop table if exists more")
    cursor.execute(
        "create table items as select id, 'item ' || id as name, now() as at "
        "from generate_series(0, 999) as id"
    )
    cursor.execute("create unique index on items (id)")
    cursor.execute("create table more (id serial primary key, name text)")


def run(kind, count):
    query, parameters = QUERIES[kind.removesuffix("-tls")]
    cursor = connection(kind.endswith("-tls")).cursor()
    began = time.perf_counter()
    for number in range(count):
        cursor.execute(query, parameters(number))
        if cursor.description:
            cursor.fetchall()
    return time.perf_counter() - began


def app(environ, start_response):
    _, kind, count = (environ["PATH_INFO"] + "//").split("/")[:3]
    if kind == "prepare":
        prepare()
    body = str(run(kind, int(count)) if count else "here").encode()
    start_response("200 OK", [("content-type", "text/plain"), ("content-length", str(len(body)))])
    return [body]
