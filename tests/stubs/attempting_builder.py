"""A process that is shut in as a builder is, and tries in either half what an attacker would.

Arguments: the data directory, the cache. Prints {"first": {attempt: errno}, "second": {...}, ...}.
"""

import ctypes
import errno
import json
import os
import resource
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

import pyseccomp

from isopod.sandbox.builder import BuilderSandbox, Folders, new_namespaces

libc = ctypes.CDLL(None, use_errno=True)
data, cache = Path(sys.argv[1]), Path(sys.argv[2])


def system_call(name: str, *arguments: object) -> Callable[[], None]:
    number = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)

    def make() -> None:
        if libc.syscall(ctypes.c_long(number), *arguments) < 0:
            raise OSError(ctypes.get_errno(), name)

    return make


def met(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except OSError as bad:
        return errno.errorcode.get(bad.errno or 0, str(bad))
    return ""


def network() -> None:
    """To a port of its own parent's, which listens."""
    socket.create_connection(("127.0.0.1", int(sys.argv[3])), 2).close()


def in_a_new_thread(attempt: Callable[[], object]) -> str:
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(met(attempt)))
    thread.start()
    thread.join()
    return found[0]


never: dict[str, Callable[[], object]] = {
    "read the state": (data / "state.db").read_bytes,
    "read the control token": (data / "token").read_bytes,
    "read a worker's /tmp": (data / "run" / "tmp" / "secret").read_bytes,
    "list the data directory": lambda: [*data.iterdir()],
    "change a compiled runtime": lambda: (cache / "modules" / "x").write_text("x"),
    "read /etc/shadow": Path("/etc/shadow").read_bytes,
    "list /home": lambda: [*Path("/home").iterdir()],
    "write in /tmp": Path("/tmp/isopod-attempt").touch,
    "read the environment of process 1": Path("/proc/1/environ").read_bytes,
    "listen": lambda: socket.create_server(("127.0.0.1", 0)),
    "trace": system_call("ptrace", 0, 0, 0, 0),
    "mount": system_call("mount", b"none", b"/mnt", b"tmpfs", 0, None),
    "bpf": system_call("bpf", 0, None, 0),
    "io_uring": system_call("io_uring_setup", 1, None),
    "userfaultfd": system_call("userfaultfd", 0),
}
first_only: dict[str, Callable[[], object]] = {
    "use the network": network,
    "start a program": lambda: subprocess.run(["/bin/true"], check=True),
    "read the resolver's file": lambda: Path("/etc/nsswitch.conf").read_bytes(),
    "write uv's cache": lambda: (cache / "uv" / "x").write_text("x"),
}
second_too: dict[str, Callable[[], object]] = {
    "write a blob": lambda: (data / "blobs" / "x").write_text("x"),
    "start a thread": lambda: in_a_new_thread(lambda: None),
    "read a compiled runtime": lambda: [*(cache / "modules").iterdir()],
}


def in_the_child() -> None:
    sandbox = BuilderSandbox(
        Folders(read=(cache / "modules",), change=(data / "blobs",), fetch=(cache / "uv",)),
        missing=refused,
    )
    sandbox.enter({}, memory_bytes=256 << 20, cpu_s=60)
    net = Path("/proc/self/ns/net").readlink()
    first = {name: met(attempt) for name, attempt in (never | first_only | second_too).items()}
    sandbox.close_network()
    second = {name: met(attempt) for name, attempt in (never | first_only | second_too).items()}
    second["use the network, in a new thread"] = in_a_new_thread(network)
    report = {
        "missing": sandbox.missing,
        "first": first,
        "second": second,
        "never": list(never),
        "first_only": list(first_only),
        "other_network": net != Path("/proc/self/ns/net").readlink(),
        "process": os.getpid(),
        "core": resource.getrlimit(resource.RLIMIT_CORE),
    }
    print(json.dumps(report), flush=True)


refused = new_namespaces()
if not (child := os.fork()):
    try:
        in_the_child()
    except BaseException:
        traceback.print_exc()
    os._exit(0)
os.waitpid(child, 0)
