"""What to do about well-known distributions that exist as native code only."""

from __future__ import annotations

from isopod.runtimes.python.bundled import bundled

_NOT_NEEDED = "leave it out: isopod is the server, and the app runs without it"
_NO_SERVER = "leave it out: isopod is the server"

_ADVICE = {
    "psycopg2": "use pg8000 (with SQLAlchemy: postgresql+pg8000://)",
    "psycopg2-binary": "use pg8000 (with SQLAlchemy: postgresql+pg8000://)",
    "psycopg-binary": "use pg8000 (with SQLAlchemy: postgresql+pg8000://)",
    "psycopg-c": "use pg8000 (with SQLAlchemy: postgresql+pg8000://)",
    "asyncpg": "use pg8000",
    "mysqlclient": "use PyMySQL (with SQLAlchemy: mysql+pymysql://)",
    "pymssql": "there is no pure alternative; reach the database through an HTTP API",
    "pyodbc": "there is no pure alternative; reach the database through an HTTP API",
    "pydantic-core": "require `pydantic<2`, whose version 1 is pure Python",
    "pydantic": "require `pydantic<2`, whose version 1 is pure Python",
    "orjson": "use the standard json module",
    "ujson": "use the standard json module",
    "python-rapidjson": "use the standard json module",
    "simdjson": "use the standard json module",
    "msgspec": "use dataclasses and the standard json module",
    "msgpack": "require `u-msgpack-python`, which is pure Python",
    "uvloop": _NOT_NEEDED,
    "httptools": _NOT_NEEDED,
    "watchfiles": _NOT_NEEDED,
    "uwsgi": _NO_SERVER,
    "granian": _NO_SERVER,
    "meinheld": _NO_SERVER,
    "bjoern": _NO_SERVER,
    "gevent": "not possible: a guest switches no C stacks; each instance serves one request",
    "greenlet": "not possible: a guest switches no C stacks; use the libraries' synchronous API",
    "eventlet": "not possible: a guest switches no C stacks; each instance serves one request",
    "cryptography": "use hashlib, hmac and secrets; for JWT, PyJWT with HS256",
    "pynacl": "use hashlib, hmac and secrets",
    "pycryptodome": "use hashlib, hmac and secrets, or `pyaes` for AES",
    "cffi": "it loads native libraries, which a guest cannot; drop what needs it",
    "bcrypt": "hash passwords with hashlib.scrypt or werkzeug.security",
    "argon2-cffi": "hash passwords with hashlib.scrypt or werkzeug.security",
    "argon2-cffi-bindings": "hash passwords with hashlib.scrypt or werkzeug.security",
    "lxml": "the runtime bundles it: require it without a version",
    "pillow": "the runtime bundles it: require it without a version",
    "rpds-py": "require `jsonschema<4.18`, which does not need it",
    "grpcio": "use the service's HTTP API",
    "protobuf": "require a version with a pure wheel, such as `protobuf<5`",
    "tokenizers": "call a model server over HTTP instead",
    "torch": "call a model server over HTTP instead",
    "tensorflow": "call a model server over HTTP instead",
    "polars": "use pandas, which the runtime bundles",
    "pyarrow": "use pandas with CSV or JSON, which the runtime bundles",
    "duckdb": "use sqlite3 or pandas",
    "opencv-python": "use Pillow, which the runtime bundles",
    "opencv-python-headless": "use Pillow, which the runtime bundles",
    "psutil": "leave it out: a guest sees no processes but itself",
    "lz4": "use zlib or lzma",
    "brotli": "use gzip",
    "zstandard": "use zlib or lzma",
}
_DEFAULT = (
    "look for a pure Python alternative, or import it only where it is there and leave it out here"
)


def has_advice(name: str) -> bool:
    return name in _ADVICE or name in bundled()


def advice(name: str) -> str:
    """`name` is canonical."""
    if name in bundled():
        return f"the runtime bundles version {bundled()[name].version}: require that or no version"
    return _ADVICE.get(name, _DEFAULT)
