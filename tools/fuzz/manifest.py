"""The manifest parser: any bytes as isopod.toml, of which most once were one."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from isopod import manifest
from isopod.errors import IsopodError
from isopod.manifest import FILE_NAME
from isopod.model.app import AppSpec
from isopod.model.ids import AppName
from tools.fuzz.target import INTERESTING, Finding, Target, mutate

_FULL = b"""\
[app]
name = "shop"
runtime = "python"
entrypoint = "shop.wsgi:application"
debug = true

[scaling]
max_instances = 4
idle_s = 1.5
queue = 10

[limits]
memory_mib = 128
deadline_ms = 5000
cpu_ms_per_request = 100
max_request_mib = 1
max_response_mib = 1
log_kib_per_s = 64
disk_mib = 16

[health]
path = "/healthz?x=1"

[startup]
snapshot = false
warmup = ["/", {path = "/x", method = "POST", headers = {Accept = "*/*"}, body = "a=1"}]
before_snapshot = "shop.hooks:before"
after_restore = "shop.hooks:after"

[isolation]
mode = "request"
cordon = "tenant"

[env]
DEBUG = "1"
MODE = "from the file"
"""
_WORDS = [
    *_FULL.split(),
    *(str(number).encode() for number in INTERESTING),
    *(b"[[app]]", b"[app.x]", b"[" * 2000, b"{a=" * 500, b"nan", b"-inf", b"1e999", b"0x7f"),
    *(b'"""', b"'''", b"\\u0000", b"\\uD800", b"\\U0010FFFF", b"\r", b"\0", b"\xff\xfe", b"#"),
    *(b"1979-05-27T07:32:00Z", b"..", b"a.b.c = 1", b'"" = 1', b"=", b"9" * 5000),
    "\u202e\u0130\u212a".encode(),
]


def _generate(chance: random.Random) -> bytes:
    lines = _FULL.splitlines(keepends=True)
    if chance.random() < 0.5:
        chance.shuffle(lines)
    if chance.random() < 0.5:
        lines = chance.choices(lines, k=chance.randint(0, 40))
    return mutate(chance, b"".join(lines), _WORDS, most=8)


@contextlib.contextmanager
def _open(work: Path) -> Iterator[Callable[[bytes], None]]:
    def run(data: bytes) -> None:
        (work / FILE_NAME).write_bytes(data)
        try:
            read = manifest.load(work)
            spec = read.to_spec(name=AppName("x"), runtime="python", entrypoint="a:b", env={})
        except IsopodError as error:
            json.dumps(error.to_wire())
            return
        # What was taken must come through state and back as it is.
        if AppSpec.from_json(json.loads(json.dumps(spec.to_json()))) != spec:
            raise Finding("a specification is another one after it was stored")

    yield run


TARGET = Target("manifest", _generate, _open, longest_s=20)
