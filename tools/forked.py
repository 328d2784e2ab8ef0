"""The command line without its start, for tests that run it a thousand times.

Each command takes half a second of CPU to import what it needs, and a tenth of that to do its work.
Here one process has imported it all, and forks: a command still is a process of its own, with its
own arguments, environment, folder and output. Its start is tried where processes are started, in
tests/cli.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

_REQUEST_FDS = 3  # where its request is and its status goes, its standard output and error
_STARTED = b"1"
# What commands import when they need it.
_LATE = ("isopod.client", "isopod.package.pack", "tomllib", "urllib.request")


class Forked:
    """Runs commands, also of several threads at once. Its process ends with ours, or at `close`."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tools.forked", str(theirs.fileno())],
                cwd=Path(__file__).resolve().parent.parent,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        self._channel = ours

    def close(self) -> None:
        self._channel.close()
        self._process.wait()

    def run(
        self, arguments: Sequence[str], env: Mapping[str, str], cwd: Path | None
    ) -> subprocess.CompletedProcess[str]:
        """The real command to its end, whatever that is."""
        request = {"arguments": arguments, "env": dict(env), "cwd": str(cwd or Path.cwd())}
        ours, theirs = socket.socketpair()
        with ours, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            with theirs:
                fds = [theirs.fileno(), out.fileno(), err.fileno()]
                socket.send_fds(self._channel, [_STARTED], fds)
            ours.sendall(json.dumps(request).encode())
            ours.shutdown(socket.SHUT_WR)
            told = ours.recv(16)
            if not told:
                raise RuntimeError(f"`isopod {' '.join(arguments)}` was killed")
            said = []
            for file in (out, err):
                file.seek(0)
                said.append(file.read().decode())
        return subprocess.CompletedProcess(["isopod", *arguments], int(told), *said)


def _serve(channel: socket.socket) -> None:
    from isopod.cli.main import run

    for module in _LATE:
        importlib.import_module(module)
    with contextlib.redirect_stderr(io.StringIO()), tempfile.TemporaryDirectory() as nowhere:
        run(["apps", "--data-dir", nowhere])  # what the parser imports when it is used
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them but their callers
    while True:
        message, fds, _, _ = socket.recv_fds(channel, 1, _REQUEST_FDS)
        if not message:
            return
        if os.fork() == 0:
            channel.close()
            _be_the_command(*fds)
        for fd in fds:
            os.close(fd)


def _be_the_command(connection: int, out: int, err: int) -> NoReturn:
    status = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.dup2(out, 1)
        os.dup2(err, 2)
        caller = socket.socket(fileno=connection)
        request = json.loads(b"".join(iter(lambda: caller.recv(1 << 16), b"")))
        os.environ.clear()
        os.environ.update(request["env"])
        os.chdir(request["cwd"])
        from isopod.cli.main import run

        sys.argv = ["isopod", *request["arguments"]]
        status = run(request["arguments"])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        caller.sendall(str(status).encode())
        os._exit(status)


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as given:
        _serve(given)
