"""`set_apart.py FOLDER`: what work that was taken over meets, in a process that has nothing. Says
as JSON what each attempt came to."""

import json
import os
import socket
import sys
import time
from pathlib import Path

from isopod.errors import DiskFull, ModuleInvalid, QuotaExceeded
from isopod.sandbox.features import probe
from isopod.sandbox.privileges import no_new_privileges
from isopod.server.apart import Limits, run_apart

folder = Path(sys.argv[1])
features = probe()
no_new_privileges()
out = os.open(folder / "out", os.O_RDWR | os.O_CREAT)
secret = os.open(folder / "secret", os.O_RDONLY)
LIMITS = Limits(seconds=20, memory_bytes=256 << 20, file_bytes=1 << 20)


def refused(what) -> str:
    try:
        what()
    except OSError as error:
        return os.strerror(error.errno)
    return "done"


def attempts() -> None:
    said = {
        "open a file": refused(lambda: os.open(folder / "secret", os.O_RDONLY)),
        "make a file": refused(lambda: os.open(folder / "new", os.O_WRONLY | os.O_CREAT)),
        "list a folder": refused(lambda: list(folder.iterdir())),
        "another's descriptor": refused(lambda: os.read(secret, 1)),
        "a socket": refused(lambda: socket.socket(socket.AF_INET)),
        "a process": refused(os.fork),
        "its parent": refused(lambda: os.kill(os.getppid(), 0)),
        "too large a file": refused(lambda: os.pwrite(out, b"x", 2 << 20)),
    }
    os.write(out, json.dumps(said).encode())


def raises(error):
    def work() -> None:
        raise error

    return work


def ended(work, limits: Limits = LIMITS) -> list:
    got = run_apart(work, (out,), limits, features)
    return [got.error.code if got.error else "", got.over_time, got.failed]


def all_memory() -> None:
    _ = bytearray(3 << 30)


first = ended(attempts)
os.lseek(out, 0, os.SEEK_SET)
print(
    json.dumps(
        {
            "attempts": json.loads(os.read(out, 1 << 16)),
            "ended": {
                "done": first,
                "says that it is no module": ended(raises(ModuleInvalid("x"))),
                "says that the disk is full": ended(raises(DiskFull("x"))),
                "says what it may not say": ended(raises(QuotaExceeded("x"))),
                "sleeps": ended(lambda: time.sleep(60), Limits(1, 1 << 28, 1)),
                "takes memory": ended(all_memory),
            },
        }
    )
)
