"""A worker that is shut in as the real one is, and then tries what a guest that broke out would.

What it met goes to a file in its own folder: {attempt: errno's name, or "" where it worked}.
"""

import ctypes
import errno
import json
import mmap
import os
import resource
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pyseccomp

from isopod.engine.written import WrittenPages
from isopod.gateway.admin import AdminSocket
from isopod.model.tenant import TenantName
from isopod.sandbox.worker import shut_in
from isopod.server.children import READY_FD, TENANT, tell_ready
from isopod.server.coder import start_coder
from isopod.server.handover import Handover
from isopod.server.maker import start_maker
from isopod.server.opener import start_opener
from isopod.server.worker_folders import WorkerFolders
from isopod.server.worker_process import Worker
from isopod.settings import child_value

libc = ctypes.CDLL(None, use_errno=True)


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
    except (MemoryError, ValueError) as bad:
        return type(bad).__name__
    return ""


def fork() -> None:
    if os.fork() == 0:
        os._exit(0)


def link_out(where: Path, target: Path) -> None:
    """A link may be made; following it is another matter."""
    where.symlink_to(target)
    where.read_bytes()


def map_a_file() -> None:
    path = settings.worker_tmp(index) / "code"
    path.write_bytes(bytes(4096))
    with path.open("rb") as file:
        mmap.mmap(file.fileno(), 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC)


def make_executable() -> None:
    """Memory that it can write. (The kernel is never asked for less: see test_coder.)"""
    page = mmap.mmap(-1, 4096)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    system_call("mprotect", address, 4096, mmap.PROT_WRITE | mmap.PROT_EXEC)()


def in_a_new_thread(attempt: Callable[[], object]) -> str:
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(met(attempt)))
    thread.start()
    thread.join()
    return found[0]


handed = Handover.take()
settings, index = handed.settings, int(child_value("ISOPOD_WORKER_INDEX"))
ready = int(child_value(READY_FD))
tenant = TenantName.parse(name) if (name := child_value(TENANT)) else None
blob = next(path for path in settings.blobs_dir.rglob("*") if path.is_file())
folders = WorkerFolders.of(settings, index, tenant)
needs = folders.prepare(settings)
admin = AdminSocket.bind(settings.admin_path(index))
memory = os.memfd_create("program")
os.write(memory, Path("/bin/true").read_bytes())
files = start_maker(settings, handed.features, folders=folders, others=(ready, admin.fileno()))
coder = start_coder(
    settings,
    handed.features,
    trees=folders.trees,
    folder=folders.machine_code,
    alone=tenant is not None,
    others=(ready, admin.fileno(), files.fileno()),
)
secrets = start_opener(
    settings,
    handed.features,
    others=(ready, admin.fileno(), files.fileno(), coder.fileno()),
)
written = WrittenPages.open()
sandbox = shut_in(needs, features=handed.features)
egress, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
lines, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
worker = Worker(
    settings,
    index,
    admin=admin,
    sandbox=sandbox,
    files=files,
    secrets=secrets,
    coder=coder,
    egress=egress,
    lines=lines,
    trust="",
    extra="",
    folders=folders,
    tenant=tenant,
    written=written,
)
sandbox.guard(shown_code=True)

own = settings.worker_tmp(index)
zoo = settings.cordons_dir / "zoo"
apart = settings.apart_volumes_dir / "zoo" / "data" / "data" / "secret"
neighbour = settings.worker_tmp(index + 1)
NULL = None
attempts: dict[str, Callable[[], object]] = {
    "read the state": settings.state_path.read_bytes,
    "write the state": lambda: settings.state_path.open("r+b"),
    "read the control token": settings.token_path.read_bytes,
    "read the key of secrets": settings.sealing_key_path.read_bytes,
    "read the usage ledger": settings.ledger_path.read_bytes,
    "list the data directory": lambda: [*settings.data_dir.iterdir()],
    "read a neighbour's /tmp": (neighbour / "secret").read_bytes,
    "list a neighbour's /tmp": lambda: [*neighbour.iterdir()],
    "write a neighbour's spool": lambda: settings.spool_path(index + 1).open("r+b"),
    "follow a link to the state": lambda: link_out(own / "link", settings.state_path),
    "link the state into its own folder": lambda: os.link(settings.state_path, own / "hard"),
    "rename the state": lambda: settings.state_path.rename(own / "taken"),
    "remove the state": settings.state_path.unlink,
    "read a blob": blob.read_bytes,
    "change a blob": lambda: blob.open("r+b"),
    "remove a blob": blob.unlink,
    "make a tree": (folders.trees / "x").mkdir,
    "make an image": (folders.images / "x").mkdir,
    "make machine code": lambda: (folders.machine_code / "x.cwasm").write_text("x"),
    "read the machine code of one that has": (zoo / "machine-code" / "x.cwasm").read_bytes,
    "change an app's tree": lambda: (settings.trees_dir / "tree" / "app.py").write_text("x"),
    "change the routes": lambda: folders.routes.open("r+b"),
    "list the tenants that have workers of their own": lambda: [*settings.cordons_dir.iterdir()],
    "read the routes of one that has": (zoo / "routes" / "routes.db").read_bytes,
    "read an app of one that has": (zoo / "trees" / "tree" / "app.py").read_bytes,
    "read a log of one that has": (zoo / "logs" / "secret.jsonl").read_bytes,
    "read a volume of one that has": apart.read_bytes,
    "write to a volume of one that has": lambda: apart.write_text("x"),
    "take a volume of one that has": lambda: apart.parent.rename(folders.volumes / "taken"),
    "list the volumes of those that have": lambda: [*settings.apart_volumes_dir.iterdir()],
    "make a file in the cache": lambda: (settings.cache_dir / "modules" / "x").write_text("x"),
    "read /etc/shadow": Path("/etc/shadow").read_bytes,
    "read /etc/passwd": Path("/etc/passwd").read_bytes,
    "list /home": lambda: [*Path("/home").iterdir()],
    "list /": lambda: [*Path("/").iterdir()],
    "write in /tmp": Path("/tmp/isopod-attempt").touch,
    "read its memory as a file": lambda: os.open("/proc/self/mem", os.O_RDWR),
    "read its parent's environment": Path(f"/proc/{os.getppid()}/environ").read_bytes,
    "start a program": lambda: os.execv("/bin/true", ["true"]),
    "start a program from memory": lambda: os.execve(memory, ["true"], {}),
    "fork": fork,
    "trace its parent": system_call("ptrace", 16, os.getppid(), 0, 0),
    "read its parent's memory": system_call("process_vm_readv", os.getppid(), 0, 0, 0, 0, 0),
    "signal its parent": lambda: os.kill(os.getppid(), 0),
    "make a TCP socket": socket.socket,
    "make a UNIX socket": lambda: socket.socket(socket.AF_UNIX),
    "make a netlink socket": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "connect": system_call("connect", 0, NULL, 0),
    "bind": system_call("bind", 0, NULL, 0),
    "mount": system_call("mount", b"none", b"/mnt", b"tmpfs", 0, NULL),
    "a new user namespace": system_call("unshare", 0x10000000),
    "enter a namespace": system_call("setns", 0, 0),
    "chroot": lambda: os.chroot("/"),
    "become somebody": lambda: os.setuid(65534),
    "io_uring": system_call("io_uring_setup", 1, NULL),
    "bpf": system_call("bpf", 0, NULL, 0),
    "perf events": system_call("perf_event_open", NULL, 0, -1, -1, 0),
    "userfaultfd": system_call("userfaultfd", 0),
    "kernel keys": system_call("keyctl", 0, 0),
    "load a kernel module": system_call("init_module", NULL, 0, b""),
    "another kernel": system_call("kexec_load", 0, 0, NULL, 0),
    "personality": system_call("personality", 0),
    "make a device": lambda: os.mknod(own / "device", 0o020600, os.makedev(1, 1)),
    "map new machine code": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC),
    "make memory executable": make_executable,
    "make machine code for callbacks": lambda: [ctypes.CFUNCTYPE(NULL)(print) for _ in range(9999)],
    "map a file of its own as machine code": map_a_file,
    "be dumpable again": system_call("prctl", 4, 1, 0, 0, 0),
    "raise a limit": lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)),
    "filter for itself": system_call("seccomp", 1, 0, NULL),
}
if tenant is not None:  # nor what the others share
    attempts |= {
        "read the shared routes": settings.routes_path.read_bytes,
        "read an app of others": (settings.trees_dir / "tree" / "app.py").read_bytes,
        "list the images of others": lambda: [*settings.images_dir.iterdir()],
        "read a log of others": (settings.logs_dir / "secret.jsonl").read_bytes,
        "read a volume of others": (
            settings.volumes_dir / "zoo" / "data" / "data" / "secret"
        ).read_bytes,
        "read what another tenant used": (settings.quota_dir / "zoo").read_bytes,
        "list the tenants that have a quota": lambda: [*settings.quota_dir.iterdir()],
    }
found = {name: met(attempt) for name, attempt in attempts.items()}
found["read the state, in a new thread"] = in_a_new_thread(settings.state_path.read_bytes)
found["make a TCP socket, in a new thread"] = in_a_new_thread(socket.socket)
allowed: dict[str, Callable[[], object]] = {
    "read its routes": folders.routes.read_bytes,
    "count what its tenant uses": lambda: (settings.quota_dir / (tenant or "acme")).write_text("x"),
    "write in its own /tmp": lambda: (own / "x").write_text("x"),
    "write a log": lambda: (folders.logs / "x.jsonl").write_text("x"),
    "make a file in its volumes": lambda: (folders.volumes / "x").write_text("x"),
    "write its spool": lambda: folders.spool.write_text("x"),
    "start a thread": lambda: in_a_new_thread(lambda: NULL),
    "wait in a pair of sockets": socket.socketpair,
}
works = {name: met(attempt) for name, attempt in allowed.items()}
report = {
    "attempts": found,
    "allowed": works,
    "environment": dict(os.environ),
    "sandbox": sandbox.to_json(),
}
(own / "report.json").write_text(json.dumps(report))
tell_ready(ready)
while True:
    signal.pause()
