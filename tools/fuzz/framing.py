"""The request protocol: a real guest that says, frame by frame, whatever the input holds."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import wasmtime

from isopod.engine.config import MIB, EngineSettings, make_engine
from isopod.engine.instance import Instance, InstanceSpec
from isopod.engine.linker import Linkage
from isopod.engine.scheduler import Scheduler
from isopod.errors import EngineError, IsopodError
from isopod.gateway.headers import outgoing
from isopod.host.capabilities import no_world
from isopod.runtimes.guest import GuestRequest, GuestResponse
from isopod.runtimes.python.serve import PythonGuest
from tools.fuzz.target import Finding, Target, mutate

SCRIPTED = """(module
  (import "host" "call" (func $call (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 4)
  (global $given (mut i32) (i32.const 4096))
  (func (export "host_alloc") (param i32) (result i32)
    (global.get $given) (global.set $given (i32.const 131072)))
  (func (export "turn") (param $at i32) (param $size i32)
    (local $end i32)
    (local.set $end (i32.add (local.get $at) (local.get $size)))
    (loop $again
      (if (i32.ge_u (local.get $at) (local.get $end)) (then (return)))
      (drop (call $call (i32.add (local.get $at) (i32.const 4)) (i32.load (local.get $at))
        (i32.const 16) (i32.const 20)))
      (local.set $at
        (i32.add (i32.add (local.get $at) (i32.const 4)) (i32.load (local.get $at))))
      (br $again))))"""


def head(text: bytes) -> bytes:
    return struct.pack("<I", len(text)) + text


_HEADS = [
    b"200 OK\ncontent-type:text/plain",
    b"404 Not Found\ncontent-length:4\nset-cookie:a=1\nset-cookie:b=2",
    b"200 OK\ncontent-length:4\ncontent-length:4",
    b"200 OK\ncontent-length:-1",
    b"200 OK\ncontent-length:99999999999999999999",
    b"204 No Content",
    b"100 Continue",
    b"200 OK\ntransfer-encoding:chunked\nconnection:x-request-id",
    b"200 OK\r\nX: 1\r\n\r\nHTTP/1.1 200 OK",
    b"302 Found\nlocation:/\r\nset-cookie: evil=1",
    b"200 OK\nx:" + b"y" * 9000,
    b"\n".join([b"200 OK", *(b"h%d:v" % number for number in range(201))]),
]
_FRAMES = [
    *(b"Q", b"E", b"C", b"", b"I" + bytes(8), b"B" + struct.pack("<I", 1000), b"B", b"Dpiece"),
    *(b"R" + b"not_found\nno module\ntrace", b"R{}", b"Xerror\nsummary", b"Xmemory\n", b"D"),
    *(b"Loline\n", b"Leline\n", b"L", b"L" + b"o" * 40_000, b"Z", b"\0", b"\xff" * 10),
    *(b"S" + head(one) + b"body" for one in _HEADS),
    *(b"H" + head(one) for one in _HEADS),
    *(b"S" + struct.pack("<I", size) + b"200 OK" for size in (0, 5, 7, 65536, 65537, 2**32 - 1)),
]
_WORDS = [b"\r\n", b"\n", b":", b"content-length:", b"HTTP/1.1 200 OK\r\n", b"\0",
          b"transfer-encoding:", b"200", b"connection:", b" ", b"\t", b"\x7f",
          b"\x80", "é".encode()]  # fmt: skip
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")


def _generate(chance: random.Random) -> bytes:
    # Most begin as a guest should, or nothing after would be looked at.
    frames = [b"Q"] if chance.random() < 0.85 else []
    frames += chance.choices(_FRAMES, k=chance.randint(0, 8))
    frames = [mutate(chance, one, _WORDS) if chance.random() < 0.4 else one for one in frames]
    return b"".join(struct.pack("<I", len(one)) + one for one in frames)


@contextlib.contextmanager
def _open(work: Path) -> Iterator[Callable[[bytes], None]]:
    engine = make_engine(EngineSettings())
    linkage = Linkage(engine, wasmtime.Module(engine, SCRIPTED))
    spec = InstanceSpec(argv=("x",), env=(), preopens=(), memory_bytes=MIB)
    with asyncio.Runner() as runner:

        async def make_scheduler() -> Scheduler:
            return Scheduler(engine)

        scheduler = runner.run(make_scheduler())

        world = no_world(work)

        def run(data: bytes) -> None:
            instance = Instance(linkage, spec)
            said: list[int] = []
            guest = PythonGuest(
                instance,
                scheduler,
                lambda _stream, text: said.append(len(text)),
                world=world,
                app="fuzz",
                tenant="fuzz",
            )
            instance.start([("turn", data)])
            try:
                runner.run(_converse(guest))
            finally:
                guest.close()

        yield run

        async def close() -> None:
            await scheduler.__aexit__(None, None, None)

        runner.run(close())


async def _converse(guest: PythonGuest) -> None:
    """As the gateway does; any error of the guest's ends it, and no other may come."""
    request = GuestRequest(
        method="POST", path="/", query="", protocol="HTTP/1.1", scheme="http", host="x", port=80,
        client="127.0.0.1", headers=(("a", "b"),), has_body=True,
    )  # fmt: skip

    async def read(size: int) -> bytes:
        return b"z" * min(size, 100)

    try:
        async with asyncio.timeout(10):
            await guest.start()
            for _ in range(4):
                if not guest.idle:
                    break
                exchange = guest.exchange()
                response = await exchange.send(request, read)
                _check(response)
                if response.more:
                    while await exchange.next_chunk() is not None:
                        pass
                else:
                    await exchange.finish()
    except EngineError as error:
        raise Finding(f"{error} after {error.__cause__!r}") from error
    except IsopodError:
        pass


def _check(response: GuestResponse) -> None:
    if not 200 <= response.status <= 599:
        raise Finding(f"status {response.status}")
    for name, value in outgoing(response.headers, "id", "timing"):
        if _CONTROL.search(value) or not _NAME.fullmatch(name):
            raise Finding(f"header {name!r}: {value!r}")
    lengths = [value for name, value in response.headers if name == b"content-length"]
    if len(lengths) > 1 or (lengths and int(lengths[0]) != response.length):
        raise Finding(f"lengths {lengths!r}, {response.length!r}")


TARGET = Target("framing", _generate, _open, longest_s=20)
