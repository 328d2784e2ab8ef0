"""The host-call ABI: a real guest calls everything it can import, with numbers made to hurt."""

from __future__ import annotations

import contextlib
import random
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import wasmtime

from isopod.engine.config import MIB, EngineSettings, make_engine
from isopod.engine.instance import Instance, InstanceSpec, Preopen, State
from isopod.engine.linker import Linkage
from isopod.errors import EngineError, IsopodError
from tools.fuzz import wasi
from tools.fuzz.target import INTERESTING, Finding, Target

_U64 = 0xFFFFFFFF_FFFFFFFF
_STEPS = 12
_BLOB_AT = wasi.PAYLOAD_AT + 8 + wasi.STEP_BYTES * _STEPS
_MEMORY = wasi.PAGES * 65536
_DISK_BYTES = 1 * MIB
_SECRET = b"what lies outside of a guest's folders"
_PATHS = [
    *(b"a", b"b", b"d", b"d/e", b"a/", b".", b"..", b"../secret", b"d/../../secret", b"/", b""),
    *(
        b"/etc/passwd",
        b"/tmp/a",
        b"link",
        b"link/secret",
        b"../app/file",
        b"file",
        b"x\0y",
        b"\xff",
    ),
    *(b"n" * 255, b"n" * 256, b"d/" * 2000 + b"x", b"/proc/self/environ", b"./././a", b"a/b/../c"),
]
# What a guest with ill intent calls more often than what answers from a table.
_FAVOURITES = ["path_open", "fd_write", "fd_pwrite", "fd_read", "path_symlink", "path_link",
               "path_rename", "fd_readdir", "fd_renumber", "fd_close", "poll_oneoff", "host.call",
               "random_get", "fd_filestat_set_size", "path_create_directory"]  # fmt: skip
_POLLS = 2000


def _generate(chance: random.Random) -> bytes:
    blob = bytearray()
    spots: list[tuple[int, int]] = []  # (address, size) of something that makes sense
    for _ in range(6):
        path = chance.choice(_PATHS)
        spots.append((_BLOB_AT + len(blob), len(path)))
        blob += path
    blob += bytes(-len(blob) % 8)
    vectors = _BLOB_AT + len(blob)
    for _ in range(4):
        size = chance.choice((0, 1, 100, 5000, 60000, _number(chance) & 0xFFFFFFFF))
        blob += struct.pack("<2I", chance.choice((0, 4096, 65536, _MEMORY - 4)), size)
    spots.append((vectors, chance.choice((0, 1, 4, 1024, 1025))))
    blob += chance.randbytes(96)  # subscriptions, or whatever it is taken for
    steps = b"".join(_step(chance, spots) for _ in range(_STEPS))
    payload = struct.pack("<Q", wasi.STEP_BYTES * chance.randint(1, _STEPS)) + steps + blob
    replies = [chance.randbytes(chance.choice((0, 1, 50, 3000, 200_000))) for _ in range(3)]
    parts = [payload, *replies]
    return b"".join(struct.pack("<I", len(part)) + part for part in parts)


def _step(chance: random.Random, spots: list[tuple[int, int]]) -> bytes:
    name = chance.choice(_FAVOURITES if chance.random() < 0.6 else wasi.NAMES)
    numbers = [_argument(chance, spots) for _ in range(9)]
    sense = chance.random() < 0.7
    if sense and name == "path_open":
        path, size = chance.choice(spots)
        fd, flags = chance.choice((3, 4)), chance.choice((0, 1, 1, 2, 3, 5, 8, 9))
        rights = chance.choice((2, 64, 66, 0x1FFFFFFF, 0x1FFFFFFF))
        numbers = [fd, chance.randint(0, 1), path, size, flags, rights, rights,
                   chance.choice((0, 1, 4, 31)), 64]  # fmt: skip
    elif sense and name in ("fd_write", "fd_pwrite", "fd_read", "fd_pread"):
        numbers[:3] = [chance.randint(0, 8), spots[-1][0], chance.choice((1, 2, 4, 5))]
        if chance.random() < 0.7:
            numbers[3:5] = [chance.choice((72, chance.choice(INTERESTING))), 80]
    elif sense and name.startswith("path_"):
        numbers[0] = chance.choice((3, 4))
        for at in range(1, 7):
            if chance.random() < 0.5 and at < 6:
                numbers[at : at + 2] = chance.choice(spots)
    elif sense and name.startswith("fd_"):
        numbers[0] = chance.randint(0, 9)
    return struct.pack("<10Q", wasi.NAMES.index(name), *numbers)


def _argument(chance: random.Random, spots: list[tuple[int, int]]) -> int:
    what = chance.random()
    if what < 0.35:
        return chance.randint(0, 10)
    if what < 0.6:
        return chance.choice(chance.choice(spots))
    return _number(chance)


def _number(chance: random.Random) -> int:
    if chance.random() < 0.2:
        return chance.getrandbits(chance.choice((16, 32, 64)))
    near = chance.choice((*INTERESTING, _MEMORY, _MEMORY - 8, _BLOB_AT))
    return (near + chance.randint(-9, 9)) & _U64


@contextlib.contextmanager
def _open(work: Path) -> Iterator[Callable[[bytes], None]]:
    engine = make_engine(EngineSettings())
    linkage = Linkage(engine, wasmtime.Module(engine, wasi.machine()))
    app, tmp, secret = work / "app", work / "tmp", work / "secret"
    app.mkdir()
    tmp.mkdir()
    secret.write_bytes(_SECRET)
    (app / "file").write_bytes(_SECRET)
    spec = InstanceSpec(
        argv=("machine",),
        env=(("A", "1"),),
        preopens=(Preopen(app, "/app"), Preopen(tmp, "/tmp", writable=True)),
        memory_bytes=4 * MIB,
        disk_bytes=_DISK_BYTES,
    )
    inputs = 0

    def run(data: bytes) -> None:
        nonlocal inputs
        payload, *replies = _parts(data)
        _run(Instance(linkage, spec), payload, replies)
        inputs += 1
        _check(work, app, secret)
        if inputs % 16 == 0:
            shutil.rmtree(tmp)
            tmp.mkdir()

    # What the first uses open, such as the engine's threads for files, stays open.
    for number in range(50):
        run(_generate(random.Random(number)))
    before = _descriptors()
    yield run
    if (now := _descriptors()) > before:
        raise Finding(f"{now - before} descriptors are open after {inputs:,} guests")


def _run(instance: Instance, payload: bytes, replies: list[bytes]) -> None:
    ends: list[IsopodError | None] = []
    instance.on_exit = ends.append
    frames: list[bytes] = []
    instance.on_call = frames.append
    instance.start([("run", payload)])
    left = iter(replies)
    try:
        for _ in range(_POLLS):
            if instance.state is State.READY:
                instance.poll()
                instance.take_frame()
            elif instance.state is State.CALLING:
                reply = next(left, None)
                if reply is None:
                    break
                instance.reply(reply)
            else:
                break
        else:
            raise Finding("a program of a few steps goes on for ever")
    finally:
        instance.close()
    for error in ends:
        if isinstance(error, EngineError):
            raise Finding(f"{error} after {error.__cause__!r}")


def _check(work: Path, app: Path, secret: Path) -> None:
    if {one.name for one in work.iterdir()} != {"app", "tmp", "secret"}:
        raise Finding("a guest changed a folder that is not its own")
    if secret.read_bytes() != _SECRET or [one.name for one in app.iterdir()] != ["file"]:
        raise Finding("a guest wrote outside of its folders")
    one = app / "file"
    if one.read_bytes() != _SECRET or one.stat().st_nlink != 1:
        raise Finding("a guest changed a read-only file")


def _parts(data: bytes) -> list[bytes]:
    found = []
    while data:
        size = int.from_bytes(data[:4], "little")
        found.append(data[4 : 4 + size])
        data = data[4 + size :]
    return found


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


TARGET = Target("host-calls", _generate, _open, longest_s=20)
