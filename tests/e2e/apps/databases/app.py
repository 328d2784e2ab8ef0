"""What apps do with their databases, by unmodified drivers: `/DRIVER/HOW/WHAT`."""

import asyncio
import datetime
import decimal
import functools
import json
import os
import ssl
import traceback

import pg8000.dbapi
import pymysql
import redis
import sqlalchemy
from sqlalchemy import orm

PASSWORD = os.environ["PASSWORD"]
MANY = 2000
kept = {}


def port(name):
    return int(os.environ[f"{name}_PORT"])


def context(how):
    if how == "plain":
        return False  # None is "if the server can" to pg8000
    if how == "untrusted":
        return ssl.create_default_context()
    return ssl.create_default_context(cadata=os.environ["CA"])


def open_pg8000(how, **more):
    return pg8000.dbapi.connect(
        user="app",
        password=PASSWORD,
        host="localhost",
        port=port("POSTGRES"),
        database="app",
        ssl_context=context(how),
        **more,
    )


def tls_of_pymysql(how):
    return {"ssl": context(how)} if how != "plain" else {"ssl_disabled": True}


def open_pymysql(how):
    return pymysql.connect(
        host="localhost",
        port=port("MARIADB"),
        user="app",
        password=PASSWORD,
        database="app",
        **tls_of_pymysql(how),
    )


def open_redis(how):
    tls = {} if how == "plain" else {"ssl": True, "ssl_ca_data": os.environ["CA"]}
    if how == "untrusted":
        del tls["ssl_ca_data"]
    name = "REDIS" if how == "plain" else "REDIS_TLS"
    return redis.Redis("localhost", port(name), password=PASSWORD, **tls)


BLOB = {"pg8000": "bytea", "pymysql": "longblob"}
SESSION = {
    "pg8000": ("pg_backend_pid()", "(select ssl from pg_stat_ssl where pid = pg_backend_pid())"),
    "pymysql": ("connection_id()", "1"),
}


def use(driver, how):
    """A transaction kept, one taken back, many rows, large and unusual values."""
    connection = {"pg8000": open_pg8000, "pymysql": open_pymysql}[driver](how)
    cursor = connection.cursor()
    cursor.execute("drop table if exists items")
    cursor.execute(
        "create table items (id int primary key, name text, price decimal(12, 2), "
        f"at timestamp null, data {BLOB[driver]})"
    )
    connection.commit()
    at = datetime.datetime(2026, 11, 21, 12, 30, 5)
    insert = "insert into items values (%s, %s, %s, %s, %s)"
    data = os.urandom(1 << 20)
    cursor.execute(insert, (1, "Zoë 🐚 \\ ' \"", decimal.Decimal("12.30"), at, data))
    connection.commit()
    cursor.execute("delete from items")
    connection.rollback()
    cursor.executemany(insert, [(n, f"n{n}", None, None, b"") for n in range(2, MANY)])
    connection.commit()
    cursor.execute("select name, price, at, data from items where id = 1")
    name, price, when, read = cursor.fetchone()
    assert (price, when, bytes(read)) == (decimal.Decimal("12.30"), at, data)
    cursor.execute("select id, name from items order by id")
    rows = cursor.fetchall()
    assert [row[0] for row in rows] == list(range(1, MANY))
    try:
        cursor.execute(insert, (1, "again", None, None, b""))
    except (pg8000.dbapi.Error, pymysql.IntegrityError) as error:
        twice = type(error).__name__
    connection.rollback()
    encrypted = how != "plain"
    if driver == "pg8000":
        cursor.execute("select ssl from pg_stat_ssl where pid = pg_backend_pid()")
        assert cursor.fetchone()[0] is encrypted
    else:
        cursor.execute("show status like 'Ssl_cipher'")
        assert bool(cursor.fetchone()[1]) is encrypted
    connection.close()
    return {"name": name, "rows": len(rows), "twice": twice}


def use_redis(how):
    client = open_redis(how)
    client.flushall()
    client.set("large", os.urandom(1 << 20))
    with client.pipeline() as pipeline:
        for _ in range(MANY):
            pipeline.incr("counted")
        counts = pipeline.execute()
    heard = client.pubsub()
    heard.subscribe("news")
    assert heard.get_message(timeout=5)["type"] == "subscribe"
    client.publish("news", "now")
    message = heard.get_message(timeout=5)["data"].decode()
    heard.close()
    nothing = client.blpop("nobody", timeout=0.2)
    client.lpush("somebody", "here")
    something = client.blpop("somebody", timeout=5)[1].decode()
    size = client.strlen("large")
    client.close()
    return {
        "counts": [counts[0], counts[-1]],
        "message": message,
        "popped": [nothing, something],
        "size": size,
    }


async def wait_for_redis(how):
    """Five who wait for a list, while somebody counts turns of the loop and fills it."""
    import redis.asyncio

    tls = {} if how == "plain" else {"ssl": True, "ssl_ca_data": os.environ["CA"]}
    name = "REDIS" if how == "plain" else "REDIS_TLS"
    client = redis.asyncio.Redis(host="localhost", port=port(name), password=PASSWORD, **tls)
    waiting = [asyncio.create_task(client.blpop("later", timeout=10)) for _ in range(5)]
    turns = 0
    while turns < 10:
        await asyncio.sleep(0.02)
        turns += 1
    await client.rpush("later", *["now"] * 5)
    popped = [(await one)[1].decode() for one in waiting]
    await client.aclose()
    return {"popped": popped, "turns": turns}


class Base(orm.DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "authors"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    name: orm.Mapped[str] = orm.mapped_column(sqlalchemy.String(50))
    books: orm.Mapped[list["Book"]] = orm.relationship(back_populates="author")


class Book(Base):
    __tablename__ = "books"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    title: orm.Mapped[str] = orm.mapped_column(sqlalchemy.String(50))
    author_id: orm.Mapped[int] = orm.mapped_column(sqlalchemy.ForeignKey("authors.id"))
    author: orm.Mapped[Author] = orm.relationship(back_populates="books")


@functools.cache
def engine(driver, how):
    if driver == "pg8000":
        url = f"postgresql+pg8000://app@localhost:{port('POSTGRES')}/app"
        more = {"ssl_context": context(how)}
    else:
        url = f"mysql+pymysql://app@localhost:{port('MARIADB')}/app"
        more = tls_of_pymysql(how)
    more["password"] = PASSWORD
    return sqlalchemy.create_engine(url, connect_args=more, pool_pre_ping=True)


def use_sqlalchemy(driver, how):
    made = engine(driver, how)
    Base.metadata.drop_all(made)
    Base.metadata.create_all(made)
    with orm.Session(made) as session, session.begin():
        session.add(Author(name="Ursula", books=[Book(title=f"Volume {n}") for n in range(5)]))
    with orm.Session(made) as session:
        books = sqlalchemy.select(Book).join(Author).where(Author.name == "Ursula")
        titles = [book.title for book in session.scalars(books.order_by(Book.id))]
    with orm.Session(made) as session:
        try:
            session.add(Book(title="nobody's", author_id=99))
            session.commit()
        except sqlalchemy.exc.DBAPIError as error:  # pg8000 does not say more
            orphan = type(error.orig).__name__
    with made.connect() as connection:
        session = SESSION[driver][0]
        number = connection.execute(sqlalchemy.text(f"select {session}")).scalar()
    return {"titles": titles, "orphan": orphan, "session": number, "pool": made.pool.status()}


def use_kept():
    """A connection that requests share."""
    if "connection" not in kept:
        kept["connection"] = open_pg8000("tls")
    cursor = kept["connection"].cursor()
    cursor.execute("select pg_backend_pid()")
    return cursor.fetchone()[0]


def end(number):
    """Somebody else's connection."""
    connection = open_pg8000("tls")
    connection.cursor().execute("select pg_terminate_backend(%s)", (int(number),))
    connection.close()


def wait():
    """Longer than the driver's patience."""
    connection = open_pg8000("tls", timeout=0.3)
    connection.cursor().execute("select pg_sleep(20)")


def answer(path):
    driver, how, what = [*path.strip("/").split("/"), "", ""][:3]
    if driver == "redis":
        return use_redis(how)
    if driver == "redis-async":
        return asyncio.run(wait_for_redis(how))
    if driver == "kept":
        return use_kept()
    if driver == "end":
        return end(how)
    if driver == "wait":
        return wait()
    if what == "sqlalchemy":
        return use_sqlalchemy(driver, how)
    return use(driver, how)


def app(environ, start_response):
    path = environ["PATH_INFO"]
    try:
        result = "here" if path == "/" else answer(path)
    except Exception as error:
        traceback.print_exc()
        result = {"error": type(error).__name__, "text": str(error)}
    start_response("200 OK", [("content-type", "application/json")])
    return [json.dumps(result).encode()]
